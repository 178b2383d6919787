"""What the paper claims, put to the test with runs of our own. Taught in notebook 05."""

import numpy as np
import pandas as pd

from dnm.config import SCRATCH as FROM_SCRATCH
from dnm.methods import METHODS
from dnm.plots.look import numbers
from dnm.study.beside import SETTING, comparable_runs, fullest
from dnm.study.experiments import SCRATCH, SIZES, place, published
from dnm.study.statistics import by_seed, difference, holm, paired, seeds_needed

SIGNIFICANT, SMALL = 0.05, "50"  # the size that most claims are about
Terms = tuple[tuple[int, tuple[str, str]], ...]  # signs, each with a method and a number of training sentences

# Methods in plain words, where their titles are abbreviations.
WORDS = {name: row.title for name, row in METHODS.items()} | {
    "dnm-no-sds": "DNM, farthest only", "dnm-no-lds": "DNM, nearest only", "dnm-no-dss": "DNM, one random partner",
    "dnm-no-dnm": "DNM, linear mixing", "dnm-fiw": "DNM, input weights fixed", "dnm-fow": "DNM, label weights fixed"}


def _beats(better: str, *worse: str, n: str = SMALL) -> dict[str, Terms]:
    return {f"{WORDS[better]} > {WORDS[other]} (n = {n})": ((1, (better, n)), (-1, (other, n))) for other in worse}


# Each claim's parts: inequalities, each a sum of accuracies that is said to be positive.
CLAIMS: dict[str, dict[str, Terms]] = {
    "More data helps": {f"{WORDS[method]}: n = all > n = 50": ((1, (method, "all")), (-1, (method, "50")))
                        for method in ("plain", "dnm")},
    "Mixup beats plain fine-tuning":
        _beats("wordmixup", "plain") | _beats("senmixup", "plain") | _beats("nonlinearmixup", "plain"),
    "DNM beats every other mixup": _beats("dnm", "wordmixup", "senmixup", "nonlinearmixup"),
    "DNM beats plain fine-tuning": _beats("dnm", "plain"),
    "DNM's gain is larger with 50 labels than with all": {"DNM − NonlinearMixup: n = 50 > n = all": (
        (1, ("dnm", "50")), (-1, ("nonlinearmixup", "50")), (-1, ("dnm", "all")), (1, ("nonlinearmixup", "all")))},
    "K = 5 is the best K": _beats("dnm", "dnm-k1", "dnm-k3", "dnm-k7", "dnm-k9"),
    "Both mixing policies have to be learned": _beats("dnm", "dnm-fiw", "dnm-fow"),
    "Farthest partners matter more than nearest": _beats("dnm-no-sds", "dnm-no-lds"),
    "Selecting partners by distance helps": _beats("dnm", "dnm-no-dss"),
    "Mixing nonlinearly helps": _beats("dnm", "dnm-no-dnm"),
    "Ours: selected partners beat as many random ones": _beats("dnm", "dnm-random"),
    "Ours: it is the mixing, not the label embeddings alone": _beats("dnm", "label-embedding"),
    "Ours: label embeddings alone beat plain fine-tuning": _beats("label-embedding", "plain"),
    "Ours: a loss on the unmixed sentences helps DNM": {"DNM, originals weighted 0.25 > DNM (n = 50)": (
        (1, ("DNM (original_weight=0.25)", "50")), (-1, ("dnm", "50")))},  # the paper's future work
}


def _of_size(n: str) -> dict[str, dict[str, Terms]]:
    """The claims that speak of one size, said of another than the paper's 50."""
    if n == SMALL:
        return CLAIMS
    return {claim: kept for claim, parts in CLAIMS.items() if (kept := {
        part.replace(f"n = {SMALL}", f"n = {n}"): tuple((sign, (who, n)) for sign, (who, _) in terms)
        for part, terms in parts.items() if {of for _, (_, of) in terms} == {SMALL}})}


def by_size(runs: pd.DataFrame) -> pd.DataFrame:
    """The `verdicts` of the paper's sizes, p corrected within each; of others than 50 only claims that have runs."""
    table = pd.concat([verdicts(runs, n) for n in SIZES])
    return table[(table.claim_verdict != "not run") | (table.n_train == SMALL)].reset_index(drop=True)


def ahead(runs: pd.DataFrame) -> pd.DataFrame:
    """The comparisons of two or more sizes and settings with the same data sets, as `verdicts`, not corrected.

    ``pair`` names the comparison, ``where`` the number of labels and of steps; of settings that share these the one
    with most data sets, then runs, counts.
    """
    runs, tables = comparable_runs(runs), {}
    for n, some in ((n, runs[(runs.n_train == n) & ~runs.encoder.isin(FROM_SCRATCH)]) for n in SIZES):
        settings = (mine for _, mine in some.groupby(SETTING))
        for mine in sorted(settings, key=lambda mine: (-mine.dataset.nunique(), -len(mine))):
            steps = max((history[-1]["step"] for history in mine.history if history), default=0)
            tables.setdefault((SIZES.index(n), steps), (mine, n))
    found = pd.concat([verdicts(*tables[key]).assign(where=f"{tables[key][1]} labels, {key[1]} steps")
                       for key in sorted(tables)] or [verdicts(runs).assign(where="")], ignore_index=True)
    found = found[found.verdict != "not run"].assign(pair=found.part.str.replace(r" \(n = .*", "", regex=True))
    counts = found.groupby(["pair", "data"])["where"].transform("nunique")
    most = counts == counts.groupby(found.pair).transform("max")  # the data sets that most of them have
    return found[most & (counts > 1)]


