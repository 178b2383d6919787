"""What the notebooks and widgets look at: one batch, mixtures of a pair, policies over time, t-SNE and its measures.

Everything here returns numbers; `dnm.drawings` makes pictures of them. Taught in notebooks 01 to 03 and 06.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dnm import mixing, selection
from dnm.batches import limited
from dnm.config import RunConfig
from dnm.data import Split
from dnm.errors import DnmError
from dnm.methods import get_method
from dnm.models import Classifier
from dnm.packing import pack
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
    def of(cls, classifier: Classifier, split: Split) -> "Batch":
        """The sentences of ``split``, encoded by ``classifier``."""
        return cls(split.texts, split.labels, classifier.label_names, classifier.hidden(split.texts))

    @classmethod
    def first(cls, run: Run) -> "Batch":
        """The sentences of the run's first training step, encoded by its model as it stands."""
        return cls.of(run.classifier(), run.train.take(run.batches(0)))


def held_out(run: Run, split: str, at_most: int) -> Batch:
    """The first sentences of a split, classes in proportion, encoded by the run's model."""
    return Batch.of(run.classifier(), limited(run.data, split, at_most))


# ---------------------------------------------------------------- notebook 01: what mixing can reach

def draw_weights(policy: str, count: int, alpha: float, shape: tuple[int, int], seed: int = 0) -> Tensor:
    """``count`` mixing weights ~ Beta(alpha, alpha) for sentences of ``shape`` (L positions, d dimensions).

    ``[count, 1, 1]`` for the policy ``scalar``, ``[count, 1, d]`` for ``vector``, ``[count, L, d]`` for ``matrix``.
    """
    if policy not in POLICIES:
        raise DnmError(f"unknown policy {policy!r} (known: {', '.join(POLICIES)})")
    size = {"scalar": (1, 1), "vector": (1, shape[1]), "matrix": shape}[policy]
    return torch.from_numpy(np.random.default_rng(seed).beta(alpha, alpha, (count, *size))).float()


@torch.no_grad()
def word_mixtures(run: Run, first: str, second: str, weights: Tensor) -> Tensor:
    """Hidden states ``[count, d]`` of two sentences mixed in their word embeddings, weights ``[count, L, e]``.

    The shorter sentence is padded with zeros, as WordMixup and NonlinearMixup do.
    """
    encoder, count = run.model.encoder.eval(), len(weights)
    pair = run.tokenizer([first, second])
    longest = max(map(len, pair))
    layout = pack(np.full(count, longest), run.config.max_length, share_rows=False)
    embedded = [encoder.words(layout.place([sentence] * count).to(run.device)) for sentence in pair]
    return encoder(mixing.mix(*embedded, weights[:, :longest].to(run.device)), layout.to(run.device)).cpu()


def spread(points: Tensor, first: Tensor, second: Tensor) -> dict[str, float]:
    """How far mixtures ``[n, d]`` of one pair fill the space around the segment between them.

    ``dimensions`` is the participation ratio of the covariance's eigenvalues (1 for a line, d for a ball), and
    ``off_segment`` the mean distance to the segment in units of its length.
    """
    if len(points) < 2:
        raise DnmError(f"at least two mixtures are needed to say how they spread, got {len(points)}")
    eigenvalues = torch.linalg.eigvalsh(torch.cov(points.double().T)).clamp_min(0)
    along = (second - first) / (second - first).norm()
    place = ((points - first) @ along).clamp(0, (second - first).norm())
    distance = (points - first - place.unsqueeze(-1) * along).norm(dim=-1)
    return {"dimensions": (eigenvalues.sum() ** 2 / eigenvalues.square().sum()).item(),
            "off_segment": (distance.mean() / (second - first).norm()).item()}


# ---------------------------------------------------------------- notebook 02: partners

def same_label_share(labels: np.ndarray, partners: Tensor) -> float:
    """How often a partner ``[N, P]`` has its sentence's label."""
    labels = torch.as_tensor(labels)
    return (labels[partners] == labels.unsqueeze(-1)).float().mean().item()


def plane(points: Tensor) -> np.ndarray:
    """The first two principal components ``[n, 2]`` of points ``[n, d]``."""
    from sklearn.decomposition import PCA

    return PCA(2, svd_solver="full").fit_transform(np.asarray(points))


