"""Paired differences between methods: bootstrap interval, permutation test, Holm's correction, seeds needed.

Runs of two methods with one seed share training sentences and batches, so they are compared pair by pair. Differences
come in groups, one a data set; each group counts the same. Taught in notebook 05.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy import stats

RESAMPLES, LEVEL, POWER = 9999, 0.95, 0.8
_MOST = 1000  # more seeds than this are told as "more than"


@dataclass(frozen=True)
class Difference:
    """A mean paired difference in points, its interval, the p value of "no difference", and the pairs behind it."""

    mean: float = np.nan
    low: float = np.nan
    high: float = np.nan
    p: float = np.nan
    pairs: int = 0
    seeds_needed: float = np.nan

    def text(self) -> str:
        """As people read it: ``+1.2 [0.3, 2.0]``."""
        if not self.pairs:
            return "–"
        return f"{self.mean:+.1f}" + ("" if np.isnan(self.low) else f" [{self.low:+.1f}, {self.high:+.1f}]")


def difference(groups: Iterable[np.ndarray]) -> Difference:
    """The mean of the groups' mean paired differences.

    Parameters
    ----------
    groups : an array ``[seeds]`` of differences for each data set.

    Returns
    -------
    Difference : with a 95% percentile bootstrap interval (seeds are drawn anew within each group), the two-sided p
        value of the sign-flip permutation test (exact for up to 13 pairs), and the seeds a data set that a paired t
        test would need to find a difference of this size in four studies of five. With one pair, the mean alone.
    """
    groups = [np.asarray(group, dtype=float) for group in groups if len(group)]
    pairs = sum(map(len, groups))
    if not pairs:
        return Difference()
    mean = float(np.mean([group.mean() for group in groups]))
    if min(map(len, groups)) < 2:
        return Difference(mean, pairs=pairs)
    values = np.concatenate(groups)
    weights = np.concatenate([np.full(len(group), 1 / len(group) / len(groups)) for group in groups])
    if np.ptp(values) == 0:
        return Difference(mean, mean, mean, 1.0 if mean == 0 else 2 / 2**pairs, pairs, np.nan if mean == 0 else 2)
    interval = stats.bootstrap(groups, lambda *g, axis=-1: np.mean([x.mean(axis=axis) for x in g], axis=0),
                               n_resamples=RESAMPLES, confidence_level=LEVEL, method="percentile",
                               rng=np.random.default_rng(0)).confidence_interval
    test = stats.permutation_test((values,), lambda x, axis=-1: (np.abs((x * weights).sum(axis=axis))),
                                  permutation_type="samples", n_resamples=RESAMPLES, alternative="greater",
                                  rng=np.random.default_rng(0))
    spread = np.sqrt(np.mean([group.var(ddof=1) for group in groups]))
    return Difference(mean, float(interval.low), float(interval.high), float(test.pvalue), pairs,
                      seeds_needed(mean, spread, len(groups)))


def seeds_needed(mean: float, spread: float, groups: int = 1) -> float:
    """Seeds in each of ``groups`` data sets for 80% power of a two-sided paired t test at 5%; infinity beyond 1000.

    The normal approximation with the usual small-sample term (half of the squared critical value more pairs).
    """
    if mean == 0:
        return np.inf
    critical, power = stats.norm.ppf((1 + LEVEL) / 2), stats.norm.ppf(POWER)
    pairs = ((critical + power) * spread / mean) ** 2 + critical**2 / 2
    seeds = max(2, int(np.ceil(pairs / groups)))
    return seeds if seeds <= _MOST else np.inf


def holm(p: Iterable[float]) -> np.ndarray:
    """p values under Holm's (1979) step-down correction; what is not a number is left out of the family."""
    p = np.asarray(list(p), dtype=float)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    corrected = np.full(len(p), np.nan)
    corrected[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)))
    return corrected
