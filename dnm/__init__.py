"""Dynamic nonlinear mixup with distance-based sample selection: the module behind the notebooks.

Read first, in this order: `methods`, `selection`, `mixing`, `heads`, `model`, `training`. What only uses these lives in
wings: `data`, `classify`, `runs`, `plots`, `study`, `notebook`, `bench`. The names below are loaded when they are asked
for.
"""

import os

__version__ = "0.1.0"

_FACE = {"RunConfig": "config", "METHODS": "methods", "load_dataset": "data.datasets", "fit": "training",
         "DNMClassifier": "classify.estimator", "Classifier": "classify.estimator", "grid": "runs.plan",
         "run_all": "runs.scheduler", "RunStore": "runs.store", "frame": "runs.results"}
__all__ = [*_FACE]

# OpenMP's threads wait for each other by spinning. Where another program wants the same cores, that makes training five
# times slower; to spin only for a moment costs nothing where none does. OpenMP reads this when torch is loaded.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # GNU's; rounds
os.environ.setdefault("KMP_BLOCKTIME", "1")  # Intel's; milliseconds


def __getattr__(name: str):
    if name not in _FACE:
        raise AttributeError(f"module 'dnm' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"dnm.{_FACE[name]}"), "DNMClassifier" if name == "Classifier" else name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_FACE])
