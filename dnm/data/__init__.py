"""Sentences and weights in: the real data sets, the built-in corpus, files of one's own, pre-trained encoders.

Anyone may import from here; it sees only `dnm.errors`, `disk`, `methods` and `config`. Read `datasets` first.
"""
