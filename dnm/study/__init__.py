"""The paper: its experiments and numbers, ours beside them, what can be said of the differences, tables and figures.

Beside it people's own tables: `own` fits and predicts, `compare` recommends a method. Frames of `dnm.runs.results` in,
tables out. Imports all wings below it; `dnm.notebook` and the command line import from
here. Read `experiments` first, then `beside`.
"""
