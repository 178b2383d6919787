"""The paper's published numbers beside ours, and its figures drawn from runs of our own.

The 276 accuracies of Tables 2 to 11 lie in ``data/paper_results.csv``, under the names of our table of methods.
Taught in notebooks 04 to 06.
"""

from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from dnm import drawings, explore, plots
from dnm.batches import limited
from dnm.config import RunConfig
from dnm.data import load_dataset
from dnm.errors import DnmError, project_root, unknown
from dnm.methods import METHODS
from dnm.models import Classifier
from dnm.report import summary
from dnm.runs import grid, run_all
from dnm.store import RunStore
from dnm.training import Run

FIGURES = {"figure1": (), "figure2": ("subj", "sst1"), "figure3": ("subj",), "figure4": ("subj", "sst2")}
LOOKS = {"original": (plots.PALETTE[6], "circle"), "mixed with farthest": (plots.PALETTE[1], "diamond-open"),
         "mixed with nearest": (plots.PALETTE[0], "square-open")}


@lru_cache(maxsize=1)
def published() -> pd.DataFrame:
    """The paper's accuracies in percent: table, dataset, method, encoder, n_train (text), accuracy, error."""
    path = project_root() / "data" / "paper_results.csv"
    if not path.exists():
        raise DnmError(f"the paper's numbers are not at {path}; run from a checkout, or set DNM_HOME to one")
    return pd.read_csv(path, dtype={"n_train": str})


def table_methods(table: int) -> list[str]:
    """Rows of the paper's Tables 6 to 11, as names of our table of methods."""
    if table not in (ablations := sorted(set(published().table) - {2, 3, 4, 5})):
        raise DnmError(f"table {table} is no ablation of the paper (known: {', '.join(map(str, ablations))})")
    found = set(published().query("table == @table").method)
    return [name for name in METHODS if name in found]


def beside(records: list[dict], rows: pd.DataFrame) -> pd.DataFrame:
    """The paper's ``rows`` (of `published`), one line each, with our mean, standard error, runs and setting beside.

    Where we have several settings of a row, the one with the most runs is shown; where none, ours is empty.
    """
    ours = summary(records).sort_values("runs", ascending=False, kind="stable") if records else pd.DataFrame()
    lines = []
    for row in rows.itertuples():
        mine = ours[(ours.data == row.dataset) & (ours.n_train.astype(str) == row.n_train) & (ours.method == row.method)
                    & (ours.title == METHODS[row.method].title)] if len(ours) else ours
        if len(mine) and row.encoder == "cnn or lstm":
            mine = mine[mine.encoder.isin(["cnn", "lstm"])]
        elif len(mine):
            mine = mine[~mine.encoder.isin(["cnn", "lstm"])]
        best = mine.iloc[0] if len(mine) else pd.Series(
            dict(accuracy=np.nan, error=np.nan, runs=0, encoder="", profile=""))
        lines.append({"table": row.table, "dataset": row.dataset, "n_train": row.n_train, "method": row.method,
                      "title": METHODS[row.method].title, "paper": row.accuracy, "paper_error": row.error,
                      "ours": best.accuracy, **best[["error", "runs", "encoder", "profile"]]})
    return pd.DataFrame(lines)


def side_by_side(frame: pd.DataFrame) -> pd.DataFrame:
    """A `beside` frame as people read it, by data set; the last two columns are differences to the full method, DNM."""
    frame = frame.assign(place=pd.factorize(frame.dataset)[0]).sort_values(["place", "n_train"], kind="stable")

    def to_dnm(column: str) -> pd.Series:
        keys = ["dataset", "n_train"]
        full = frame[frame.method == "dnm"].drop_duplicates(keys)[[*keys, column]]
        return frame[column] - frame[keys].merge(full, how="left", on=keys)[column].to_numpy()

    def number(value: float, error: float) -> str:
        return "not run yet" if np.isnan(value) else f"{value:.1f}" + ("" if np.isnan(error) else f" ± {error:.1f}")

    def sign(value: float) -> str:
        return "–" if np.isnan(value) else f"{value:+.1f}"

    return pd.DataFrame({
        "data": frame.dataset, "n": frame.n_train, "method": frame.title,
        "paper (%)": [number(v, e) for v, e in zip(frame.paper, frame.paper_error, strict=True)],
        "ours (%)": [number(v, e) for v, e in zip(frame.ours, frame.error, strict=True)], "runs": frame.runs,
        "paper to DNM": to_dnm("paper").map(sign), "ours to DNM": to_dnm("ours").map(sign)})


