"""Tables of runs: mean ± standard error with the number of runs, as a data frame, CSV and Markdown."""

import re
from pathlib import Path

import numpy as np
import pandas as pd

from dnm.data.datasets import Split
from dnm.disk import write_atomically
from dnm.methods import METHODS
from dnm.plots import charts, plain
from dnm.plots.look import by_title, numbers, standard_error
from dnm.plots.page import save
from dnm.runs.results import COMPARABLE
from dnm.study.statistics import by_seed, paired

_UNSEEN = ("fingerprint", "weights")  # they keep runs apart, but are nothing to read


def summary(runs: pd.DataFrame) -> pd.DataFrame:
    """A row a method and setting (of `COMPARABLE`): mean, standard error, runs, difference to plain, paired by seed."""
    rows, plain = [], METHODS["plain"].title
    for setting, group in runs.groupby(COMPARABLE, sort=False):
        seeds = by_seed(group, "title")
        for title, mine in by_title(group.drop_duplicates(["title", "seed"])):
            gap = paired(seeds, (1, title), (-1, plain)).to_numpy() if title != plain else np.array([np.nan])
            rows.append({**dict(zip(COMPARABLE, setting, strict=True)), "method": mine.method.iloc[0], "title": title,
                         "runs": len(mine), "accuracy": mine.accuracy.mean(), "error": standard_error(mine.accuracy),
                         "last_accuracy": mine.last_accuracy.mean(), "to_plain": gap.mean() if len(gap) else np.nan,
                         "to_plain_error": standard_error(gap), "ceiling": mine.ceiling.iloc[0],
                         "seconds_a_run": mine.seconds.mean()})
    return pd.DataFrame(rows)


def caption(table: pd.DataFrame) -> str:
    """What all rows of a `summary` share: data, size, encoder, profile, device, precision."""
    shared = [f"{name} {table[name].iloc[0]}" for name in COMPARABLE
              if table[name].nunique() == 1 and name not in _UNSEEN]
    if table.ceiling.nunique() == 1:
        shared.append(f"best possible accuracy {table.ceiling.iloc[0]:.1f}%")
    return "; ".join(shared).replace("n_train", "n =")


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """A `summary` with the columns and signs people read; what all rows share is left to the `caption`."""
    varied = [name for name in COMPARABLE if table[name].nunique() > 1 and name not in _UNSEEN]
    shown = table[varied].rename(columns={"n_train": "n"}).assign(**{
        "method": table.title, "accuracy (%)": numbers(table.accuracy, table.error),
        "to plain": numbers(table.to_plain, table.to_plain_error, sign="+"),
        "last step (%)": numbers(table.last_accuracy), "runs": table.runs,
        "seconds a run": numbers(table.seconds_a_run, digits=0)})
    return shown if table.to_plain.notna().any() else shown.drop(columns="to plain")


def markdown(frame: pd.DataFrame) -> str:
    """A data frame as a Markdown table."""
    rows = [frame.columns, ["---"] * len(frame.columns), *frame.itertuples(index=False)]
    return "".join("| " + " | ".join(map(plain.markdown, row)) + " |\n" for row in rows)


def mistakes(runs: pd.DataFrame, test: Split, rows: int = 10) -> pd.DataFrame:
    """The test sentences that most of the runs got wrong, with the class most of them gave."""
    predictions, names = np.array(runs.predictions.tolist()), runs["labels"].iloc[0]
    missed = predictions != test.labels
    wrong = missed.mean(axis=0)
    found = [i for i in np.argsort(-wrong, kind="stable")[:rows] if wrong[i]]
    given = [np.bincount(predictions[missed[:, i], i]).argmax() for i in found]
    table = pd.DataFrame({
        "sentence": [test.texts[i] for i in found], "true class": [names[test.labels[i]] for i in found],
        "given": [names[i] for i in given], "runs that got it wrong": [f"{share:.0%}" for share in wrong[found]]})
    if test.probabilities is not None:
        table["p(true class)"] = [f"{test.probabilities[i, test.labels[i]]:.2f}" for i in found]
    return table


def write_tables(runs: pd.DataFrame, folder: Path) -> list[Path]:
    """``results.csv`` (a row a method), ``runs.csv`` (a row a run) and ``results.md`` in ``folder``."""
    table, kept = summary(runs), runs.drop(columns=["dataset", "usual", "labels", "history", "predictions"])
    return write_files(folder, {"results.csv": table.to_csv(index=False), "runs.csv": kept.to_csv(index=False),
                                "results.md": f"{plain.markdown(caption(table))}\n\n{markdown(readable(table))}"})


def write_files(folder: Path, files: dict[str, str]) -> list[Path]:
    """Texts by file name, each written whole or not at all."""
    for name, text in files.items():
        write_atomically(folder / name, text.encode())
    return [folder / name for name in files]


def write_figures(runs: pd.DataFrame, folder: Path) -> list[Path]:
    """Learning curves and accuracies of every setting in the runs, as HTML and PNG."""
    paths, seen = [], set()
    for place, (_, mine) in enumerate(runs.groupby(COMPARABLE, sort=False)):
        first = mine.iloc[0]
        name = "-".join(re.sub(r"[^\w.=]+", "_", str(part).rsplit("/", 1)[-1]).strip("_")
                        for part in (first["data"], first.n_train, first.encoder, first.profile))
        name += f"-{place}" if name in seen else ""
        seen.add(name)
        paths += save(charts.accuracies(mine), folder / f"accuracy-{name}")
        if any(history[0]["step"] for history in mine.history):
            paths += save(charts.learning_curves(mine), folder / f"learning-curves-{name}")
    return paths
