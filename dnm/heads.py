"""From hidden states to a loss and to class scores: the trained part that a method adds to the encoder.

One `Head` serves every row of `dnm.methods`; it holds only the parameters its row needs. Taught in
notebook 03.
"""

import hashlib
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dnm import mixing, selection
from dnm.methods import Method


def stream(*key) -> int:
    """A seed that depends on all parts of ``key`` and nothing else."""
    return int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:7], "big")


class Draws(NamedTuple):
    """The random numbers of one step: made outside the mixing functions, handed in.

    ``weight``: lambda, or a matrix ``[L, e]``, ~ Beta(alpha, alpha); ``permutation`` ``[N]``; ``scores``
    ``[N, N]`` for random partners.
    """

    weight: Tensor
    permutation: Tensor
    scores: Tensor

    def to(self, device) -> "Draws":
        return Draws(*(tensor.to(device, non_blocking=True) for tensor in self))


def draw(method: Method, n: int, alpha: float, matrix: tuple[int, int], key: tuple) -> Draws:
    """The draws of one step; methods with the same ``key`` share lambda, permutation and scores."""
    rng = np.random.default_rng(stream("draws", *key))
    weight, permutation, scores = rng.beta(alpha, alpha), rng.permutation(n), rng.random((n, n))
    if method.inputs == "matrix":
        weight = rng.beta(alpha, alpha, matrix)
    return Draws(torch.as_tensor(weight, dtype=torch.float32), torch.from_numpy(permutation),
                 torch.from_numpy(scores).float())