def kept_records() -> list[dict]:
    """The runs that are kept in ``data/results/``."""
    from dnm.report import load_records

    files = sorted((project_root() / "data" / "results").glob("*.json"))
    return [record for file in files if not file.name.startswith("bench") for record in load_records(file)]


# ---------------------------------------------------------------- figures

def draw(name: str, out: Path, store: RunStore, datasets: list[str] | None = None, seeds: tuple[int, ...] = (0, 1, 2),
         profile: str = "quick", on_status=None, **settings) -> list[Path]:
    """One of the paper's figures as HTML and PNG in ``out``; runs it needs are trained, or reused from ``store``."""
    if name not in FIGURES:
        raise unknown("figure", name, FIGURES)
    datasets = datasets or list(FIGURES[name])
    if name == "figure1":
        return plots.save(drawings.architecture(), out / name)
    if name == "figure2":
        configs = [config for dataset in datasets for config in grid(
            ["nonlinearmixup", "dnm"], list(seeds), profile, dataset=dataset, n_train="all", **settings)]
        return plots.save(plots.regularisation(run_all(configs, store, on_status=on_status)), out / name)
    paths = []
    for dataset in datasets:
        config = RunConfig.create(profile, dataset=dataset, n_train="all", method="dnm", seed=seeds[0], **settings)
        figure = mixed_map(config) if name == "figure3" else feature_map(config, store, on_status)
        paths += plots.save(figure, out / (name if len(datasets) == 1 else f"{name}-{Path(dataset).stem}"))
    return paths


def mixed_map(config: RunConfig, sentences: int = 100, k: int = 3, perplexity: float = 30) -> go.Figure:
    """Figure 3: t-SNE of training sentences and their mixtures, by the encoder and policy before training."""
    run = Run(config)
    batch = explore.Batch.of(run.classifier(), run.train.take(range(min(sentences, len(run.train)))))
    with np.errstate(all="ignore"):
        points, groups, texts = mixtures(batch, k, run.model.head.input_weight().detach())
    places = explore.tsne(points, min(perplexity, (len(points) - 1) / 3), config.seed)
    title = (f"Original and mixed sentences (Figure 3): {batch_name(config)}<br><sub>K = {k}, t-SNE of perplexity "
             f"{perplexity:g}, {config.encoder} before training</sub>")
    return drawings.clouds(places, groups, texts, title, LOOKS)


def mixtures(batch: explore.Batch, k: int, weight) -> tuple:
    """Points ``[n, d]`` of a batch and its mixtures, with their group and sentences."""
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
    figures, titles = [], []
    for method in ("plain", "dnm"):
        mine = config.with_(method=method)
        run_all([mine], store, save_models=True, on_status=on_status)
        classifier = Classifier.load(store.model_path(mine))
        batch = explore.Batch.of(classifier, limited(load_dataset(mine.dataset), "test", sentences))
        places = explore.tsne(batch.hidden, perplexity, config.seed)
        figures.append(drawings.clouds(places, [batch.label_names[y] for y in batch.labels], batch.texts, ""))
        titles.append(f"{METHODS[method].title}<br>purity {explore.purity(batch.hidden, batch.labels):.2f}, "
                      f"silhouette {explore.silhouette(batch.hidden, batch.labels):.2f}")
    title = (f"Test features (Figure 4): {batch_name(config)}, t-SNE of perplexity {perplexity:g}"
             "<br><sub>purity and silhouette are measured in the hidden space</sub>")
    return drawings.side_by_side(figures, titles, title)


def batch_name(config: RunConfig) -> str:
    return (f"{Path(config.dataset).stem}, n = {config.n_train}, {config.encoder}, profile {config.label}, "
            f"seed {config.seed}")
