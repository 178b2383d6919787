"""The race against `transformers.Trainer`: how fast a step and an evaluation are, and why.

All of it is in `race`. Only `cli` imports this wing.
"""
