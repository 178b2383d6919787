"""The paper's experiments: which runs make which table or figure, and the published numbers beside ours.

The 276 accuracies of Tables 2 to 11 lie in ``data/paper_results.csv``, under the names of our table of methods.
Taught in notebooks 04 and 05.
"""

from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from dnm.config import RunConfig
from dnm.errors import DnmError, project_root, unknown
from dnm.methods import METHODS
from dnm.plots import standard_error
from dnm.report import COMPARABLE, load_records, runs_table
from dnm.statistics import difference

SIZES = ("50", "200", "500", "1000", "2000", "all")
SCRATCH = "cnn or lstm"  # the paper does not say which of the two its rows without BERT used; we run both
# What each table is about: the tables, the sizes of each, and the rows of ours that the paper does not have.
DESIGNS = {"systems": ({2: SIZES, 3: SIZES, 4: SIZES, 5: SIZES}, (("logreg", "bert-base-uncased"), ("plain", SCRATCH))),
           "top-K": ({6: ("50",), 7: ("all",)}, ()), "policies": ({8: ("50",), 9: ("all",)}, ()),
           "parts": ({10: ("50",), 11: ("all",)}, (("dnm-random", "bert-base-uncased"),))}
PRETRAINED_ONLY = ("lr", "head_lr", "pooling", "dropout")  # settings that CNN and LSTM keep their own of
FIGURES = {"figure1": (), "figure2": ("subj", "sst1"), "figure3": ("subj",), "figure4": ("subj", "sst2")}
NAMES = (*(f"table{n}" for tables, _ in DESIGNS.values() for n in tables), *FIGURES)
BASELINES = ("plain", "wordmixup", "senmixup", "nonlinearmixup", "logreg")


@lru_cache(maxsize=1)
def published() -> pd.DataFrame:
    """The paper's accuracies in percent: table, dataset, method, encoder, n_train (text), accuracy, error."""
    path = project_root() / "data" / "paper_results.csv"
    if not path.exists():
        raise DnmError(f"the paper's numbers are not at {path}; run from a checkout, or set DNM_HOME to one")
    return pd.read_csv(path, dtype={"n_train": str})


def table_methods(table: int) -> list[str]:
    """Rows of the paper's Tables 6 to 11, as names of our table of methods."""
    if table not in (ablations := sorted(set(published().table) - set(DESIGNS["systems"][0]))):
        raise DnmError(f"table {table} is no ablation of the paper (known: {', '.join(map(str, ablations))})")
    found = set(published().query("table == @table").method)
    return [name for name in METHODS if name in found]


def place(dataset: str) -> int:
    """Where a data set stands in the paper; others behind."""
    known = list(dict.fromkeys(published().dataset))
    return known.index(dataset) if dataset in known else len(known)


def design_of(table: int) -> str:
    """What a table is about: a name of `DESIGNS`."""
    return next(design for design, (tables, _) in DESIGNS.items() if table in tables)


def table_rows(design: str, dataset: str, n_train: str) -> pd.DataFrame:
    """A table's rows for one data set and size, in the columns of `published`.

    Where the paper has no such row (our controls, other data, other sizes), ``accuracy`` is not a number and ``table``
    is that of the same design, or 0.
    """
    tables, ours = DESIGNS[design]
    every = published()[published().table.isin(tables)]
    theirs = every[(every.dataset == dataset) & (every.n_train == n_train)]
    number = int(theirs.table.iloc[0]) if len(theirs) else 0
    kinds = [*every[["method", "encoder"]].drop_duplicates().itertuples(index=False, name=None), *ours]
    kinds.sort(key=lambda kind: (kind[1] != SCRATCH, list(METHODS).index(kind[0])))
    frame = pd.DataFrame(kinds, columns=["method", "encoder"]).assign(dataset=dataset, n_train=n_train)
    frame = frame.merge(theirs.drop(columns="table"), how="left", on=["dataset", "method", "encoder", "n_train"])
    return frame.assign(table=number)[list(published().columns)]