# ---------------------------------------------------------------- notebook 03: policies over time

@dataclass(frozen=True)
class Snapshot:
    """DNM's policies at one step: input weights ``[d]``, label embeddings ``[c, d]``, and of the label weights of all
    ordered pairs of the run's first batch the standard deviation and the share in each of 40 equal bins of [0, 1]."""

    step: int
    input_weight: np.ndarray
    label_embedding: np.ndarray
    label_spread: float
    label_shares: np.ndarray


def follow_policies(config: RunConfig, every: int, tell: Callable[[str], None] = print) -> tuple[Run, list[Snapshot]]:
    """Train one DNM run and keep its policies at step 0, every ``every`` steps and at the end."""
    if get_method(config.method).labels != "policy":
        raise DnmError(f"{config.method} learns no mixing policies; use dnm or one of its variants")
    with own_randomness():
        run, snapshots = Run(config), []
        while run.step < config.steps:
            if run.step % every == 0:
                snapshots.append(_snapshot(run))
            if run.step % 5 == 0:
                tell(f"{config.title}: step {run.step}/{config.steps}")
            run.train_step()
        snapshots.append(_snapshot(run))
        tell(f"{config.title}: {run.step} steps, validation accuracy {run.evaluate()['validation_accuracy']:.1%}")
    return run, snapshots


@torch.no_grad()
def _snapshot(run: Run) -> Snapshot:
    batch, head = Batch.first(run), run.model.head
    hidden = batch.hidden.to(run.device)
    everyone = selection.nearest(hidden, len(hidden) - 1)
    labels = mixing.label_policy(hidden, everyone, head.input_weight(), head.label_policy)
    shares = np.histogram(labels.cpu().numpy(), 40, (0, 1))[0] / labels.numel()
    return Snapshot(run.step, head.input_weight().cpu().numpy(), head.label_embedding.cpu().numpy().copy(),
                    labels.std().item(), shares)


# ---------------------------------------------------------------- notebook 06: t-SNE and what stands beside it

def tsne(points: Tensor, perplexity: float = 30, seed: int = 0) -> np.ndarray:
    """A t-SNE picture ``[n, 2]`` of points ``[n, d]`` by cosine distance, from a random start."""
    from sklearn.manifold import TSNE

    if not 1 <= perplexity < len(points):
        raise DnmError(f"perplexity must lie between 1 and the number of points ({len(points)}), got {perplexity}")
    return TSNE(2, perplexity=perplexity, metric="cosine", init="random", random_state=seed,
                n_jobs=-1).fit_transform(np.asarray(points))


def purity(points, labels: np.ndarray, neighbours: int = 10, metric: str = "cosine") -> float:
    """Mean share of a point's nearest neighbours that have its label; chance is the classes' share."""
    from sklearn.neighbors import NearestNeighbors

    points = np.asarray(points)
    found = NearestNeighbors(n_neighbors=min(neighbours, len(points) - 1), metric=metric).fit(points)
    return float((labels[found.kneighbors(return_distance=False)] == labels[:, None]).mean())


def silhouette(points, labels: np.ndarray, metric: str = "cosine") -> float:
    """Mean silhouette: near 1 where classes lie far apart, 0 where they overlap, negative where they mix; not a
    number where there is only one class."""
    from sklearn.metrics import silhouette_score

    if not 1 < len(np.unique(labels)) < len(labels):
        return float("nan")
    return float(silhouette_score(np.asarray(points), labels, metric=metric))


def mixed_points(batch: Batch, k: int, weight: Tensor | float, size: int = 20) -> dict[str, Tensor]:
    """Mixtures of sentences with their K nearest and K farthest, ``[N, K, d]`` each.

    Partners are chosen within consecutive batches of ``size``, as in training; a short last one is left out.
    """
    size = min(size, len(batch.hidden))
    each, parts = selection.partners_each(size, k), {"nearest": [], "farthest": []}
    for hidden in batch.hidden[:len(batch.hidden) // size * size].split(size):
        for name, found in parts.items():
            found.append(mixing.mix_inputs(hidden, getattr(selection, name)(hidden, each), weight))
    return {name: torch.cat(found) for name, found in parts.items()}
