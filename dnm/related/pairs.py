"""What the related systems add to selection and mixing. Pure functions; leading dimensions welcome.

N sentences, P partners of each, c classes, S mixtures of a batch. What differs from their authors' code is said at
their rows in `dnm.methods`. Taught in notebook 01.
"""

import numpy as np
from scipy.special import softmax
from torch import Tensor, nn, stack
from torch.nn import functional as F

MIXTURES = 400  # that BatchMixup makes of a batch, as its authors do
# Their weights ``[S, N]``, from a generator, N and alpha.
BATCH_WEIGHTS = {
    "simplex": lambda rng, n, alpha: softmax(rng.random((MIXTURES, n)), axis=-1),
    "dirichlet": lambda rng, n, alpha: rng.dirichlet(np.full(n, alpha), MIXTURES),
}


def soft_cross_entropy(scores: Tensor, targets: Tensor, class_weight: Tensor | None = None) -> Tensor:
    """Mean cross-entropy of scores ``[..., S, c]`` to class probabilities ``[..., S, c]`` (BatchMixup)."""
    counts = targets if class_weight is None else targets * class_weight
    return -(counts * scores.log_softmax(-1)).sum((-2, -1)) / counts.sum((-2, -1))


def beyond(distances: Tensor, scores: Tensor, share: float = 0.7) -> Tensor:
    """A random one, by ``scores`` ``[..., N, N]``, of those farther than ``share`` of the farthest: ``[..., N, 1]``.

    DMix (Sawhney et al. 2022); ``distances`` ``[..., N, N]``, 0 to oneself. Where all are alike, any other.
    """
    near = distances <= share * distances.amax(-1, keepdim=True)
    oneself = distances.new_ones(distances.shape[-2:]).tril().triu().bool()
    return scores.masked_fill(near, -1.0).masked_fill(oneself, -2.0).argmax(-1, keepdim=True)


def distance_weight(distances: Tensor, partners: Tensor, factor: Tensor) -> Tensor:
    """DMix's weight of a pair, ``[..., N, P, 1]``: its distance, relative to the farthest, times ``factor`` [..., N].

    Theirs may leave [0, 1]; ours is clamped to it.
    """
    relative = distances.gather(-1, partners) / distances.amax(-1, keepdim=True).clamp_min(1e-12)
    return (factor.unsqueeze(-1) * relative).clamp(0, 1).unsqueeze(-1)


def opposite(saliency: Tensor, current: Tensor, high: Tensor) -> Tensor:
    """The most and the least alike of the other half, ``[..., N, 2]`` (Park and Caragea 2022).

    ``saliency`` ``[..., N, m]`` are the stored ones, ``current`` those of this step, ``high`` ``[..., N]`` the halves.
    """
    alike = F.normalize(saliency, dim=-1) @ F.normalize(current, dim=-1).transpose(-1, -2)
    same = high.unsqueeze(-1) == high.unsqueeze(-2)
    return stack([found.masked_fill(same, -2.0).argmax(-1) for found in (alike, -alike)], dim=-1)


def saliency(fc: nn.Linear, hidden: Tensor, labels: Tensor) -> Tensor:
    """``|∂CE/∂scores|`` ``[N, c]`` of sentences with hidden states ``[N, d]`` (Park and Caragea 2022), no gradient.

    Of two classes both scores have the same derivative up to its sign, so that all sentences would be alike: then it
    is ``h ∘ ∂CE/∂h`` ``[N, d]``.
    """
    slope = fc(hidden).softmax(-1) - F.one_hot(labels, fc.out_features)
    return (slope.abs() if fc.out_features > 2 else hidden * (slope @ fc.weight)).detach()


def margins(scores: Tensor, labels: Tensor) -> Tensor:
    """The score of each sentence's class minus the highest other, ``[N]``, from scores ``[N, c]`` (Pleiss et al.)."""
    own = scores.gather(-1, labels.unsqueeze(-1)).squeeze(-1)
    return own - scores.scatter(-1, labels.unsqueeze(-1), float("-inf")).amax(-1)
