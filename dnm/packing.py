"""Sentences of different lengths in rectangular rows, with little padding.

A random batch padded to its longest sentence is about half padding. Here several sentences share a row:
positions restart at each sentence, and a block-diagonal mask keeps them from seeing one another, so every
sentence's hidden states are those it has alone.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

NOTHING = -1  # in `ids`: no word piece here; in `owner`: no sentence here
_WIDTHS = (1.0, 1.15, 1.3, 1.5, 1.75, 2.0)  # row lengths tried, in multiples of the longest sentence


class Layout(NamedTuple):
    """Where each sentence of a batch lies in the rows; steps may be stacked in front of all shapes.

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
        where, _ = _places(self.first.numpy(), [len(s) for s in sentences], self.owner.shape[-2:].numel())
        ids[where] = np.concatenate(sentences)
        return torch.from_numpy(ids).view(self.owner.shape)

    def attention_mask(self) -> Tensor:
        """``[R, 1, T, T]``, 0 within a sentence and the lowest float elsewhere, to add to the scores."""
        same = self.owner.unsqueeze(-1) == self.owner.unsqueeze(-2)
        return torch.where(same, 0.0, torch.finfo(torch.float32).min).unsqueeze(1)

    def moved(self, states: Tensor, to: "Layout", who: Tensor) -> Tensor:
        """States ``[R, T, d]`` in another layout, sentence i with those of ``who[i]``, zeros where it is longer."""
        sentence = who[to.owner.clamp_min(0)]
        there = (to.owner != NOTHING) & (to.position < self.lengths[sentence])
        found = F.embedding((self.first[sentence] + to.position) * there, states.flatten(0, 1))
        return found.masked_fill(~there.unsqueeze(-1), 0.0)

    def to(self, device) -> "Layout":
        return Layout(*(tensor.to(device, non_blocking=True) for tensor in self))


def pack(lengths: np.ndarray, capacity: int, share_rows: bool = True) -> Layout:
    """A layout of sentences of the given ``lengths`` ``[N]`` in rows of at most ``capacity`` word pieces.

    First-fit decreasing. Several row lengths are tried and the cheapest taken, because attention costs
    grow with a row's length and padding with the number of rows. ``share_rows=False`` gives every sentence
    a row of its own (CNN, LSTM).
    """
    return Layout(*(tensor[0] for tensor in pack_alike(lengths[None], capacity, share_rows)))


def pack_alike(lengths: np.ndarray, capacity: int, share_rows: bool = True, shape: tuple[int, int] = (0, 0)) -> Layout:
    """A layout for each of B batches ``[B, N]``, all in rows of one shape: ``shape``, or more where it is too small.

    One shape for all is what a stack of runs and a CUDA graph need.
    """
    if shape[1]:
        width = max(shape[1], int(lengths.max()))
        row, column = _first_fit(lengths, width) if share_rows else _rows_of_their_own(lengths)
        shape = (max(shape[0], int(row.max()) + 1), width)
    else:
        (row, column), shape = fitted(lengths, capacity, share_rows)
    return _layout(lengths, row, column, *shape)


def fitted(lengths: np.ndarray, capacity: int, share_rows: bool) -> tuple:
    """Rows and columns of all batches ``[B, N]`` in the cheapest shape that holds every one of them."""
    longest = int(lengths.max())
    if not share_rows:
        return _rows_of_their_own(lengths), (lengths.shape[1], longest)
    least, found = np.inf, ()
    for width in sorted({min(capacity, int(longest * factor)) for factor in _WIDTHS}):
        row, column = _first_fit(lengths, width)
        rows, width = int(row.max()) + 1, int((column + lengths).max())
        # Relative work of a row of T word pieces: linear layers T, attention with its dropout T * T / 340
        # (measured for hidden size 384 on a CPU; the choice changes the speed, never the result).
        if (cost := rows * width * (1 + width / 340)) < least:
            least, found = cost, ((row, column), (rows, width))
    return found


def _rows_of_their_own(lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.broadcast_to(np.arange(lengths.shape[1]), lengths.shape), np.zeros_like(lengths)


def _first_fit(lengths: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """First-fit decreasing for all batches at once: row and column ``[B, N]`` of every sentence."""
    batch, count = np.arange(len(lengths)), lengths.shape[1]
    room, row, column = (np.full((len(lengths), count), start) for start in (width, 0, 0))
    for place in np.argsort(-lengths, axis=1, kind="stable").T:
        needed = lengths[batch, place]
        chosen = (room >= needed[:, None]).argmax(1)
        row[batch, place], column[batch, place] = chosen, width - room[batch, chosen]
        room[batch, chosen] -= needed
    return row, column


def _places(first: np.ndarray, lengths, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Of every word piece, sentence by sentence: its flat place in the rows of all batches, and in its sentence."""
    starts = (first.reshape(-1, first.shape[-1]) + size * np.arange(first.size // first.shape[-1])[:, None]).ravel()
    lengths = np.asarray(lengths)
    within = np.arange(lengths.sum()) - np.repeat(lengths.cumsum() - lengths, lengths)
    return np.repeat(starts, lengths) + within, within


def _layout(lengths: np.ndarray, row: np.ndarray, column: np.ndarray, rows: int, width: int) -> Layout:
    first, count = row * width + column, lengths.shape[1]
    owner, position = np.full((len(lengths), rows, width), NOTHING), np.zeros((len(lengths), rows, width), dtype=int)
    where, within = _places(first, lengths.ravel(), rows * width)
    owner.reshape(-1)[where] = np.repeat(np.tile(np.arange(count), len(lengths)), lengths.ravel())
    position.reshape(-1)[where] = within
    return Layout(*map(torch.from_numpy, (owner, position, first, np.asarray(lengths, dtype=int))))
