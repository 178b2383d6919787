"""Many runs: which there are, who trains them and where, what is kept of them.

Imports the trainer; `dnm.study`, `bench`, `notebook` and the command line import from here. Read `scheduler` first;
stored runs are read in `store` (one run) and `results` (many, as a data frame).
"""
