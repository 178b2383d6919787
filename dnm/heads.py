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
from dnm.related import pairs


def stream(*key) -> int:
    """A seed that depends on all parts of ``key`` and nothing else."""
    return int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:7], "big")


class Draws(NamedTuple):
    """The random numbers of one step: made outside the mixing functions, handed in.

    ``weight``: lambda, or a matrix ``[L, e]``, ~ Beta(alpha, alpha), or weights ``[S, N]`` of S mixtures of the batch;
    ``permutation`` ``[N]``; ``scores`` ``[N, N]`` for random partners; ``layer``, uniform in [0, 1). ``memory`` is no
    random number, but what is remembered of the batch's sentences (`dnm.related.memory`).
    """

    weight: Tensor
    permutation: Tensor
    scores: Tensor
    layer: Tensor = torch.zeros(())
    memory: dict[str, Tensor] = {}


def draw(method: Method, n: int, alpha: float, matrix: tuple[int, int], key: tuple) -> Draws:
    """The draws of one step; methods with the same ``key`` and alpha share lambda, permutation and scores."""
    rng = np.random.default_rng(stream("draws", *key))
    weight, permutation, scores = rng.beta(alpha, alpha), rng.permutation(n), rng.random((n, n))
    if method.inputs == "matrix":
        weight = rng.beta(alpha, alpha, matrix)
    elif method.partners == "batch":
        weight = pairs.BATCH_WEIGHTS[method.inputs](rng, n, alpha)
    return Draws(torch.as_tensor(weight, dtype=torch.float32), torch.from_numpy(permutation),
                 torch.from_numpy(scores).float(), torch.tensor(rng.random(), dtype=torch.float32))


