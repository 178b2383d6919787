"""The paper's four figures, drawn from runs of our own. Taught in notebooks 04 and 06."""

from pathlib import Path

import plotly.graph_objects as go

from dnm.classify.estimator import DNMClassifier
from dnm.config import RunConfig
from dnm.data.datasets import dataset_of, limited
from dnm.plots import charts, drawings, plain
from dnm.plots.look import PALETTE
from dnm.plots.page import save
from dnm.runs.results import frame
from dnm.runs.scheduler import run_all
from dnm.runs.store import RunStore
from dnm.study import explore
from dnm.study.experiments import experiment
from dnm.training import Run

LOOKS = {"original": (PALETTE[6], "circle"), "mixed with farthest": (PALETTE[1], "diamond-open"),
         "mixed with nearest": (PALETTE[0], "square-open")}


def draw(name: str, out: Path, store: RunStore, on_status=None, **choice) -> list[Path]:
    """One of the paper's figures as HTML and PNG in ``out``; runs that `experiment` names are trained or reused."""
    if name == "figure1":
        return save(drawings.architecture(), out / name)
    configs = experiment(name, **choice)
    if name == "figure2":
        return save(charts.regularisation(frame(run_all(configs, store, on_status=on_status))), out / name)
    paths, wanted = [], [config for config in configs if config.method == "dnm"]
    for config in wanted:
        figure = mixed_map(config) if name == "figure3" else feature_map(config, store, on_status)
        size = f"-{config.n_train}" if len({c.n_train for c in wanted}) > 1 else ""
        paths += save(figure, out / (name if len(wanted) == 1 else f"{name}-{Path(config.dataset).stem}{size}"))
    return paths


def mixed_map(config: RunConfig, sentences: int = 100, k: int = 3, perplexity: float = 30) -> go.Figure:
    """Figure 3: t-SNE of training sentences and their mixtures, by the encoder and policy before training."""
    run = Run(config.with_(device="cpu"))
    batch = explore.Batch.of(DNMClassifier.of(run), run.train.take(range(min(sentences, len(run.train)))))
    points, groups, texts = explore.mixtures(batch, k, run.model.head.input_weight().detach())
    perplexity = min(perplexity, (len(points) - 1) // 3)
    title = (f"Original and mixed sentences (Figure 3): {_about(config)}<br><sub>K = {k}, t-SNE of perplexity "
             f"{perplexity:g}, encoder before training</sub>")
    return drawings.clouds(explore.tsne(points, perplexity, config.seed), groups, texts, title, LOOKS)


def feature_map(config: RunConfig, store: RunStore, on_status=None, sentences: int = 400,
                perplexity: float = 30) -> go.Figure:
    """Figure 4: t-SNE of test sentences' hidden states after plain fine-tuning and after DNM, with their measures."""
    figures, titles, test = [], [], limited(dataset_of(config), "test", sentences)
    configs = [config.with_(method=method) if method != config.method else config for method in ("plain", "dnm")]
    where = run_all(configs, store, save_models=True, on_status=on_status)[-1]["environment"]
    for mine in configs:
        batch = explore.Batch.of(DNMClassifier.load(store.model_path(mine)), test)
        perplexity = min(perplexity, (len(batch.texts) - 1) // 3)
        places = explore.tsne(batch.hidden, perplexity, config.seed)
        figures.append(drawings.clouds(places, [batch.label_names[y] for y in batch.labels], batch.texts, ""))
        titles.append(f"{mine.row.title}<br>purity {explore.purity(batch.hidden, batch.labels):.2f}, "
                      f"silhouette {explore.silhouette(batch.hidden, batch.labels):.2f}")
    title = (f"Test features (Figure 4): {_about(config)}<br><sub>{where['device']}, {where['precision']}; "
             f"t-SNE of perplexity {perplexity:g}; purity and silhouette are measured in the hidden space</sub>")
    return drawings.panels(figures, titles, title)


def _about(config: RunConfig) -> str:
    return plain.figure(f"{Path(config.dataset).stem}, n = {config.n_train}, {config.encoder}, profile {config.label}, "
                        f"seed {config.seed}")
