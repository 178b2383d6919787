"""Word vectors that CNN and LSTM start from: random, GloVe's from a package, or those of a text file."""

import numpy as np
import torch
from torch import Tensor

from dnm.data import hub
from dnm.errors import DnmError

WORD_SIZE = 300  # of random word vectors


def word_vectors(known: dict[str, int], size: int, path: str) -> Tensor:
    """Vectors ``[size, e]`` of ``known`` words: small and random, or those of GloVe's or a file's words."""
    if not path:
        return torch.randn(size, WORD_SIZE).mul_(0.1)
    if path == "glove":
        import pandas as pd

        vectors, words = hub.glove_files()
        vectors, words = np.lib.format.open_memmap(vectors, "r"), pd.read_parquet(words)["index"]
        rows = np.flatnonzero(words.isin([*known]))
        table = torch.randn(size, vectors.shape[1]).mul_(0.1)
        table[[known[word] for word in words[rows]]] = torch.from_numpy(vectors[rows])
        return table
    table, number = None, 0
    try:
        with open(path, encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):  # noqa: B007 (told in the error)
                if table is None:
                    table = torch.randn(size, line.rstrip().count(" ")).mul_(0.1)
                word, *values = line.rstrip().rsplit(" ", table.shape[1])  # a few words of the large files hold blanks
                if len(values) < table.shape[1]:
                    raise ValueError(f"{len(values)} numbers instead of {table.shape[1]}")
                if word in known:
                    table[known[word]] = torch.tensor([float(value) for value in values])
    except (OSError, ValueError, RuntimeError) as error:
        raise DnmError(f"cannot read word vectors {path}, line {number}: {error}; expected lines of a word and "
                       "the same count of numbers, separated by blanks") from None
    if table is None:
        raise DnmError(f"{path} holds no word vectors")
    return table
