"""Which sentences a step sees, and how held-out sentences are laid out once for every evaluation."""

import numpy as np
import torch
from torch import Tensor, nn

from dnm.config import RunConfig
from dnm.data import Dataset, Split, stratified_order
from dnm.heads import stream
from dnm.packing import pack

EVALUATION_TOKENS = 4096  # word pieces encoded at once when nothing is trained


class Batches:
    """The training sentences as word pieces, and which of them make up the batch of a step."""

    def __init__(self, sentences: list[np.ndarray], labels: np.ndarray, config: RunConfig):
        self.sentences, self.labels, self.seed = sentences, labels, config.seed
        self.lengths = np.array([len(sentence) for sentence in sentences])
        self.size = min(config.batch_size, len(sentences))
        self.per_epoch = len(sentences) // self.size

    def __call__(self, step: int) -> np.ndarray:
        """Positions ``[N]`` of the step's sentences: epochs of a fresh order each, the short rest left out."""
        epoch, turn = divmod(step, self.per_epoch)
        if getattr(self, "epoch", None) != epoch:
            order = np.random.default_rng(stream("batches", self.seed, epoch))
            self.epoch, self.order = epoch, order.permutation(len(self.sentences))
        return self.order[turn * self.size:(turn + 1) * self.size]


class Encoded:
    """Sentences laid out for evaluation once: sorted by length, `EVALUATION_TOKENS` at a time."""

    def __init__(self, sentences: list[np.ndarray], share_rows: bool, capacity: int, device):
        lengths = np.array([len(sentence) for sentence in sentences])
        order = np.argsort(lengths, kind="stable")
        parts = np.cumsum(lengths[order]) // EVALUATION_TOKENS
        self.parts = []
        for part in range(parts[-1] + 1 if len(parts) else 0):
            index = order[parts == part]
            if len(index):
                layout = pack(lengths[index], capacity, share_rows)
                ids = layout.place([sentences[i] for i in index])
                self.parts.append((index, ids.to(device), layout.to(device)))
        self.count = len(sentences)

    @torch.no_grad()
    def hidden(self, encoder: nn.Module) -> Tensor:
        """Hidden states ``[n, d]`` in the sentences' own order, without dropout."""
        encoder.eval()
        hidden = None
        for index, ids, layout in self.parts:
            states = encoder(encoder.words(ids), layout)
            hidden = states.new_empty(self.count, states.shape[-1]) if hidden is None else hidden
            hidden[torch.from_numpy(index).to(states.device)] = states
        return hidden


def limited(data: Dataset, split: str, limit: int) -> Split:
    """A split, or its first ``limit`` sentences in an order that keeps the classes in proportion."""
    whole = getattr(data, split)
    if not limit or limit >= len(whole):
        return whole
    return whole.take(stratified_order(whole.texts, whole.labels, f"{data.name} {split} limit")[:limit])
