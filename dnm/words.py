"""Sentences to word pieces, and the table of their embeddings. Taught in notebook 01."""

import warnings
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dnm.data import hub
from dnm.data.pretrained import by_transformers
from dnm.errors import DnmError
from dnm.packing import NOTHING


class Words(nn.Module):
    """The word-embedding table, of which only the rows in use are trained.

    A word piece that is not in the training sentences never receives a gradient, and with no weight decay
    AdamW leaves it where it was; so training the rows in use alone is exact and saves memory and time.
    ``table`` ``[V + 1, e]`` is the whole vocabulary as it was and a last row of zeros for `NOTHING`; ``rows``
    ``[U + 1, e]`` are the trained ones.
    """

    def __init__(self, table: Tensor):
        super().__init__()
        self.register_buffer("table", torch.cat([table.detach(), table.new_zeros(1, table.shape[1])]))
        self.use(torch.arange(len(table)))

    def use(self, ids: Tensor) -> None:
        """Make ``ids`` the rows that are trained."""
        device, ids = self.table.device, ids.to(self.table.device)
        local = torch.full((len(self.table),), len(ids), device=device)
        local[ids] = torch.arange(len(ids), device=device)
        self.register_buffer("ids", ids, persistent=False)
        self.register_buffer("local", local, persistent=False)
        self.rows = nn.Parameter(torch.cat([self.table[ids], self.table[-1:]]))

    def whole(self) -> Tensor:
        """The whole table ``[V + 1, e]`` with the trained rows in their places."""
        return self.table.index_copy(0, self.ids, self.rows.detach()[:-1])

    def forward(self, ids: Tensor) -> Tensor:
        """Embeddings ``[..., e]`` of word pieces ``[...]``; zeros at `NOTHING`."""
        local = self.local[ids]
        words = F.embedding(local, self.rows)
        if not self.training:  # held-out sentences hold other words, too
            unused = (local == len(self.rows) - 1).unsqueeze(-1)
            return torch.where(unused, F.embedding(ids % len(self.table), self.table), words)
        return words.masked_fill((ids == NOTHING).unsqueeze(-1), 0.0)  # so that the row of zeros gets no gradient


@dataclass(frozen=True)
class Tokenizer:
    """Sentences to word-piece ids, at most ``max_length`` with the special ones; says once that some are longer."""

    folder: Path
    max_length: int
    said: list[str] = field(default_factory=list, compare=False, repr=False)

    def __post_init__(self):
        object.__setattr__(self, "loaded", _tokenizer(self.folder, hub.stamp(self.folder)))  # and stays so

    def __call__(self, texts: list[str]) -> list[np.ndarray]:
        if not texts:
            return []
        tokenizer = self.loaded
        found = self._pieces(texts, truncation=True, max_length=self.max_length)
        full = [text for text, ids in zip(texts, found, strict=True) if len(ids) == self.max_length]
        whole = self._pieces(full, verbose=False) if full and not self.said else []
        if longer := sum(len(ids) > self.max_length for ids in whole):
            self.said.append(f"{longer} of {len(texts)} texts are longer than max_length={self.max_length} word "
                             "pieces; the rest of them is not read")
            warnings.warn(self.said[0], stacklevel=3)
        unknown = tokenizer.unk_token_id  # stands for a text without any word piece, such as an invisible character
        if unknown is None and [] in found:
            raise DnmError(f"text {(at := found.index([])) + 1}, {texts[at]!r}, holds no word that the encoder knows")
        return [np.array(ids or [unknown]) for ids in found]

    def _pieces(self, texts: list[str], **options) -> list[list[int]]:
        """Word pieces of all texts, a few at a time: a character takes some 200 bytes while they are found."""
        places = zip(np.cumsum([*map(len, texts)]) // 1_000_000, texts, strict=True)
        parts = ([text for _, text in part] for _, part in groupby(places, key=lambda place: place[0]))
        return [ids for part in parts for ids in self.loaded(part, **options)["input_ids"]]

    @property
    def size(self) -> int:
        """Tokens, the highest number counts."""
        return max(self.loaded.get_vocab().values()) + 1


@lru_cache(maxsize=4)
def _tokenizer(folder: Path, stamp: tuple):
    with by_transformers(f"cannot load the tokenizer in {folder}: {{}}"):
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        if set(tokenizer.get_vocab()) <= set(tokenizer.all_special_tokens):  # made up by the library
            raise DnmError(f"{folder} holds no tokenizer: put its files (tokenizer.json, vocab.txt, …) there")
        return tokenizer
