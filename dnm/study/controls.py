"""Every system beside three controls: plain, label embeddings without mixing, DNM. Taught in notebooks 00, 01, 05."""

from pathlib import Path

import pandas as pd

from dnm.methods import METHODS
from dnm.plots.look import number, numbers, standard_error
from dnm.study.beside import comparable_runs, fullest
from dnm.study.experiments import place
from dnm.study.statistics import by_seed, difference, holm, paired

CONTROLS = ("plain", "label-embedding", "dnm")
SYSTEMS = [name for name, row in METHODS.items() if row.fine_tunes and not name.startswith("dnm-")]


def beside_controls(runs: pd.DataFrame, n_train: str = "50") -> pd.DataFrame:
    """A row a system: its accuracies by data set, ``to_*`` its differences to each control, ``p_*`` after Holm's test.

    From the pre-trained encoder's setting that has most runs. Differences are paired by seed within each data set and
    averaged over the data sets that both have; the correction is over the whole table.
    """
    runs = comparable_runs(runs)
    setting, runs = fullest(runs[(runs.n_train == n_train) & runs.method.isin([*SYSTEMS, "logreg"])], n_train)
    if not len(runs):
        return pd.DataFrame()
    table, rows = by_seed(runs, "method", rows=("dataset", "seed")), []
    for name in filter(set(runs.method).__contains__, METHODS):
        found = {data: mine.to_numpy() for data, mine in table[name].dropna().groupby(level=0)}
        gaps = {control: paired(table, (1, name), (-1, control)) if control != name else [] for control in CONTROLS}
        rows.append({"method": name, "title": METHODS[name].title, "seeds": {at: len(v) for at, v in found.items()}} | {
            data: (found[data].mean(), standard_error(found[data])) for data in sorted(found, key=place)} | {
            f"to_{control}": difference([values.to_numpy() for _, values in gap.groupby(level=0)] if len(gap) else [])
            for control, gap in gaps.items()})
    frame, columns = pd.DataFrame(rows), [f"to_{control}" for control in CONTROLS]
    p = frame[columns].map(lambda found: found.p).to_numpy()
    frame[[f"p_{control}" for control in CONTROLS]] = holm(p.ravel()).reshape(p.shape)
    return frame.assign(setting=", ".join(map(str, (*setting[:1], *setting[2:]))))


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """A `beside_controls` table as people read it."""
    data = [name for name in table if any(isinstance(cell, tuple) for cell in table[name])]
    seeds = [f"{min(n.values())} to {max(n.values())}" if len({*n.values()}) > 1 else f"{max(n.values())}"
             for n in table.seeds]
    out = {"system": table.title, "seeds": seeds} | {
        Path(name).stem: [number(*cell) if isinstance(cell, tuple) else "–" for cell in table[name]] for name in data}
    for control in CONTROLS:
        out[f"to {METHODS[control].title}"] = [found.text() for found in table[f"to_{control}"]]
        out[f"p ({control})"] = numbers(table[f"p_{control}"], digits=3)
    return pd.DataFrame(out)


def finding(runs: pd.DataFrame) -> str:
    """What runs say of DNM and of its label embeddings without mixing, beside plain fine-tuning, in a few words."""
    table = beside_controls(runs)
    if not len(table) or not {*CONTROLS} <= {*table.method}:
        return ""
    rows = table.set_index("method")
    dnm, alone, rest = rows.to_plain["dnm"], rows.to_plain["label-embedding"], rows["to_label-embedding"]["dnm"]
    return (f"50 labels, {dnm.groups} data sets, {dnm.pairs} pairs of runs ({table.setting.iloc[0]}): DNM beside "
            f"plain fine-tuning {dnm.text()} points; its label embeddings without any mixing {alone.text()}; "
            f"DNM beside these {rest.text()}.")


# The words of the table of methods, as a sentence would have them.
_DOOR = {"none": "nowhere", "token": "word pieces", "word": "word embeddings", "layer": "a layer's states",
         "sentence": "hidden states", "eda": "texts", "translation": "texts"}
_WHOM = {"none": "nobody", "permutation": "a random one", "one": "a random one", "batch": "all of the batch",
         "both": "K nearest, K farthest", "beyond": "a random one of the distant",
         "saliency": "the most and the least alike of the other half", "eda": "itself, words changed",
         "translation": "itself, translated and back"}
_HOW = {"none": "", "scalar": "one λ", "half": "λ = ½", "matrix": "a λ for each place and dimension",
        "vector": "learned, one a dimension", "simplex": "weights near 1/N", "dirichlet": "weights ~ Dirichlet",
        "span": "a span replaced", "distance": "distance × a learned factor"}
_LABELS = {"none": "its own", "scalar": "as the inputs", "pair": "as the inputs", "simplex": "as the inputs",
           "encoding": "learned, from the mixture", "policy": "learned, from both sentences"}


def systems() -> pd.DataFrame:
    """The systems of the study, as the table of methods has them, in words; by the door where they mix."""
    rows = [METHODS[name] for name in SYSTEMS]
    order = ["texts", "word pieces", "word embeddings", "a layer's states", "hidden states", "nowhere"]
    table = pd.DataFrame({
        "system": [row.title for row in rows], "from": [row.source for row in rows],
        "mixes": [_DOOR[row.augment or row.level] for row in rows],
        "with": [_WHOM[row.augment or row.partners] for row in rows], "how": [_HOW[row.inputs] for row in rows],
        "labels": [_LABELS[row.labels] for row in rows], "loss": [row.loss for row in rows]})
    return table.sort_values("mixes", key=lambda doors: doors.map(order.index), kind="stable", ignore_index=True)
