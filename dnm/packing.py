"""Sentences of different lengths in rectangular rows, with little padding.

A random batch padded to its longest sentence is about half padding. Here several sentences share a row:
positions restart at each sentence, and a block-diagonal mask keeps them from seeing one another, so every
sentence's hidden states are those it has alone.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

NOTHING = -1  # in `ids`: no word piece here; in `owner`: no sentence here
_CAPACITIES = (1.0, 1.15, 1.3, 1.5, 1.75, 2.0)  # row lengths tried, in multiples of the longest sentence


@dataclass(frozen=True)
class Layout:
    """Where each sentence of a batch lies in the rows.

    ``owner`` ``[R, T]`` is the sentence at a place, ``position`` ``[R, T]`` the place in the sentence,
    ``first`` ``[N]`` the flat index of each sentence's first word piece, ``lengths`` ``[N]``.
    """

    owner: Tensor
    position: Tensor
    first: Tensor
    lengths: Tensor

    def place(self, sentences: list[np.ndarray]) -> Tensor:
        """Word pieces of the N sentences in the rows, ``[R, T]``; a shorter sentence leaves `NOTHING`."""
        ids = np.full(self.owner.numel(), NOTHING)
        for start, sentence in zip(self.first.tolist(), sentences, strict=True):
            ids[start:start + len(sentence)] = sentence
        return torch.from_numpy(ids).view(self.owner.shape)

    def attention_mask(self) -> Tensor:
        """``[R, 1, T, T]``, 0 within a sentence and the lowest float elsewhere, to add to the scores."""
        same = self.owner.unsqueeze(-1) == self.owner.unsqueeze(-2)
        return torch.where(same, 0.0, torch.finfo(torch.float32).min).unsqueeze(1)

    def to(self, device) -> "Layout":
        return Layout(*(getattr(self, name).to(device, non_blocking=True)
                        for name in ("owner", "position", "first", "lengths")))


def pack(lengths: np.ndarray, capacity: int, share_rows: bool = True) -> Layout:
    """A layout of sentences of the given ``lengths`` ``[N]`` in rows of at most ``capacity`` word pieces.

    First-fit decreasing. Several row lengths are tried and the cheapest taken, because attention costs
    grow with a row's length and padding with the number of rows. ``share_rows=False`` gives every sentence
    a row of its own (CNN, LSTM).
    """
    longest = int(lengths.max())
    if longest > capacity:
        raise ValueError(f"a sentence of {longest} word pieces does not fit rows of {capacity}")
    if not share_rows:
        return _layout(lengths, [[i] for i in range(len(lengths))])
    tries = {min(capacity, int(longest * factor)) for factor in _CAPACITIES}
    return min((_layout(lengths, _first_fit(lengths, size)) for size in sorted(tries)), key=_cost)


def _first_fit(lengths: np.ndarray, capacity: int) -> list[list[int]]:
    rows, free = [], []
    for i in np.argsort(-lengths, kind="stable").tolist():
        row = next((r for r, room in enumerate(free) if room >= lengths[i]), None)
        if row is None:
            row = len(rows)
            rows.append([])
            free.append(capacity)
        rows[row].append(i)
        free[row] -= lengths[i]
    return rows


def _layout(lengths: np.ndarray, rows: list[list[int]]) -> Layout:
    width = max(int(sum(lengths[i] for i in row)) for row in rows)
    owner = np.full((len(rows), width), NOTHING)
    position = np.zeros((len(rows), width), dtype=int)
    first = np.empty(len(lengths), dtype=int)
    for r, row in enumerate(rows):
        column = 0
        for i in row:
            end = column + int(lengths[i])
            owner[r, column:end], position[r, column:end] = i, np.arange(lengths[i])
            first[i], column = r * width + column, end
    return Layout(*map(torch.from_numpy, (owner, position, first, np.asarray(lengths, dtype=int))))


def _cost(layout: Layout) -> float:
    # Relative work of a row of T word pieces: linear layers T, attention with its dropout T * T / 340
    # (measured for hidden size 384 on a CPU; the choice changes the speed, never the result).
    rows, width = layout.owner.shape
    return rows * width * (1 + width / 340)