def ahead_readable(found: pd.DataFrame) -> pd.DataFrame:
    """An `ahead` table as people read it: a row a comparison, a column for what was trained."""
    found = found.assign(text=[f"{ours.text()}, {ours.pairs} pairs" for ours in found.ours])
    wide = found.rename(columns={"pair": "comparison", "data": "data sets"}).pivot_table(
        index=["comparison", "data sets"], columns="where", values="text", aggfunc="first", sort=False)
    return wide[list(dict.fromkeys(found["where"]))].fillna("–").reset_index().rename_axis(None, axis=1)


def verdicts(runs: pd.DataFrame, n: str = SMALL) -> pd.DataFrame:
    """A row for each part of each claim of ``n`` labels, from the pre-trained encoder's setting with most such runs.

    A part over two sizes is from the setting that can tell most pairs of it; ``setting`` then names that, too.
    Differences are paired by seed within each data set and averaged over data sets; ``p`` is corrected over all parts.
    ``paper`` is the same sum of published numbers, averaged over the data sets of ours that the paper has (all, if
    none); ``each`` has our means by data set. What makes a verdict is said in `dnm.study.report.CLAIMS_LEGEND`.
    """
    runs = runs.assign(method=runs.method.where(runs.usual.astype(bool), runs.title), usual=True)  # known by title
    runs = runs[runs.method.isin({who for parts in CLAIMS.values() for part in parts.values() for _, (who, _) in part})]
    runs, theirs = comparable_runs(runs), published()[published().encoder != SCRATCH]
    usual, few = fullest(runs, n)
    settings = [(usual, few), *runs[~runs.encoder.isin(FROM_SCRATCH)].groupby(SETTING)]
    ours = {at: by_seed(mine, "method", "n_train", rows=("dataset", "seed")) for at, mine in settings}
    theirs = by_seed(theirs, "method", "n_train", rows=("dataset",)).sort_index(key=lambda names: names.map(place))
    rows = []
    for claim, part, terms in ((claim, *part) for claim, parts in _of_size(n).items() for part in parts.items()):
        gaps = {at: paired(ours[at], *terms) for at in ([usual] if len({k for _, (_, k) in terms}) == 1 else ours)}
        at = max(gaps, key=lambda at: (gaps[at].index.get_level_values(0).duplicated(keep=False).sum(), len(gaps[at])))
        gaps, known = gaps[at], paired(theirs, *terms)
        found = {data: mine.to_numpy() for data, mine in gaps.groupby(level=0)} if len(gaps) else {}
        most = max(map(len, found.values()), default=0)  # one seed tells nothing of chance: see `difference`
        found = {data: found[data] for data in sorted(found, key=place) if len(found[data]) > (most > 1)}
        shared = known[known.index.isin(found)]
        rows.append({"claim": claim, "part": part, "data": " ".join(found), "ours": difference(found.values()), "paper":
                     (shared if len(shared) else known).mean(), "seeds": min(map(len, found.values()), default=0),
                     "each": {data: values.mean() for data, values in found.items()}, "at": at})
    table = pd.DataFrame(rows)
    ours = pd.DataFrame(map(vars, table.ours))
    table["p"], told = holm(ours.p), np.where(ours["mean"] > 0, "holds", "does not hold")
    table["verdict"] = np.select([ours.pairs == 0, table.p < SIGNIFICANT], ["not run", told], "cannot be told")
    table["claim_verdict"] = table.groupby("claim").verdict.transform(_together)
    tests = table.p.notna().sum()
    table["seeds_needed"] = [seeds_needed(d.mean, d.spread, d.groups, tests) for d in table.ours]
    settings = [", ".join(map(str, (*at[:1], *at[2:]))) for at in dict.fromkeys([usual, *table.pop("at")])]
    return table.assign(n_train=n, setting="; over two sizes: ".join(settings) or "no runs")


def _together(parts: pd.Series) -> str:
    found = set(parts)
    return "does not hold" if "does not hold" in found else found.pop() if len(found) == 1 else "cannot be told"


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """A `verdicts` table as people read it, a row a part; the claim's name and verdict stand in its first row."""
    first, untold = ~table.claim.duplicated(), table.verdict == "cannot be told"
    needed = numbers(table.seeds_needed.where(untold), digits=0, missing="")
    return pd.DataFrame({
        "claim": table.claim.where(first, ""), "verdict on the claim": table.claim_verdict.where(first, ""),
        "what is compared": table.part, "data sets": table.data, "seeds": table.seeds,
        "paper": numbers(table.paper, sign="+"), "ours [95% interval]": [ours.text() for ours in table.ours],
        "p (Holm)": numbers(table.p, digits=3), "verdict": table.verdict, "seeds needed": [
            seeds.replace("inf", "> 1000") for seeds in needed]})
