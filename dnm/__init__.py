"""Dynamic nonlinear mixup with distance-based sample selection: the module behind the notebooks."""

__version__ = "0.1.0"
