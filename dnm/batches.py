"""What a step sees, as tensors, and how held-out sentences are laid out once for every evaluation."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from dnm.config import RunConfig
from dnm.heads import Draws, draw, stream
from dnm.packing import Layout, pack, pack_alike

EVALUATION_TOKENS = 4096  # word pieces encoded at once when nothing is trained


class Inputs(NamedTuple):
    """All that the steps of a run need: W steps are stacked in front of every shape.

    ``ids`` ``[R, T]`` are word pieces in the rows of ``layout``, ``[2, R, T]`` (the sentences and their partners)
    where words are mixed; ``labels`` ``[N]`` are class numbers, ``draws`` the step's random numbers, ``pairs`` the
    layout of sentences as long as the longer of themselves and their partners, where these meet within the encoder.
    At rate 0 nothing is encoded: ``ids`` ``[N]`` are then the sentences' places among the training sentences, and
    ``layout`` is empty.
    """

    ids: Tensor
    layout: Layout
    labels: Tensor
    draws: Draws | None
    pairs: Layout | tuple = ()

    def to(self, device) -> "Inputs":
        return tree_map(lambda tensor: tensor.to(device, non_blocking=True), self)


class Batches:
    """The training sentences as word pieces, and which of them make up the batch of a step.

    Of sentence i there may be ``counts[i]`` versions, one behind the other in ``sentences``, the original first.
    """

    def __init__(self, sentences: list[np.ndarray], labels: np.ndarray, config: RunConfig, share_rows: bool = True,
                 word_size: int = 0, counts: np.ndarray | None = None):
        self.sentences, self.labels, self.config, self.share_rows = sentences, labels, config, share_rows
        self.method, self.matrix = config.row, (config.max_length, word_size)
        self.lengths = np.array([len(sentence) for sentence in sentences])
        self.counts = np.ones(len(labels), int) if counts is None else counts
        self.owner = np.repeat(np.arange(len(labels)), self.counts)  # whose version each is
        self.size = min(config.batch_size, len(labels))
        self.per_epoch, self.halves = len(labels) // self.size, ()

    def __call__(self, step: int) -> np.ndarray:
        """Positions ``[N]`` of the step's sentences: epochs of a fresh order each, the short rest left out.

        Where the sentences are parted into ``halves``, as many of each as the batch holds, each half with its epochs.
        """
        if self.halves:
            sizes = (self.size // 2, self.size - self.size // 2)
            return np.concatenate([self._part(half, step, size, name)
                                   for name, half, size in zip(("low", "high"), self.halves, sizes, strict=True)])
        epoch, turn = divmod(step, self.per_epoch)
        if getattr(self, "epoch", None) != epoch:
            rng = np.random.default_rng(stream("batches", self.config.seed, epoch))
            self.epoch, self.order = epoch, rng.permutation(len(self.labels))
        return self.order[turn * self.size:(turn + 1) * self.size]

    def _part(self, half: np.ndarray, step: int, size: int, name: str) -> np.ndarray:
        """The ``size`` of a half that step takes, as from a row of its permutations one behind the other."""
        places = np.arange(step * size, (step + 1) * size)
        orders = {epoch: np.random.default_rng(stream("batches", self.config.seed, name, epoch)).permutation(half)
                  for epoch in np.unique(places // len(half)).tolist()}
        return np.array([orders[place // len(half)][place % len(half)] for place in places.tolist()])

    def versions(self, step: int) -> np.ndarray:
        """Positions ``[N]`` among all versions of those that the step takes, each drawn uniformly."""
        index, counts = self(step), self.counts
        if len(self.sentences) == len(self.labels):
            return index
        share = np.random.default_rng(stream("augment", self.config.seed, step)).random(self.size)
        return np.cumsum(counts)[index] - counts[index] + (share * counts[index]).astype(int)

    def inputs(self, steps: Iterable[int], shape: tuple[int, int] = (0, 0)) -> Inputs:
        """The inputs of W steps, stacked, all in rows of one shape (at least ``shape``, if given)."""
        key, index = self.config.seed, np.stack([self.versions(step) for step in steps])
        draws = [draw(self.method, self.size, self.config.alpha, self.matrix, (key, step)) for step in steps]
        labels = torch.from_numpy(self.labels[self.owner[index]])
        stacked = tree_map(lambda *tensors: torch.stack(tensors), *draws)
        if self.config.frozen:
            return Inputs(torch.from_numpy(index), (), labels, stacked)
        partners = np.take_along_axis(index, np.stack([one.permutation.numpy() for one in draws]), axis=1)
        own, longer = self.lengths[index], np.maximum(self.lengths[index], self.lengths[partners])
        lay_out = partial(pack_alike, capacity=self.config.max_length, share_rows=self.share_rows, shape=shape)
        layout = lay_out(longer if self.method.mixes_words else own)
        ids = [layout.place([self.sentences[i] for i in one.flat])
               for one in ([index, partners] if self.method.mixes_words else [index])]
        return Inputs(ids[0] if len(ids) == 1 else torch.stack(ids, 1), layout, labels, stacked,
                      lay_out(longer) if self.method.level == "layer" else ())


class Encoded:
    """Sentences laid out for evaluation once: sorted by length, `EVALUATION_TOKENS` at a time."""

    def __init__(self, sentences: list[np.ndarray], share_rows: bool, capacity: int, device):
        self.lengths = lengths = np.array([len(sentence) for sentence in sentences])
        order = np.argsort(lengths, kind="stable")
        parts = np.cumsum(lengths[order]) // EVALUATION_TOKENS
        self.parts = []
        for part in np.unique(parts):
            index = order[parts == part]
            layout = pack(lengths[index], capacity, share_rows)
            ids = layout.place([sentences[i] for i in index])
            self.parts.append((index, ids.to(device), layout.to(device)))
        self.count = len(sentences)

    @torch.no_grad()
    def hidden(self, encoder: nn.Module, encode: Callable[[Tensor, Layout], Tensor] | None = None) -> Tensor:
        """Hidden states ``[n, d]`` in the sentences' own order, without dropout.

        ``encode``, where given, does the encoder's work and may stack runs in front of its states.
        """
        encoder.eval()
        encode, hidden = encode or (lambda ids, layout: encoder(encoder.words(ids), layout)), None
        for index, ids, layout in self.parts:
            states = encode(ids, layout)
            if hidden is None:
                hidden = states.new_empty(*states.shape[:-2], self.count, states.shape[-1])
            hidden[..., torch.from_numpy(index).to(states.device), :] = states
        return hidden
