"""Who is mixed with whom (section 3.2, Algorithm 1). Pure functions; leading dimensions welcome.

Every function returns partners ``[..., N, P]``: for each sentence of the batch, the positions of its P partners, never
its own (but for a random permutation, as published). Labels play no role and no gradient flows. Taught in notebook 02.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from dnm.related import pairs


def partners_each(n: int, k: int) -> int:
    """K that a batch of ``n`` allows: k, or max(1, (n - 1) // 2) where fewer than 2k others exist."""
    if n < 2:
        raise ValueError("a batch of one sentence has no partner to mix with")
    return k if 2 * k <= n - 1 else max(1, (n - 1) // 2)


def similarities(hidden: Tensor) -> Tensor:
    """Cosine similarity ``[..., N, N]`` of hidden states ``[..., N, d]``, without gradient."""
    unit = F.normalize(hidden.detach().float(), dim=-1)
    return unit @ unit.transpose(-1, -2)


def nearest(hidden: Tensor, k: int) -> Tensor:
    """The k most similar other sentences, most similar first: ``[..., N, k]``."""
    return _highest(_finite(similarities(hidden)), k)


def farthest(hidden: Tensor, k: int) -> Tensor:
    """The k least similar other sentences, least similar first: ``[..., N, k]``."""
    return _highest(-_finite(similarities(hidden)), k)


def random_others(scores: Tensor, k: int) -> Tensor:
    """k different random others, given random ``scores`` ``[..., N, N]``: ``[..., N, k]``."""
    return _highest(_finite(scores), k)


def _finite(scores: Tensor) -> Tensor:
    if not scores.isfinite().all():  # NaN would come first
        raise ValueError("no partners to choose: hidden states or scores hold NaN or infinity")
    return scores


def _highest(scores: Tensor, k: int) -> Tensor:
    n = scores.shape[-1]
    if not 0 < k < n:
        raise ValueError(f"cannot choose {k} partners among {n - 1} others")
    oneself = torch.eye(n, dtype=torch.bool, device=scores.device)
    return scores.masked_fill(oneself, float("-inf")).sort(dim=-1, descending=True, stable=True).indices[..., :k]


# The table's word for partners, from hidden states ``[..., N, d]``, a step's `dnm.heads.Draws` and K. Unchecked, as
# vmap and CUDA graphs look at no value: where one is not finite, the loss is not, either, which ends the run.
PARTNERS = {
    "permutation": lambda hidden, draws, k: draws.permutation.unsqueeze(-1),
    "one": lambda hidden, draws, k: _highest(draws.scores, 1),
    "random": lambda hidden, draws, k: _highest(draws.scores, min(2 * k, hidden.shape[-2] - 1)),
    "nearest": lambda hidden, draws, k: _highest(similarities(hidden), k),
    "farthest": lambda hidden, draws, k: _highest(-similarities(hidden), k),
    "beyond": lambda hidden, draws, k: pairs.beyond(draws.memory["distances"], draws.scores),
    "saliency": lambda hidden, draws, k: pairs.opposite(
        draws.memory["saliency"], draws.memory["current"], draws.memory["high"]),
    "both": lambda *about: torch.cat([PARTNERS[way](*about) for way in ("nearest", "farthest")], -1),
}
