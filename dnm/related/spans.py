"""SSMix's door: the least salient span of a sentence is replaced by the most salient one of its partner.

Yoon et al. (2021). N sentences of at most L word pieces, the special ones at both ends left alone; the lengths of a
batch differ, so all is padded to the longest. Taught in notebook 01.
"""

import torch
from torch import Tensor, nn

from dnm.batches import Inputs
from dnm.packing import NOTHING, Layout

SHARE = 0.1  # of a sentence's own word pieces, as published


def probed(model: nn.Module, inputs: Inputs) -> tuple[Inputs, Tensor]:
    """The inputs of a step with spans replaced, and the unmixed sentences' hidden states ``[N, d]``.

    A probe comes first: the gradient of the plain loss says which word pieces matter.
    """
    layout, partners = inputs.layout, inputs.draws.permutation
    embeddings = model.encoder.words(inputs.ids)
    unmixed = model.encoder(embeddings, layout)
    gradient, = torch.autograd.grad(model.head.plain_loss(unmixed, inputs.labels), embeddings, retain_graph=True)
    found = spans(saliency(gradient, layout), layout.lengths, partners)
    kept = 1 - found[-1] / (layout.lengths - 2).clamp_min(1)  # the weight of a sentence's own class
    draws = inputs.draws._replace(weight=kept.view(-1, 1, 1))
    return inputs._replace(ids=replaced(inputs.ids, layout, partners, found), draws=draws), unmixed


def saliency(gradient: Tensor, layout: Layout) -> Tensor:
    """Of every word piece, ``[N, L]``: the root of the mean square of its embedding's ``gradient`` ``[R, T, e]``."""
    place = torch.arange(layout.owner.shape[-1], device=gradient.device)  # L is a row's length: no sentence is longer
    inside = place < layout.lengths.unsqueeze(-1)
    return gradient.flatten(0, 1).square().mean(-1).sqrt()[(layout.first.unsqueeze(-1) + place) * inside] * inside


def spans(salient: Tensor, lengths: Tensor, partners: Tensor, share: float = SHARE) -> tuple[Tensor, Tensor, Tensor]:
    """Where the least salient span of each sentence begins, where its partner's most salient one, and their width.

    Three of ``[N]``. The width is ``share`` of a sentence's word pieces, one at least; 0, and nothing is replaced,
    where the partner has no span of that width between its special pieces.
    """
    own = lengths - 2
    width = (share * own + 1e-6).long().clamp_min(1) * (own > 0)
    width = width * (lengths[partners] >= width + 2)
    sums = torch.cat([salient.new_zeros(len(salient), 1), salient.double().cumsum(-1)], dim=-1)
    begin = torch.arange(salient.shape[1], device=salient.device).expand(salient.shape)
    end = (begin + width.unsqueeze(-1)).clamp_max(salient.shape[1])

    def best(rows: Tensor, lengths: Tensor, sign: float) -> Tensor:
        total = sign * (rows.gather(-1, end) - rows.gather(-1, begin))
        last = lengths.unsqueeze(-1) - 1 - width.unsqueeze(-1)
        return total.masked_fill((begin < 1) | (begin > last), float("-inf")).argmax(-1)

    return best(sums, lengths, -1.0), best(sums[partners], lengths[partners], 1.0), width


def replaced(ids: Tensor, layout: Layout, partners: Tensor, spans: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Word pieces ``[R, T]`` with each sentence's span replaced by its partner's."""
    sentence = layout.owner.clamp_min(0)
    to, source, width, other = (found[sentence] for found in (*spans, layout.first[partners]))
    within = layout.position - to
    inside = (layout.owner != NOTHING) & (within >= 0) & (within < width)
    here = torch.arange(ids.numel(), device=ids.device).view(ids.shape)
    return ids.flatten()[torch.where(inside, other + source + within, here)]
