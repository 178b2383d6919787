"""Paired differences between methods: bootstrap interval, permutation test, Holm's correction, seeds needed.

Runs of two methods with one seed share training sentences and batches, so they are compared pair by pair. Differences
come in groups, one a data set; each group counts the same. Taught in notebook 05.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

RESAMPLES, LEVEL, POWER, MOST = 9999, 0.95, 0.8, 1000  # more seeds than MOST are told as "more than"


@dataclass(frozen=True)
class Difference:
    """A mean paired difference in points, its interval, the p value of "no difference", and the pairs behind it."""

    mean: float = np.nan
    low: float = np.nan
    high: float = np.nan
    p: float = np.nan
    pairs: int = 0
    spread: float = np.nan
    groups: int = 0

    def text(self) -> str:
        """As people read it: ``+1.2 [0.3, 2.0]``."""
        mean, low, high = (round(value, 1) + 0.0 for value in (self.mean, self.low, self.high))  # no minus zero
        interval = "" if np.isnan(low) else f" [{low:+.1f}, {high:+.1f}]"
        return f"{mean:+.1f}{interval}" if self.pairs else "–"


def by_seed(runs: pd.DataFrame, *columns: str, rows: tuple[str, ...] = ("seed",)) -> pd.DataFrame:
    """Accuracies as a table: a row a seed (or whatever ``rows`` names), a column for what ``columns`` tell apart."""
    return runs.drop_duplicates([*rows, *columns]).pivot(index=[*rows], columns=[*columns], values="accuracy")


def paired(table: pd.DataFrame, *terms: tuple) -> pd.Series:
    """Sums of columns of `by_seed` with their signs, row by row, where all of them are known: ``(1, a), (-1, b)``."""
    if not all(column in table for _, column in terms):
        return pd.Series(dtype=float)
    return sum(sign * table[column] for sign, column in terms).dropna()


def difference(groups: Iterable[np.ndarray]) -> Difference:
    """The mean of the mean paired differences of groups, ``[seeds]`` each, one a data set.

    With a 95% percentile bootstrap interval (seeds are drawn anew within each group) and the two-sided p value of the
    sign-flip permutation test. A group of one pair is left out where others have more; else the mean stands alone.
    """
    groups = [np.asarray(group, dtype=float) for group in groups if len(group)]
    groups = [group for group in groups if len(group) > 1] or groups
    pairs = sum(map(len, groups))
    if not pairs:
        return Difference()
    mean = float(np.mean([group.mean() for group in groups]))
    if min(map(len, groups)) < 2:
        return Difference(mean, pairs=pairs)
    values = np.concatenate(groups)
    weights = np.concatenate([np.full(len(group), 1 / len(group) / len(groups)) for group in groups])
    if np.ptp(values) < 1e-9:
        return Difference(mean, mean, mean, 1.0 if abs(mean) < 1e-9 else 2 / 2**pairs, pairs, 0.0, len(groups))
    interval = stats.bootstrap(groups, lambda *g, axis=-1: np.mean([x.mean(axis=axis) for x in g], axis=0),
                               n_resamples=RESAMPLES, confidence_level=LEVEL, method="percentile",
                               rng=np.random.default_rng(0)).confidence_interval
    # Rounded, so that sums that are equal but for the last bits of their floats count as equal.
    test = stats.permutation_test((values,), lambda x, axis=-1: np.round(np.abs((x * weights).sum(axis=axis)), 9),
                                  permutation_type="samples", n_resamples=RESAMPLES, alternative="greater",
                                  rng=np.random.default_rng(0))
    spread = np.sqrt(np.mean([group.var(ddof=1) for group in groups]))
    return Difference(mean, *map(float, (*interval, test.pvalue)), pairs, float(spread), len(groups))


def corrected(differences: Iterable[float], share: float) -> Difference:
    """A mean over the folds of a repeated cross-validation, its interval and p value by the corrected t test.

    Its ``spread`` is the standard error so corrected.

    Folds share training sentences, so their differences vary together: Nadeau and Bengio (2003) add ``share``, the test
    sentences over the training sentences of a fold, to the 1/J that divides the variance of J independent ones.
    """
    values = np.asarray(differences, dtype=float)
    mean, n = float(values.mean()), len(values)
    if n < 2:
        return Difference(mean, pairs=n)
    error = float(np.sqrt((1 / n + share) * values.var(ddof=1)))
    reach = error * stats.t.ppf((1 + LEVEL) / 2, n - 1)
    p = float(2 * stats.t.sf(abs(mean) / error, n - 1)) if error else float(mean == 0)
    return Difference(mean, mean - reach, mean + reach, p, n, error, 1)


def calibration_error(sure: np.ndarray, right: np.ndarray, bins: int = 10) -> float:
    """Expected calibration error, a share (Guo et al. 2017), of n predictions: their probability, whether right.

    The mean distance between how often the predicted class is right and its probability, in bins of equal width. Chance
    alone makes it 0.23 for 8 sentences, 0.07 for 100, so pool what there is.
    """
    place = np.minimum((sure * bins).astype(int), bins - 1)
    gaps = np.bincount(place, right, minlength=bins) - np.bincount(place, sure, minlength=bins)
    return float(np.abs(gaps).sum() / len(right))


def seeds_needed(mean: float, spread: float, groups: int = 1, tests: int = 1) -> float:
    """Seeds in each of ``groups`` data sets for 80% power of a two-sided paired test; infinity beyond 1000.

    By the normal approximation of the t test; not a number where the spread is not known.
    """
    if np.isnan(spread) or abs(mean) < 1e-9:
        return np.nan if np.isnan(spread) else np.inf
    level = (1 - LEVEL) / tests  # as Holm's correction asks of the smallest p value
    critical, power = stats.norm.ppf(1 - level / 2), stats.norm.ppf(POWER)
    # With the usual small-sample term, and never fewer pairs than a sign-flip test needs to reach the level at all.
    pairs = max(((critical + power) * spread / mean) ** 2 + critical**2 / 2, np.log2(2 / level))
    seeds = max(2, int(np.ceil(round(pairs / groups, 6))))
    return seeds if seeds <= MOST else np.inf


def holm(p: Iterable[float]) -> np.ndarray:
    """p values under Holm's (1979) step-down correction; what is not a number is left out of the family."""
    p = np.asarray(list(p), dtype=float)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    corrected = np.full(len(p), np.nan)
    corrected[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)))
    return corrected