# What a word of the table has to learn: a parameter's name and its first value.
_POLICIES = {
    "vector": ("input_policy", lambda d: nn.Parameter(torch.randn(2, d))),
    "policy": ("label_policy", lambda d: nn.Parameter(nn.Linear(d, d, bias=False).weight.detach().clone())),
    "encoding": ("encoding_policy", lambda d: nn.Linear(d, d)),
}


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
        self.by_role = False  # at rate 0, where fc is most of the work: another order of sums, a fraction of them
        self.register_buffer("class_weight", None, persistent=False)  # ``[c]``, where classes count differently
        d, trained = hidden_size, {}
        layers = {"fc": lambda: nn.Linear(d, d if method.embeds_labels else classes)}
        if method.embeds_labels:
            layers["label_embedding"] = lambda: nn.Parameter(torch.randn(classes, d))
        for word, train in ((method.inputs, method.train_input_policy), (method.labels, method.train_label_policy)):
            if word in _POLICIES:
                name, first = _POLICIES[word]
                layers[name], trained[name] = lambda first=first: first(d), train
        for name, make in layers.items():  # a stream each: methods of one seed start from the same values
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(stream("initial", seed, name))
                setattr(self, name, make().requires_grad_(trained.get(name, True)))

    def policy(self, word: str) -> nn.Parameter | nn.Module | None:
        """What is learned for one of the row's words, or None."""
        return getattr(self, _POLICIES[word][0]) if word in _POLICIES else None

    def scores(self, hidden: Tensor) -> Tensor:
        """Class scores ``[..., N, c]``: logits, or cosines of ``fc(h)`` to the label embeddings."""
        if not self.method.embeds_labels:
            return self.fc(hidden)
        return F.normalize(self.fc(hidden), dim=-1) @ F.normalize(self.label_embedding, dim=-1).transpose(-1, -2)

    def plain_loss(self, hidden: Tensor, labels: Tensor) -> Tensor:
        """The method's loss on unmixed sentences, for evaluation and for ``original_weight``."""
        if not self.method.embeds_labels:
            return F.cross_entropy(self.fc(hidden), labels, self.class_weight)
        target = F.embedding(labels, self.label_embedding)
        counts = None if self.class_weight is None else self.class_weight[labels].unsqueeze(-1)
        return mixing.cosine_loss(self.fc(hidden).unsqueeze(-2), target.unsqueeze(-2), counts)

    def partners(self, hidden: Tensor, draws: Draws) -> Tensor:
        """Partners ``[N, P]`` of each sentence, as the method chooses them."""
        k = selection.partners_each(hidden.shape[-2], self.k) if self.method.selects else self.k
        return selection.PARTNERS[self.method.partners](hidden, draws, k)

    def input_weight(self, draws: Draws | None = None, partners: Tensor | None = None) -> Tensor | float:
        """The mixing weight of the first of a pair: drawn, or the learned one ``[d]`` after its softmax (Eq. 2)."""
        return mixing.WEIGHTS[self.method.inputs](draws, partners, self.policy(self.method.inputs))

    def label_weight(self, hidden: Tensor, partners: Tensor, weight: Tensor | None) -> Tensor:
        """The mixing weight of the first of a pair's labels: a number, or ``[N, P, d]`` (Eq. 3)."""
        labels = self.method.labels
        return mixing.LABEL_WEIGHTS[labels](hidden, partners, weight, self.policy(labels))

    def by_roles(self, hidden: Tensor, partners: Tensor, weight: Tensor | float) -> Tensor:
        """``fc(h_ij)`` ``[N, P, ...]`` of every pair (Eqs. 2, 4): fc is linear, so N rows for each role, not N P."""
        first, second = F.linear(torch.cat([weight * hidden, (1 - weight) * hidden], -2), self.fc.weight).chunk(2, -2)
        return (first + self.fc.bias).unsqueeze(-2) + mixing.gather_rows(second, partners)

    def loss(self, hidden: Tensor, labels: Tensor, draws: Draws | None, unmixed: Tensor | None = None) -> Tensor:
        """The training loss of a batch: hidden states ``[N, d]``, class numbers ``[N]``; without draws nothing mixes.

        Where the encoder has seen mixtures, ``hidden`` is theirs, and ``unmixed`` the sentences' own, if at hand.
        """
        method = self.method
        if not method.mixes or draws is None:
            return self.plain_loss(hidden, labels)
        if method.partners == "batch":
            targets = draws.weight @ F.one_hot(labels, self.fc.out_features).to(hidden.dtype)
            return pairs.soft_cross_entropy(self.fc(draws.weight @ hidden), targets, self.class_weight)
        if "saliency" in draws.memory:
            draws = draws._replace(memory=draws.memory | {"current": pairs.saliency(self.fc, hidden, labels)})
        partners = self.partners(hidden, draws)
        weight, mixed = self.input_weight(draws, partners), None
        if method.sees_mixed:
            mixed = hidden.unsqueeze(-2)
        elif not self.by_role or torch.as_tensor(weight).dim() > 1:
            mixed = mixing.mix_inputs(hidden, partners, weight)
        if method.embeds_labels:  # an embedding, as plain indexing adds up gradients in any order
            embedded = F.embedding(labels, self.label_embedding)
            first, second = embedded.unsqueeze(-2), mixing.gather_rows(embedded, partners)
        else:
            first, second = labels.unsqueeze(-1), labels[partners]
        if (counts := self.class_weight) is not None:
            counts = counts[labels].unsqueeze(-1), counts[labels[partners]]
        label_weight = self.label_weight(hidden, partners, weight)
        predicted = self.by_roles(hidden, partners, weight) if mixed is None else self.fc(mixed)
        loss = mixing.LOSSES[method.loss](predicted, first, second, label_weight, counts)
        if self.original_weight:  # only where the unmixed sentences are at hand
            loss = loss + self.original_weight * self.plain_loss(hidden if unmixed is None else unmixed, labels)
        return loss

    forward = loss  # what `torch.func.functional_call` calls

    @torch.no_grad()
    def diagnostics(self, hidden: Tensor) -> dict[str, Tensor]:
        """Label-embedding cosine and the spread (standard deviation) of each policy's weights.

        ``hidden`` ``[N, d]`` are a few unmixed sentences; every ordered pair of two of them counts.
        """
        method, found, weight = self.method, {}, 0.5  # of drawn weights, their mean
        if method.embeds_labels:
            found["label_cosine"] = mixing.label_cosines(self.label_embedding)
        if self.policy(method.inputs) is not None:
            weight = self.input_weight()
            found["input_policy_spread"] = weight.std()
        if self.policy(method.labels) is not None and hidden.shape[-2] > 1:
            everyone = selection.PARTNERS["nearest"](hidden, None, hidden.shape[-2] - 1)
            found["label_policy_spread"] = self.label_weight(hidden, everyone, weight).std()
        return found
