"""People's own texts: a classifier in scikit-learn's habits, its folder, and the same model for `transformers`.

Imports the root and `dnm.data`; `dnm.runs` keeps models with it, and `study`, `bench`, `notebook` and the command line
may import from here. Read `estimator` first; `saved` is the folder a model is kept in, `stream` predicts files, `hf` is
what `transformers` serves.
"""
