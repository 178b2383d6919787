"""The paper's published numbers beside ours, and its figures drawn from runs of our own.

The 276 accuracies of Tables 2 to 11 lie in ``data/paper_results.csv``, under the names of our table of methods.
Taught in notebooks 04 to 06.
"""

import html
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from dnm import drawings, explore, plots
from dnm.batches import limited
from dnm.config import RunConfig
from dnm.data import REAL, load_dataset
from dnm.errors import DnmError, project_root, unknown
from dnm.methods import METHODS
from dnm.models import Classifier
from dnm.plots import standard_error
from dnm.report import COMPARABLE, runs_table
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
    """The paper's ``rows`` (of `published`), one line each, with ours beside them.

    For each data set and size one setting of ours is taken, the one that has most of the rows (then most runs):
    ``ours`` and ``error`` are its mean and standard error in percent, ``gap`` the difference to full DNM with the same
    seeds and ``gap_error`` its standard error; not a number where we have no run. ``paper_gap`` takes the paper's
    errors as independent.
    """
    runs, lines = _comparable_runs(records), []
    for row in rows.itertuples():
        from_scratch = runs.encoder.isin(["cnn", "lstm"]) == (row.encoder == "cnn or lstm")
        same = runs[(runs.data == row.dataset) & (runs.n_train == row.n_train) & from_scratch]
        wanted = same[same.method.isin(rows.method)]
        chosen = wanted[wanted.setting == _fullest(wanted)]
        mine, full = (chosen[chosen.method == m].set_index("seed").accuracy for m in (row.method, "dnm"))
        gap = (mine - full).dropna()
        theirs = rows[(rows.dataset == row.dataset) & (rows.n_train == row.n_train) & (rows.method == "dnm")].head(1)
        lines.append({
            "table": row.table, "dataset": row.dataset, "n_train": row.n_train, "method": row.method,
            "title": METHODS[row.method].title, "paper": row.accuracy, "paper_error": row.error,
            "ours": mine.mean(), "error": standard_error(mine.to_numpy()), "runs": len(mine),
            "encoder": "".join(chosen.encoder[:1]) if len(mine) else "",
            "profile": "".join(chosen.profile[:1]) if len(mine) else "",
            "gap": gap.mean(), "gap_error": standard_error(gap.to_numpy()),
            "paper_gap": (row.accuracy - theirs.accuracy).mean(),
            "paper_gap_error": np.hypot(row.error, theirs.error).mean()})
        if row.method == "dnm":
            lines[-1] |= {"gap_error": np.nan, "paper_gap_error": np.nan}
    return pd.DataFrame(lines, columns=_BESIDE)


_BESIDE = ["table", "dataset", "n_train", "method", "title", "paper", "paper_error", "ours", "error", "runs", "encoder",
           "profile", "gap", "gap_error", "paper_gap", "paper_gap_error"]


def _comparable_runs(records: list[dict]) -> pd.DataFrame:
    """A row a run on the paper's data sets (no file of one's own of that name), methods with their usual settings."""
    kept = [r for r in records if r["config"]["dataset"] in REAL and r["title"] == METHODS[r["config"]["method"]].title]
    if not kept:
        columns = ["data", "n_train", "encoder", "method", "seed", "accuracy", "profile", "setting"]
        return pd.DataFrame(columns=columns, dtype=object).astype({"accuracy": float})
    runs = runs_table(kept)
    runs["setting"] = runs[COMPARABLE].astype(str).agg(" ".join, axis=1)
    return runs.assign(n_train=runs.n_train.astype(str)).drop_duplicates(["setting", "method", "seed"])


def _fullest(runs: pd.DataFrame) -> str | None:
    """The setting with the most methods, then the most runs."""
    counts = runs.groupby("setting").agg(methods=("method", "nunique"), runs=("method", "size"))
    return counts.sort_values(["methods", "runs"], kind="stable").index[-1] if len(counts) else None


def side_by_side(frame: pd.DataFrame) -> pd.DataFrame:
    """A `beside` frame as people read it, by data set and size; the last two columns are differences to full DNM."""
    sizes = frame.n_train.map(lambda n: float("inf") if n == "all" else float(n))
    frame = frame.assign(place=pd.factorize(frame.dataset)[0], size=sizes).sort_values(["place", "size"], kind="stable")

    def number(value: float, error: float, sign: str = "") -> str:
        if np.isnan(value):
            return "–" if sign else "not run"
        return f"{value:{sign}.1f}" + ("" if np.isnan(error) else f" ± {error:.1f}")

    def column(value: str, error: str, sign: str = "") -> list[str]:
        return [number(v, e, sign) for v, e in zip(frame[value], frame[error], strict=True)]

    return pd.DataFrame({
        "data": frame.dataset, "n": frame.n_train, "method": frame.title,
        "paper (%)": column("paper", "paper_error"), "ours (%)": column("ours", "error"), "runs": frame.runs,
        "paper to DNM": column("paper_gap", "paper_gap_error", "+"), "ours to DNM": column("gap", "gap_error", "+")})


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
        mine = config.with_(method=method)
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
