"""The race against `transformers.Trainer`: how fast a step, an evaluation and a whole run are, and why.

`race` times and tells, `rivals` are those it is run against; read `race` first. Only `cli` imports this wing.
"""
