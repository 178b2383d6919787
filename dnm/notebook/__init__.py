"""What lives in notebooks and what runs them: a common start, checked parameters, widgets, the batch job and its page.

Only the command line and notebooks import from here; this wing may use every other but `bench`. Read `start` first.
"""
