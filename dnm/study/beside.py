"""Ours beside the paper's, row by row, and which runs may be compared. Taught in notebooks 00, 04 and 05."""

import re
from pathlib import Path

import numpy as np
import pandas as pd

from dnm.config import FROZEN
from dnm.config import SCRATCH as FROM_SCRATCH
from dnm.errors import project_root
from dnm.methods import METHODS
from dnm.plots.look import numbers, standard_error
from dnm.runs.results import COMPARABLE, load
from dnm.study.experiments import BASELINES, SCRATCH, size
from dnm.study.statistics import by_seed, difference, paired

WRONG = "wrong_labels="
APART = WRONG, FROZEN  # in the words of labels: runs that are no repetition of the paper's, the least like it first
SETTING = ["encoder", "weights", "profile", "device", "precision"]
_COLUMNS = ["table", "dataset", "n_train", "method", "title", "paper", "paper_error", "ours", "error", "runs",
            "encoder", "profile", "device", "off", "gap", "gap_error", "paper_gap", "paper_gap_error",
            "to_plain", "to_best", "to_dnm", "best"]


def kept_runs() -> pd.DataFrame:
    """The runs that are kept in ``data/results/``, each once."""
    return load(project_root() / "data" / "results")


def marked(runs: pd.DataFrame, mark: str) -> pd.Series:
    """Which of the runs have one of `APART` in the label of their settings."""
    return runs.profile.astype(str).str.contains(mark, regex=False)


def comparable_runs(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs with their method's usual settings, each once, of one version of each data set; ``n_train`` as text."""
    runs = runs[runs.usual.astype(bool)]
    for mark in APART:  # left out where there are others
        runs = runs if (apart := marked(runs, mark)).all() else runs[~apart]
    versions = runs.groupby(["dataset", "fingerprint"]).size().sort_values(kind="stable").reset_index()
    runs = runs.merge(versions.drop_duplicates("dataset", keep="last")[["dataset", "fingerprint"]])  # most of its runs
    # ``setting`` tells apart what may not be averaged.
    runs["setting"] = [" ".join(map(str, setting)) for setting in runs[COMPARABLE].itertuples(index=False)]
    return runs.assign(n_train=runs.n_train.astype(str)).drop_duplicates(["dataset", "setting", "method", "seed"])


def fullest(runs: pd.DataFrame, n_train: str) -> tuple[tuple, pd.DataFrame]:
    """The pre-trained encoder's setting (of `SETTING`) that has most `comparable_runs` of a size, and all its runs."""
    runs = runs[~runs.encoder.isin(FROM_SCRATCH)]
    counts = runs[runs.n_train == n_train].groupby(SETTING).size()
    setting = counts.idxmax() if len(counts) else ()
    return setting, runs.loc[[row == setting for row in runs[SETTING].itertuples(index=False, name=None)]]


def beside(runs: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """The paper's ``rows`` (of `published` or `table_rows`) with ours beside them, a line for each encoder of ours.

    For each data set, size and encoder one setting of ours is taken, the one that has most of the rows (then most
    runs); all is in percent, and not a number where we have no run. ``gap`` is the difference to full DNM with the same
    seeds; ``paper_gap`` takes the paper's errors as independent. ``best`` is the baseline with the highest mean.
    """
    runs, lines = comparable_runs(runs), []
    for row in rows.itertuples():
        peers = rows[(rows.dataset == row.dataset) & (rows.n_train == row.n_train) & (rows.encoder == row.encoder)]
        here = runs[(runs.dataset == row.dataset) & (runs.n_train == row.n_train)]
        here = here[here.encoder.isin(FROM_SCRATCH) == (row.encoder == SCRATCH)]
        each = here.groupby(["encoder", "weights"]) if row.encoder == SCRATCH and len(here) else [("", here)]
        for _, mine in each:
            wanted = mine[mine.method.isin(peers.method)]
            counts = wanted.groupby("setting").agg(methods=("method", "nunique"), runs=("method", "size"))
            fullest = counts.sort_values(["methods", "runs"], kind="stable").index[-1:]
            lines.append(_line(row, peers, wanted[wanted.setting.isin(fullest)]))
    lines = pd.DataFrame(lines, columns=_COLUMNS)
    return lines[(lines.runs > 0) | ~lines.duplicated(["table", "dataset", "n_train", "method", "paper", "runs"])]


def _line(row, peers: pd.DataFrame, chosen: pd.DataFrame) -> dict:
    seeds, theirs, dnm = by_seed(chosen, "method"), peers[peers.method == "dnm"].head(1), row.method == "dnm"
    rivals = {method: seeds[method].mean() for method in seeds if method in BASELINES and method != row.method}
    best = max(rivals, key=rivals.get, default="")
    gaps = {other: paired(seeds, (1, row.method), (-1, other)) for other in ("dnm", "plain", best if dnm else "")}
    to = {other: difference([gap] if other != row.method else []) for other, gap in gaps.items()}
    mine, gap = paired(seeds, (1, row.method)), gaps["dnm"]
    first = chosen.iloc[0] if len(mine) else dict.fromkeys(("encoder", "profile", "device", "precision"), "")
    vectors = re.search(r"word_vectors=([^,)]+)", first["profile"])  # files of one name may differ
    vectors = vectors and (vectors[1] if vectors[1] == "glove" else f"{vectors[1]} {first['weights'][:4]}")
    return {
        "table": row.table, "dataset": row.dataset, "n_train": row.n_train, "method": row.method,
        "title": METHODS[row.method].title, "paper": row.accuracy, "paper_error": row.error,
        "ours": mine.mean(), "error": standard_error(mine), "runs": len(mine),
        "encoder": first["encoder"] + (f" + {vectors}" if vectors else ""),
        "profile": first["profile"], "device": f"{first['device']}, {first['precision']}".strip(", "),
        "off": mine.mean() - row.accuracy, "gap": gap.mean(), "gap_error": np.nan if dnm else standard_error(gap),
        "paper_gap": (row.accuracy - theirs.accuracy).mean(),
        "paper_gap_error": np.nan if dnm else np.hypot(row.error, theirs.error).mean(),
        "to_dnm": to["dnm"], "to_plain": to["plain"], "to_best": to[best if dnm else ""], "best": best}


def side_by_side(frame: pd.DataFrame) -> pd.DataFrame:
    """A `beside` frame as people read it, by data set and size; the last two columns are differences to full DNM."""
    order = dict(place=pd.factorize(frame.dataset)[0], size=frame.n_train.map(size))
    frame = frame.assign(**order).sort_values(["place", "size"], kind="stable")
    return pd.DataFrame({
        "data": [Path(name).stem for name in frame.dataset], "n": frame.n_train, "method": frame.title,
        "paper (%)": numbers(frame.paper, frame.paper_error),
        "ours (%)": numbers(frame.ours, frame.error, missing="not run"), "runs": frame.runs,
        "paper to DNM": numbers(frame.paper_gap, frame.paper_gap_error, sign="+"),
        "ours to DNM": numbers(frame.gap, frame.gap_error, sign="+")})
