"""The race against `transformers.Trainer` (`race`), and how good the classifier is beside others (`accuracy`).

Both are behind ``dnm bench``. Imports `study` for its statistics; only `cli` imports this wing. Read `race` first.
"""
