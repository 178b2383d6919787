"""How inputs and labels are mixed, and the losses (section 3, Eqs. 1 to 6). Pure functions.

N sentences, P partners of each, d hidden size, c classes; every function takes leading dimensions, and
random draws are made by the caller. Taught in notebooks 01 and 03.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from dnm.related import pairs


def mix(first: Tensor, second: Tensor, weight: Tensor | float) -> Tensor:
    """``weight * first + (1 - weight) * second`` (Eq. 1).

    The weight's shape is what tells the methods apart: a scalar reaches a segment, a vector ``[d]`` a box
    (Eq. 2), a matrix ``[L, d]`` a cloud.
    """
    return weight * first + (1 - weight) * second


def pair_softmax(first: Tensor, second: Tensor) -> Tensor:
    """The first weight of a softmax over the pair, dimension by dimension; the second is one minus it."""
    return torch.sigmoid(first - second)


def gather_rows(rows: Tensor, index: Tensor) -> Tensor:
    """``rows`` ``[..., N, d]`` at ``index`` ``[..., N, P]``: ``[..., N, P, d]``."""
    if rows.dim() > 2:  # batches of rows become one long table
        start = rows.shape[-2] * torch.arange(rows[..., 0, 0].numel(), device=rows.device)
        index = index + start.view(*rows.shape[:-2], 1, 1)
    return F.embedding(index, rows.flatten(0, -2))  # whole rows at once, and a deterministic gradient


def mix_inputs(hidden: Tensor, partners: Tensor, weight: Tensor | float) -> Tensor:
    """``h_ij`` ``[..., N, P, d]`` from hidden states ``[..., N, d]`` and partners ``[..., N, P]`` (Eq. 2)."""
    return mix(hidden.unsqueeze(-2), gather_rows(hidden, partners), weight)


def label_policy(hidden: Tensor, partners: Tensor, input_weight: Tensor, policy: Tensor) -> Tensor:
    """The label mixing weight ``Phi_i`` after its softmax over the pair, ``[..., N, P, d]`` (Eq. 3).

    ``input_weight`` ``[..., 1, d]`` or ``[d]`` is the input policy of the first role, ``policy``
    ``[..., d, d]`` the matrix W. Phi is computed once a sentence and role, N rows each, then gathered.
    """
    first = (input_weight * hidden) @ policy
    second = ((1 - input_weight) * hidden) @ policy
    return pair_softmax(first.unsqueeze(-2), gather_rows(second, partners))


def average(losses: Tensor, counts: Tensor | None = None) -> Tensor:
    """Mean of the losses of pairs ``[..., N, P]``; ``counts`` ``[..., N, 1 or P]`` say how much each of them counts."""
    if counts is None:
        return losses.mean((-2, -1))
    counts = counts.expand_as(losses)
    return (losses * counts).sum((-2, -1)) / counts.sum((-2, -1))


def cosine_loss(predicted: Tensor, target: Tensor, counts: Tensor | None = None) -> Tensor:
    """`average` over the pairs of ``(1 - cos(predicted, target))²``, vectors ``[..., N, P, d]`` (Eqs. 5, 6)."""
    return average((1 - F.cosine_similarity(predicted, target, dim=-1)) ** 2, counts)


def mixed_cosine_loss(predicted: Tensor, first: Tensor, second: Tensor, weight: Tensor | float,
                      counts: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """`cosine_loss` of predicted vectors ``[..., N, P, d]`` to mixed label embeddings (Eqs. 3, 5, 6).

    ``first`` ``[..., N, 1, d]`` and ``second`` ``[..., N, P, d]`` are the embeddings of a pair's labels; ``counts``,
    ``[..., N, 1]`` and ``[..., N, P]``, what its two classes count: the pair counts as they do in the mean.
    """
    return cosine_loss(predicted, mix(first, second, weight), counts and (counts[0] + counts[1]) / 2)


def mixed_cross_entropy(scores: Tensor, first: Tensor, second: Tensor, weight: Tensor | float,
                        counts: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """``weight CE(first) + (1 - weight) CE(second)``, mean over the pairs (Guo et al. 2019).

    ``scores`` ``[..., N, P, c]``; ``first`` ``[..., N, 1]`` and ``second`` ``[..., N, P]`` are class numbers;
    ``weight`` is one for all, or ``[..., N, P]``.
    """
    log_p, each = scores.log_softmax(-1), isinstance(weight, Tensor) and weight.dim() > 0
    costs = [-log_p.gather(-1, label.expand(scores.shape[:-1]).unsqueeze(-1)).squeeze(-1) for label in (first, second)]
    if not each:
        return mix(*map(average, costs, counts or (None, None)), weight)
    counts = counts or (torch.ones_like(costs[0]),) * 2
    counted = mix(*(cost * count for cost, count in zip(costs, counts, strict=True)), weight)
    return counted.sum((-2, -1)) / mix(*counts, weight).sum((-2, -1))


def label_cosines(embeddings: Tensor) -> Tensor:
    """Mean off-diagonal cosine of label embeddings ``[..., c, d]``; near 1 the cosine loss is blind."""
    unit = F.normalize(embeddings, dim=-1)
    cosines, c = unit @ unit.transpose(-1, -2), embeddings.shape[-2]
    return (cosines.sum((-1, -2)) - cosines.diagonal(dim1=-2, dim2=-1).sum(-1)) / (c * (c - 1))


# The table's words. A mixing weight of the inputs, from a step's draws, partners and the learned policy ``[2, d]``; a
# mixing weight of the labels, from hidden states, partners, the inputs' weight and the learned policy; a loss of pairs.
WEIGHTS = {
    "half": lambda draws, partners, policy: 0.5,
    "vector": lambda draws, partners, policy: pair_softmax(policy[0], policy[1]),
    "distance": lambda draws, partners, policy: pairs.distance_weight(
        draws.memory["distances"], partners, draws.memory["factor"]),
} | dict.fromkeys(("scalar", "matrix", "simplex", "dirichlet", "span"), lambda draws, partners, policy: draws.weight)
LABEL_WEIGHTS = {
    "scalar": lambda hidden, partners, weight, policy: weight,
    "pair": lambda hidden, partners, weight, policy: weight.squeeze(-1),
    "policy": label_policy,
    "encoding": lambda hidden, partners, weight, policy: torch.sigmoid(policy(hidden)).unsqueeze(-2),
}
LOSSES = {"cross-entropy": mixed_cross_entropy, "cosine": mixed_cosine_loss}