class Head(nn.Module):
    """Classifier, label embeddings and mixing policies of one method.

    Parameters, where the row needs them: ``fc`` to the classes, or from d to d (Eq. 4); ``label_embedding``
    M ``[c, d]``; ``input_policy`` v ``[2, d]`` (Eq. 2); ``label_policy`` W ``[d, d]`` (Eq. 3);
    ``encoding_policy``, the linear layer of NonlinearMixup's label weights.
    """

    def __init__(self, method: Method, hidden_size: int, classes: int, k: int, original_weight: float = 0.0,
                 seed: int = 0):
        super().__init__()
        self.method, self.k, self.original_weight = method, k, original_weight
        d, embedded = hidden_size, method.loss == "cosine"
        layers = {"fc": lambda: nn.Linear(d, d if embedded else classes)}
        if embedded:
            layers["label_embedding"] = lambda: nn.Parameter(torch.randn(classes, d))
        if method.inputs == "vector":
            layers["input_policy"] = lambda: nn.Parameter(torch.randn(2, d))
        if method.labels == "policy":
            layers["label_policy"] = lambda: nn.Parameter(nn.Linear(d, d, bias=False).weight.detach().clone())
        if method.labels == "encoding":
            layers["encoding_policy"] = lambda: nn.Linear(d, d)
        for name, make in layers.items():  # a stream each: methods of one seed start from the same values
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(stream("initial", seed, name))
                setattr(self, name, make())
        if method.inputs == "vector":
            self.input_policy.requires_grad_(method.train_input_policy)
        if method.labels == "policy":
            self.label_policy.requires_grad_(method.train_label_policy)

    # ------------------------------------------------------------ prediction: never mixes

    def scores(self, hidden: Tensor) -> Tensor:
        """Class scores ``[..., N, c]``: logits, or cosines of ``fc(h)`` to the label embeddings."""
        if self.method.loss == "cross-entropy":
            return self.fc(hidden)
        return F.normalize(self.fc(hidden), dim=-1) @ F.normalize(self.label_embedding, dim=-1).transpose(-1, -2)

    def plain_loss(self, hidden: Tensor, labels: Tensor) -> Tensor:
        """The method's loss on unmixed sentences, for evaluation and for ``original_weight``."""
        if self.method.loss == "cross-entropy":
            return F.cross_entropy(self.fc(hidden), labels)
        target = F.embedding(labels, self.label_embedding)
        return mixing.cosine_loss(self.fc(hidden).unsqueeze(-2), target.unsqueeze(-2))

    # ------------------------------------------------------------ training

    def partners(self, hidden: Tensor, draws: Draws) -> Tensor:
        """Partners ``[N, P]`` of each sentence, as the method chooses them."""
        n, kind = hidden.shape[-2], self.method.partners
        if kind == "permutation":
            return draws.permutation.unsqueeze(-1)
        if kind == "one":
            return selection.random_others(draws.scores, 1)
        k = selection.partners_each(n, self.k)
        if kind == "nearest":
            return selection.nearest(hidden, k)
        if kind == "farthest":
            return selection.farthest(hidden, k)
        if kind == "both":
            return torch.cat([selection.nearest(hidden, k), selection.farthest(hidden, k)], dim=-1)
        return selection.random_others(draws.scores, min(2 * k, n - 1))

    def loss(self, hidden: Tensor, labels: Tensor, draws: Draws) -> Tensor:
        """The training loss of a batch: hidden states ``[N, d]``, class numbers ``[N]``.

        For word-level methods ``hidden`` already encodes the mixed sentences.
        """
        method = self.method
        if method.level == "none":
            return self.plain_loss(hidden, labels)
        partners = self.partners(hidden, draws)
        if method.loss == "cosine":
            predicted, label_weight = self._mixed_sentences(hidden, partners, draws)
            embedded = F.embedding(labels, self.label_embedding)  # plain indexing adds up gradients in any order
            target = mixing.mix(embedded.unsqueeze(-2), mixing.gather_rows(embedded, partners), label_weight)
            loss = mixing.cosine_loss(predicted, target)
        else:
            mixed = hidden
            if method.level == "sentence":
                mixed = mixing.mix_inputs(hidden, partners, draws.weight).squeeze(-2)
            loss = mixing.mixed_cross_entropy(self.fc(mixed), labels, labels[draws.permutation], draws.weight)
        if self.original_weight:  # only sentence-level methods have the unmixed sentences at hand
            loss = loss + self.original_weight * self.plain_loss(hidden, labels)
        return loss

    forward = loss  # what `torch.func.functional_call` calls

    def _mixed_sentences(self, hidden: Tensor, partners: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """Predicted vectors ``[N, P, d]`` (Eq. 4) and the label mixing weight of each pair."""
        if self.method.level == "word":
            return self.fc(hidden).unsqueeze(-2), torch.sigmoid(self.encoding_policy(hidden)).unsqueeze(-2)
        weight = self.input_weight() if self.method.inputs == "vector" else draws.weight
        mixed = mixing.mix_inputs(hidden, partners, weight)
        if self.method.labels == "policy":
            label_weight = mixing.label_policy(hidden, partners, weight, self.label_policy)
        else:
            label_weight = draws.weight
        return self.fc(mixed), label_weight

    def input_weight(self) -> Tensor:
        """The input policy of the first role after its softmax over the pair, ``[d]`` (Eq. 2)."""
        return mixing.pair_softmax(self.input_policy[0], self.input_policy[1])

    @torch.no_grad()
    def diagnostics(self, hidden: Tensor) -> dict[str, float]:
        """Label-embedding cosine and the spread (standard deviation) of each policy's weights.

        ``hidden`` ``[N, d]`` are a few unmixed sentences; every ordered pair of two of them counts.
        """
        found, n = {}, hidden.shape[-2]
        if self.method.loss == "cosine":
            found["label_cosine"] = mixing.label_cosines(self.label_embedding).item()
        if self.method.inputs == "vector":
            found["input_policy_spread"] = self.input_weight().std().item()
        if self.method.labels == "policy" and n > 1:
            everyone = selection.nearest(hidden, n - 1)
            weight = mixing.label_policy(hidden, everyone, self.input_weight(), self.label_policy)
            found["label_policy_spread"] = weight.std().item()
        if self.method.labels == "encoding":
            found["label_policy_spread"] = torch.sigmoid(self.encoding_policy(hidden)).std().item()
        return found
