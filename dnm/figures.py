"""The paper's four figures, drawn from runs of our own. Taught in notebooks 04 and 06."""

import html
from pathlib import Path

import numpy as np
import plotly.graph_objects as go

from dnm import drawings, explore, plots
from dnm.batches import limited
from dnm.config import RunConfig
from dnm.data import load_dataset
from dnm.methods import METHODS
from dnm.models import Classifier
from dnm.paper import experiment
from dnm.runs import run_all
from dnm.store import RunStore
from dnm.training import Run

LOOKS = {"original": (plots.PALETTE[6], "circle"), "mixed with farthest": (plots.PALETTE[1], "diamond-open"),
         "mixed with nearest": (plots.PALETTE[0], "square-open")}


def draw(name: str, out: Path, store: RunStore, on_status=None, **choice) -> list[Path]:
    """One of the paper's figures as HTML and PNG in ``out``; runs it needs are trained, or reused from ``store``.

    ``choice`` is that of `dnm.paper.experiment`: data sets, sizes, seeds, encoder, profile.
    """
    if name == "figure1":
        return plots.save(drawings.architecture(), out / name)
    configs = experiment(name, **choice)
    if name == "figure2":
        return plots.save(plots.regularisation(run_all(configs, store, on_status=on_status)), out / name)
    paths, wanted = [], [config for config in configs if config.method == "dnm"]
    for config in wanted:
        figure = mixed_map(config) if name == "figure3" else feature_map(config, store, on_status)
        size = f"-{config.n_train}" if len({c.n_train for c in wanted}) > 1 else ""
        paths += plots.save(figure, out / (name if len(wanted) == 1 else f"{name}-{Path(config.dataset).stem}{size}"))
    return paths


def mixed_map(config: RunConfig, sentences: int = 100, k: int = 3, perplexity: float = 30) -> go.Figure:
    """Figure 3: t-SNE of training sentences and their mixtures, by the encoder and policy before training."""
    run = Run(config.with_(device="cpu"))
    batch = explore.Batch.of(run.classifier(), run.train.take(range(min(sentences, len(run.train)))))
    points, groups, texts = mixtures(batch, k, run.model.head.input_weight().detach())
    perplexity = min(perplexity, (len(points) - 1) // 3)
    title = (f"Original and mixed sentences (Figure 3): {batch_name(config)}<br><sub>K = {k}, t-SNE of perplexity "
             f"{perplexity:g}, encoder before training</sub>")
    return drawings.clouds(explore.tsne(points, perplexity, config.seed), groups, texts, title, LOOKS)


def mixtures(batch: explore.Batch, k: int, weight) -> tuple[np.ndarray, list[str], list[str]]:
    """Points ``[n, d]`` of a batch and its mixtures, the name of each one's group (of `LOOKS`) and its sentence."""
    mixed = explore.mixed_points(batch, k, weight)
    points, groups, texts = [batch.hidden], ["original"] * len(batch.texts), list(batch.texts)
    for name, found in mixed.items():
        points.append(found.flatten(0, 1))
        groups += [f"mixed with {name}"] * found.shape[0] * found.shape[1]
        texts += [f"(mixed) {batch.texts[i]}" for i in range(found.shape[0]) for _ in range(found.shape[1])]
    return np.concatenate(points), groups, texts


def feature_map(config: RunConfig, store: RunStore, on_status=None, sentences: int = 400,
                perplexity: float = 30) -> go.Figure:
    """Figure 4: t-SNE of test sentences' hidden states after plain fine-tuning and after DNM, with their measures."""
    figures, titles, data = [], [], load_dataset(config.dataset, config.text_column, config.label_column)
    for method in ("plain", "dnm"):
        mine = config if method == config.method else config.with_(method=method)
        where = run_all([mine], store, save_models=True, on_status=on_status)[0]["environment"]
        batch = explore.Batch.of(Classifier.load(store.model_path(mine)), limited(data, "test", sentences))
        perplexity = min(perplexity, (len(batch.texts) - 1) // 3)
        places = explore.tsne(batch.hidden, perplexity, config.seed)
        figures.append(drawings.clouds(places, [batch.label_names[y] for y in batch.labels], batch.texts, ""))
        titles.append(f"{METHODS[method].title}<br>purity {explore.purity(batch.hidden, batch.labels):.2f}, "
                      f"silhouette {explore.silhouette(batch.hidden, batch.labels):.2f}")
    title = (f"Test features (Figure 4): {batch_name(config)}<br><sub>{where['device']}, {where['precision']}; "
             f"t-SNE of perplexity {perplexity:g}; purity and silhouette are measured in the hidden space</sub>")
    return drawings.panels(figures, titles, title)


def batch_name(config: RunConfig) -> str:
    return html.escape(f"{Path(config.dataset).stem}, n = {config.n_train}, {config.encoder}, profile {config.label}, "
            f"seed {config.seed}")
