"""What the paper claims, put to the test with runs of our own. Taught in notebook 05."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from dnm.paper import comparable_runs, place, published
from dnm.statistics import Difference, difference, holm

SIGNIFICANT = 0.05
SETTING = ["encoder", "weights", "profile", "device", "precision"]


@dataclass(frozen=True)
class Part:
    """One inequality: the sum of ``terms``, accuracies with their signs, is said to be positive."""

    text: str
    terms: tuple[tuple[int, str, str], ...]  # sign, method, training sentences


def _beats(better: str, worse: Iterable[str], n: str = "50") -> tuple[Part, ...]:
    return tuple(Part(f"{better} > {other}, n = {n}", ((1, better, n), (-1, other, n))) for other in worse)


MIXUPS = ("wordmixup", "senmixup", "nonlinearmixup")
CLAIMS: dict[str, tuple[Part, ...]] = {
    "More data helps": tuple(Part(f"{m}: n = all > n = 50", ((1, m, "all"), (-1, m, "50"))) for m in ("plain", "dnm")),
    "Mixup beats plain fine-tuning": tuple(part for m in MIXUPS for part in _beats(m, ["plain"])),
    "DNM beats every other mixup": _beats("dnm", MIXUPS),
    "DNM beats plain fine-tuning": _beats("dnm", ["plain"]),
    "DNM's gain is larger with 50 labels than with all": (
        Part("(dnm − nonlinearmixup) at n = 50 > at n = all", (
            (1, "dnm", "50"), (-1, "nonlinearmixup", "50"), (-1, "dnm", "all"), (1, "nonlinearmixup", "all"))),),
    "K = 5 is the best K": _beats("dnm", [f"dnm-k{k}" for k in (1, 3, 7, 9)]),
    "Both mixing policies have to be learned": _beats("dnm", ["dnm-fiw", "dnm-fow"]),
    "Farthest partners (LDS) matter more than nearest (SDS)": _beats("dnm-no-sds", ["dnm-no-lds"]),
    "Selecting by distance (DSS) helps": _beats("dnm", ["dnm-no-dss"]),
    "Dynamic nonlinear mixing (DNM) helps": _beats("dnm", ["dnm-no-dnm"]),
    "Ours: selected partners beat as many random ones": _beats("dnm", ["dnm-random"]),
}


def verdicts(records: list[dict]) -> pd.DataFrame:
    """A row for each part of each claim, from the runs of the pre-trained encoder's setting that has the most of them.

    Differences are paired by seed within each data set and averaged over data sets; ``p`` is corrected over all parts.
    ``verdict`` is *holds* or *does not hold* where p < 0.05 for or against it, else *cannot be told* (``seeds`` a data
    set would be needed, if the difference is as large as it looks) or *not run*. A claim holds if all its parts do and
    does not hold if one of them does not (``claim_verdict``).
    """
    runs = comparable_runs(records)
    runs = runs[~runs.encoder.isin(["cnn", "lstm"])]
    setting = runs.groupby(SETTING).size().idxmax() if len(runs) else ()
    if len(runs):
        runs = runs[(runs[SETTING].astype(str) == np.array(setting, dtype=str)).all(axis=1)]
    cells = {key: found.set_index("seed").accuracy for key, found in runs.groupby(["dataset", "method", "n_train"])}
    rows = []
    for claim, parts in CLAIMS.items():
        for part in parts:
            found = {data: _paired(cells, data, part) for data in sorted(set(runs.dataset), key=place)}
            most = max(map(len, found.values()), default=0)  # one seed tells nothing of chance: see `difference`
            found = {data: values for data, values in found.items() if len(values) > (most > 1)}
            rows.append({"claim": claim, "part": part.text, "data": " ".join(found), "ours": difference(found.values()),
                         "paper": _paper(part, found), "seeds": min(map(len, found.values()), default=0)})
    table = pd.DataFrame(rows)
    table["p"] = holm(d.p for d in table.ours)
    table["verdict"] = [_verdict(d, p) for d, p in zip(table.ours, table.p, strict=True)]
    table["claim_verdict"] = table.groupby("claim").verdict.transform(_together)
    table["seeds_needed"] = [d.seeds_needed(int(table.p.notna().sum())) for d in table.ours]
    return table.assign(setting=", ".join(map(str, (*setting[:1], *setting[2:]))))


def _paired(cells: dict, data: str, part: Part) -> np.ndarray:
    """Sums of the part's terms ``[seeds]``, over the seeds that have them all."""
    series = [sign * cells.get((data, method, n), pd.Series(dtype=float)) for sign, method, n in part.terms]
    return pd.concat(series, axis=1).dropna().sum(axis=1).to_numpy() if all(map(len, series)) else np.array([])


def _paper(part: Part, data: Iterable[str]) -> float:
    """The same sum of published numbers, averaged over the data sets of ours that the paper has (all, if none)."""
    theirs = published()[published().encoder != "cnn or lstm"].drop_duplicates(["dataset", "method", "n_train"])
    cells = theirs.set_index(["dataset", "method", "n_train"]).accuracy
    known = [d for d in dict.fromkeys(theirs.dataset) if all((d, m, n) in cells.index for _, m, n in part.terms)]
    sums = [sum(sign * cells[d, m, n] for sign, m, n in part.terms) for d in [d for d in known if d in data] or known]
    return float(np.mean(sums)) if sums else np.nan


def _verdict(ours: Difference, p: float) -> str:
    if not ours.pairs:
        return "not run"
    if np.isnan(p) or p >= SIGNIFICANT:
        return "cannot be told"
    return "holds" if ours.mean > 0 else "does not hold"


def _together(parts: pd.Series) -> str:
    found = set(parts)
    if "does not hold" in found:
        return "does not hold"
    return found.pop() if len(found) == 1 else "cannot be told"


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """A `verdicts` table as people read it, a row a part; the claim's name and verdict stand in its first row."""
    first = ~table.claim.duplicated()

    def needed(seeds: float, verdict: str) -> str:
        if verdict != "cannot be told" or np.isnan(seeds):
            return ""
        return "> 1000" if np.isinf(seeds) else f"{seeds:.0f}"

    return pd.DataFrame({
        "claim": table.claim.where(first, ""), "verdict on the claim": table.claim_verdict.where(first, ""),
        "what is compared": table.part, "data sets": table.data, "seeds": table.seeds,
        "paper": [f"{value:+.1f}" if not np.isnan(value) else "–" for value in table.paper],
        "ours [95% interval]": [ours.text() for ours in table.ours],
        "p (Holm)": ["–" if np.isnan(p) else f"{p:.3f}" for p in table.p], "verdict": table.verdict,
        "seeds needed": [needed(*pair) for pair in zip(table.seeds_needed, table.verdict, strict=True)]})
