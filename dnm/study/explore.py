"""What the notebooks and widgets look at: one batch, mixtures of a pair, policies over time, t-SNE and its measures.

Everything here returns numbers; `dnm.plots.drawings` makes pictures of them. Taught in notebooks 01 to 03 and 06.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.metrics import silhouette_score
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from dnm import mixing, selection
from dnm.classify.estimator import DNMClassifier
from dnm.config import RunConfig
from dnm.data.datasets import Split
from dnm.errors import DnmError
from dnm.training import Run, own_randomness

POLICIES = ("scalar", "vector", "matrix")


@dataclass(frozen=True)
class Batch:
    """Sentences with their hidden states ``[N, d]`` (no dropout, on the CPU) and class numbers ``[N]``."""

    texts: list[str]
    labels: np.ndarray
    label_names: tuple[str, ...]
    hidden: Tensor

    @classmethod
    def of(cls, classifier: DNMClassifier, split: Split) -> "Batch":
        """The sentences of ``split``, encoded by ``classifier``."""
        return cls(split.texts, split.labels, classifier.label_names, classifier.hidden(split.texts))

    @classmethod
    def first(cls, run: Run) -> "Batch":
        """The sentences of the run's first training step, encoded by its model as it stands."""
        return cls.of(DNMClassifier.of(run), run.train.take(run.batches(0)))


def spread(points: Tensor, first: Tensor, second: Tensor) -> dict[str, float]:
    """Of mixtures ``[n, d]`` the participation ratio of the covariance's eigenvalues (1 for a line, d for a ball), and
    the mean distance to the segment between their two sentences, in units of its length."""
    if len(points) < 2:
        raise DnmError(f"at least two mixtures are needed to say how they spread, got {len(points)}")
    eigenvalues, length = torch.linalg.eigvalsh(torch.cov(points.double().T)).clamp_min(0), (second - first).norm()
    along = (second - first) / length
    off = points - first - ((points - first) @ along).clamp(0, length).unsqueeze(-1) * along
    return {"dimensions": (eigenvalues.sum() ** 2 / eigenvalues.square().sum()).item(),
            "off_segment": (off.norm(dim=-1).mean() / length).item()}


def same_label_share(labels: np.ndarray, partners) -> float:
    """How often a partner ``[N, P]`` has its sentence's label."""
    return float((labels[np.asarray(partners)] == labels[:, None]).mean())


def plane(points: Tensor) -> np.ndarray:
    """The first two principal components ``[n, 2]`` of points ``[n, d]``."""
    return PCA(2, svd_solver="full").fit_transform(np.asarray(points))


@dataclass(frozen=True)
class Snapshot:
    """DNM's policies at one step; the label weights are those of all ordered pairs of the run's first batch."""

    step: int
    input_weight: np.ndarray  # [d]
    label_embedding: np.ndarray  # [c, d]
    label_spread: float  # standard deviation
    label_shares: np.ndarray  # in each of 40 equal bins of [0, 1]

    @classmethod
    @torch.no_grad()
    def of(cls, run: Run) -> "Snapshot":
        hidden, head = Batch.first(run).hidden.to(run.device), run.model.head
        weight, everyone = head.input_weight(), selection.nearest(hidden, len(hidden) - 1)
        labels = head.label_weight(hidden, everyone, weight)
        return cls(run.step, weight.cpu().numpy(), head.label_embedding.cpu().numpy().copy(), labels.std().item(),
                   np.histogram(labels.cpu().numpy(), 40, (0, 1))[0] / labels.numel())


def follow_policies(config: RunConfig, every: int, tell: Callable[[str], None] = print) -> tuple[Run, list[Snapshot]]:
    """Train one DNM run and keep its policies at step 0, every ``every`` steps and at the end (notebook 03)."""
    if config.row.labels != "policy":
        raise DnmError(f"{config.method} learns no mixing policies; use dnm or one of its variants")
    with own_randomness():
        run, snapshots = Run(config), []
        while run.step < config.steps:
            if run.step % every == 0:
                snapshots.append(Snapshot.of(run))
            if run.step % 5 == 0:
                tell(f"{config.title}: step {run.step}/{config.steps}")
            run.train_step()
        tell(f"{config.title}: {run.step} steps, validation accuracy {run.evaluate()['validation_accuracy']:.1%}")
        return run, [*snapshots, Snapshot.of(run)]


def moves(config: RunConfig, tell: Callable[[str], None] = print) -> pd.DataFrame:
    """How far the head's parameters move in a training, beside what Adam allows, about rate × steps (notebook 05).

    ``spread``: standard deviation at the first draw; ``mean`` and ``most`` of |last − first|, number by number.
    """
    with own_randomness():
        run = Run(config)
        first = {name: p.detach().clone() for name, p in run.trained.items() if name.startswith("head.")}
        while run.step < config.steps:
            if run.step % 50 == 0:
                tell(f"{config.label}: step {run.step}/{config.steps}")
            run.train_step()
    rows = []
    for name, start in first.items():
        moved = (run.trained[name].detach() - start).abs()
        rows.append({"parameter": name.removeprefix("head."), "spread": start.std().item(), "mean": moved.mean().item(),
                     "most": moved.max().item(), "rate × steps": config.head_lr * config.steps})
    return pd.DataFrame(rows)


def tsne(points: Tensor, perplexity: float = 30, seed: int = 0) -> np.ndarray:
    """A t-SNE picture ``[n, 2]`` of points ``[n, d]`` by cosine distance, from a random start (notebook 06)."""
    if not 1 <= perplexity < len(points):
        raise DnmError(f"perplexity must lie between 1 and the number of points ({len(points)}), got {perplexity}")
    method = TSNE(2, perplexity=perplexity, metric="cosine", init="random", random_state=seed, n_jobs=-1)
    return method.fit_transform(np.asarray(points))


def purity(points, labels: np.ndarray, neighbours: int = 10, metric: str = "cosine") -> float:
    """Mean share of a point's nearest neighbours that have its label; chance is the classes' share."""
    found = NearestNeighbors(n_neighbors=min(neighbours, len(points) - 1), metric=metric).fit(np.asarray(points))
    return same_label_share(labels, found.kneighbors(return_distance=False))


def silhouette(points, labels: np.ndarray, metric: str = "cosine") -> float:
    """Mean silhouette: near 1 where classes lie far apart, 0 where they overlap; not a number for one class alone."""
    told = 1 < len(np.unique(labels)) < len(labels)
    return float(silhouette_score(np.asarray(points), labels, metric=metric)) if told else float("nan")


def mixtures(batch: Batch, k: int, weight: Tensor | float, size: int = 20) -> tuple[np.ndarray, list[str], list[str]]:
    """Points ``[n, d]`` of a batch and of its mixtures with K nearest and K farthest, each one's group and sentence.

    Partners are chosen within consecutive batches of ``size``, as in training; a short last one is left out.
    """
    size, points = min(size, len(batch.hidden)), [batch.hidden]
    hidden = batch.hidden[:len(batch.hidden) // size * size].unflatten(0, (-1, size))  # [batches, size, d]
    k, groups, texts = selection.partners_each(size, k), ["original"] * len(batch.texts), list(batch.texts)
    for name, chosen in (("nearest", selection.nearest), ("farthest", selection.farthest)):
        points.append(mixing.mix_inputs(hidden, chosen(hidden, k), weight).flatten(0, 2))
        groups += [f"mixed with {name}"] * len(points[-1])
        texts += [f"(mixed) {batch.texts[i // k]}" for i in range(len(points[-1]))]
    return np.concatenate(points), groups, texts
