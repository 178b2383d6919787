"""What a run keeps of each training sentence from step to step, for rows that choose partners by it.

DMix: the frozen encoder's states, and a factor learned for each sentence. AUM + saliency: the area under the margin
(Pleiss et al. 2020) and the last saliency, both from a first, plain phase. Taught in notebook 01.
"""

import numpy as np
import torch
from torch import Tensor, nn

from dnm.batches import Encoded
from dnm.heads import Draws
from dnm.model import adamw
from dnm.related import pairs
from dnm.selection import similarities


def begin(run) -> dict[str, Tensor]:
    """What ``run`` remembers before its first step: numbers ``[n, …]`` by training sentence."""
    n, d, c = len(run.train), run.model.encoder.hidden_size, len(run.data.label_names)
    if run.method.partners == "beyond":
        encoded = Encoded(run.batches.sentences, run.model.encoder.share_rows, run.config.max_length, run.device)
        states = encoded.hidden(run.model.encoder) if run.model.states is None else run.model.states
        return {"states": states, "factor": nn.Parameter(torch.ones(n, device=run.device))}
    if run.method.partners == "saliency":
        shapes = {"margin": (n,), "visits": (n,), "saliency": (n, c if c > 2 else d)}
        return {name: torch.zeros(shape, device=run.device) for name, shape in shapes.items()}
    return {}


def start(run) -> int:
    """The step from which on sentences are mixed.

    A phase that learns about each sentence takes three epochs at least, but no more than half the steps.
    """
    share = int(run.method.start * run.config.steps)
    return min(max(share, 3 * run.batches.per_epoch), run.config.steps // 2) if "margin" in run.memory else share


def due(run) -> bool:
    """Whether the next step mixes. The first that does starts anew where sentences are parted into halves:

    the model as it was before the first phase, on batches from both halves.
    """
    if run.step >= run.start and "margin" in run.memory and not run.batches.halves:
        run.batches.halves = halves(run.memory)
        if run.step == run.start:  # and not a later one, after an interruption
            fresh = type(run)(run.config, run.data)
            with torch.no_grad():
                for name, parameter in run.trained.items():
                    parameter.copy_(fresh.trained[name])
            run.optimiser = adamw(*run.groups(), run.config)
    return run.step >= run.start


def recalled(run, draws: Draws) -> Draws:
    """The draws of a step with what is remembered of its sentences, as `dnm.selection` wants it."""
    if not run.memory:
        return draws
    index = torch.from_numpy(run.batches(run.step)).to(run.device)
    if "states" in run.memory:
        distances = (1 - similarities(run.memory["states"][index])).clamp_min(0).fill_diagonal_(0)
        return draws._replace(memory={"distances": distances, "factor": run.memory["factor"][index]})
    high = torch.arange(len(index), device=run.device) >= len(index) // 2
    return draws._replace(memory={"saliency": run.memory["saliency"][index], "high": high})


@torch.no_grad()
def remember(run, hidden: Tensor, labels: Tensor) -> None:
    """Keep what a step of the first phase shows of its sentences, hidden states ``[N, d]``: margin and saliency."""
    if "margin" in (memory := run.memory):
        index, head = torch.from_numpy(run.batches(run.step)).to(run.device), run.model.head
        memory["margin"].index_add_(0, index, pairs.margins(head.scores(hidden), labels))
        memory["visits"].index_add_(0, index, torch.ones(len(index), device=run.device))
        memory["saliency"][index] = pairs.saliency(head.fc, hidden, labels)


def halves(memory: dict[str, Tensor]) -> tuple[np.ndarray, np.ndarray]:
    """Sentences of low and of high area under the margin, parted at its median; those never seen are in neither."""
    seen = (memory["visits"] > 0).nonzero().squeeze(-1)
    area = memory["margin"][seen] / memory["visits"][seen]
    order = seen[area.argsort(stable=True)].cpu().numpy()  # by rank: ties, too, are parted in the middle
    return np.sort(order[:len(order) // 2]), np.sort(order[len(order) // 2:])