def experiment(name: str, *, encoder: str = "minilm", profile: str = "quick", datasets: list[str] | None = None,
               sizes: list[str] | None = None, seeds: tuple[int, ...] = (0, 1, 2, 3, 4), **settings) -> list[RunConfig]:
    """The runs behind a table or figure (``table2`` … ``table11``, ``figure1`` … ``figure4``), seed by seed.

    ``datasets`` and ``sizes`` replace those of the paper's table, so that any of them can be had on other data;
    ``settings`` (of `RunConfig`) hold for all runs; rates, pooling and dropout for those of ``encoder`` only.
    """
    if name not in NAMES:
        raise unknown("table or figure", name, [*NAMES, "all"])
    common = dict(profile=profile, **settings)
    if name in FIGURES:
        methods = {"figure2": ("nonlinearmixup", "dnm"), "figure3": ("dnm",), "figure4": ("plain", "dnm")}.get(name, ())
        if name == "figure2":  # a curve wants more than one evaluation
            steps = RunConfig.create(encoder=encoder, **common).steps
            every = RunConfig.create(encoder=encoder, **common).eval_every
            common.setdefault("eval_every", max(1, min(every, steps // 10)))
        return [RunConfig.create(dataset=data, n_train=size, method=method, encoder=encoder, seed=seed, **common)
                for seed in (seeds if name == "figure2" else seeds[:1]) for data in datasets or FIGURES[name]
                for size in sizes or ["all"] for method in methods]
    if fixed := {"k", "alpha", "original_weight"} & set(settings):
        raise DnmError(f"the rows of {name} are defined by their {fixed.pop()}; train others with `dnm train`")
    number = int(name.removeprefix("table"))
    design = design_of(number)
    own = datasets or list(dict.fromkeys(published().query("table == @number").dataset))
    configs = []
    for seed in seeds:
        for data in own:
            for size in sizes or DESIGNS[design][0][number]:
                for row in table_rows(design, data, str(size)).itertuples():
                    scratch = row.encoder == SCRATCH
                    mine = {key: value for key, value in common.items() if key not in (
                        PRETRAINED_ONLY if scratch else () if encoder in ("cnn", "lstm") else ("word_vectors",))}
                    for which in ("cnn", "lstm") if scratch else (encoder,):
                        if row.method != "logreg" or which not in ("cnn", "lstm"):
                            configs.append(RunConfig.create(dataset=data, n_train=size, method=row.method, seed=seed,
                                                            encoder=which, **mine))
    return list({config.hash: config for config in configs}.values())


# ---------------------------------------------------------------- ours beside theirs

_BESIDE = ["table", "dataset", "n_train", "method", "title", "paper", "paper_error", "ours", "error", "runs",
           "encoder", "profile", "device", "to_dnm", "off", "gap", "gap_error", "paper_gap", "paper_gap_error",
           "to_plain", "to_best", "best"]


def beside(records: list[dict], rows: pd.DataFrame) -> pd.DataFrame:
    """The paper's ``rows`` (of `published` or `table_rows`) with ours beside them, a line for each encoder of ours.

    For each data set, size and encoder one setting of ours is taken, the one that has most of the rows (then most
    runs): ``ours`` and ``error`` are its mean and standard error in percent, ``off`` the distance to the paper's
    number, ``gap`` the difference to full DNM with the same seeds and ``gap_error`` its standard error; not a number
    where we have no run. ``paper_gap`` takes the paper's errors as independent. ``to_dnm``, ``to_plain`` and, for DNM,
    ``to_best`` are paired differences (`dnm.statistics.Difference`); ``best`` is the baseline with the highest mean.
    """
    runs, lines = comparable_runs(records), []
    for row in rows.itertuples():
        here = runs[(runs.dataset == row.dataset) & (runs.n_train == row.n_train)]
        peers = rows[(rows.dataset == row.dataset) & (rows.n_train == row.n_train) & (rows.encoder == row.encoder)]
        scratch = row.encoder == SCRATCH
        own = [e for e in ("cnn", "lstm") if e in set(here.encoder)] or [""] if scratch else [None]
        for encoder in own:
            mine = here[here.encoder == encoder] if scratch else here[~here.encoder.isin(["cnn", "lstm"])]
            wanted = mine[mine.method.isin(peers.method)]
            chosen = wanted[wanted.setting == _fullest(wanted)]
            by_seed = {m: found.set_index("seed").accuracy for m, found in chosen.groupby("method")}
            lines.append(_line(row, peers, chosen, by_seed))
    return pd.DataFrame(lines, columns=_BESIDE)


def _line(row, peers: pd.DataFrame, chosen: pd.DataFrame, by_seed: dict[str, pd.Series]) -> dict:
    nothing = pd.Series(dtype=float)
    mine, full, plain = (by_seed.get(method, nothing) for method in (row.method, "dnm", "plain"))
    gap, theirs = (mine - full).dropna(), peers[peers.method == "dnm"].head(1)
    rivals = {m: s.mean() for m, s in by_seed.items() if m in BASELINES and m != row.method}
    best = max(rivals, key=rivals.get, default="")
    line = {
        "table": row.table, "dataset": row.dataset, "n_train": row.n_train, "method": row.method,
        "title": METHODS[row.method].title, "paper": row.accuracy, "paper_error": row.error,
        "ours": mine.mean(), "error": standard_error(mine.to_numpy()), "runs": len(mine),
        **{name: chosen[name].iloc[0] if len(mine) else "" for name in ("encoder", "profile")},
        "device": f"{chosen.device.iloc[0]}, {chosen.precision.iloc[0]}" if len(mine) else "",
        "off": mine.mean() - row.accuracy, "gap": gap.mean(), "gap_error": standard_error(gap.to_numpy()),
        "paper_gap": (row.accuracy - theirs.accuracy).mean(),
        "paper_gap_error": np.hypot(row.error, theirs.error).mean(),
        "to_dnm": difference([gap] if row.method != "dnm" else []),
        "to_plain": difference([(mine - plain).dropna()] if row.method != "plain" else []),
        "to_best": difference([(mine - by_seed[best]).dropna()] if best and row.method == "dnm" else []), "best": best}
    return line | ({"gap_error": np.nan, "paper_gap_error": np.nan} if row.method == "dnm" else {})


def comparable_runs(records: list[dict]) -> pd.DataFrame:
    """A row a run, methods with their usual settings only; ``dataset`` is a name or the path of a file of one's own."""
    kept = [r for r in records if r["title"] == METHODS[r["config"]["method"]].title]
    if not kept:
        columns = ["dataset", "n_train", "encoder", "method", "seed", "accuracy", "profile", "setting"]
        return pd.DataFrame(columns=columns, dtype=object).astype({"accuracy": float})
    runs = runs_table(kept).assign(dataset=[r["config"]["dataset"] for r in kept])
    versions = runs.groupby(["dataset", "fingerprint"]).size().sort_values(kind="stable").reset_index()
    fullest = versions.drop_duplicates("dataset", keep="last")  # the one with the most runs: never two versions
    runs = runs.merge(fullest[["dataset", "fingerprint"]])
    runs["setting"] = runs[COMPARABLE].astype(str).agg(" ".join, axis=1)
    return runs.assign(n_train=runs.n_train.astype(str)).drop_duplicates(["dataset", "setting", "method", "seed"])


def _fullest(runs: pd.DataFrame) -> str | None:
    """The setting with the most methods, then the most runs."""
    counts = runs.groupby("setting").agg(methods=("method", "nunique"), runs=("method", "size"))
    return counts.sort_values(["methods", "runs"], kind="stable").index[-1] if len(counts) else None


def number(value: float, error: float, sign: str = "", missing: str = "–") -> str:
    """``87.5 ± 1.0``."""
    if np.isnan(value):
        return missing
    return f"{value:{sign}.1f}" + ("" if np.isnan(error) else f" ± {error:.1f}")


def side_by_side(frame: pd.DataFrame) -> pd.DataFrame:
    """A `beside` frame as people read it, by data set and size; the last two columns are differences to full DNM."""
    sizes = frame.n_train.map(lambda n: float("inf") if n == "all" else float(n))
    frame = frame.assign(place=pd.factorize(frame.dataset)[0], size=sizes).sort_values(["place", "size"], kind="stable")

    def column(value: str, error: str, sign: str = "", missing: str = "–") -> list[str]:
        return [number(v, e, sign, missing) for v, e in zip(frame[value], frame[error], strict=True)]

    return pd.DataFrame({
        "data": [Path(name).stem for name in frame.dataset], "n": frame.n_train, "method": frame.title,
        "paper (%)": column("paper", "paper_error"), "ours (%)": column("ours", "error", missing="not run"),
        "runs": frame.runs, "paper to DNM": column("paper_gap", "paper_gap_error", "+"),
        "ours to DNM": column("gap", "gap_error", "+")})


def kept_records() -> list[dict]:
    """The runs that are kept in ``data/results/``, each once."""
    return load_records(project_root() / "data" / "results")
