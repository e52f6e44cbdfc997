"""Mean, interval and paired test over seeds; Holm's correction for several tests at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from scipy import stats

LEVEL = 0.95
# Differences that agree to this share of the compared values differ by rounding only.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Interval:
    """A mean and its confidence interval, in the unit of the values; one value has no interval."""

    mean: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class PairedTest:
    """Second minus first.

    Attributes:
        difference: Mean difference and its confidence interval.
        p: Two-sided, 0..1; None where the test cannot be made.
        count: Pairs, at least 1.
    """

    difference: Interval
    p: float | None
    count: int


def mean_interval(values: Sequence[float], level: float = LEVEL) -> Interval:
    """The mean with Student's t interval.

    Args:
        values: Finite, independent of one another; at least one.
        level: Coverage, above 0 and below 1.

    Raises:
        ValueError: No values, one that is not finite, or a level out of range.
    """
    if not 0 < level < 1:
        raise ValueError(f"level={level} must be above 0 and below 1, for example 0.95")
    if not values:
        raise ValueError("no values to take a mean of; leave out what has none")
    for value in values:
        if not math.isfinite(value):
            raise ValueError(f"{value} has no place in a mean; leave out what is not finite")
    mean, count = fmean(values), len(values)
    if count < 2:
        return Interval(mean, None, None)
    error = stdev(values) / math.sqrt(count)
    if error == 0:  # for SciPy an interval of no width is not a number
        return Interval(mean, mean, mean)
    low, high = stats.t.interval(level, count - 1, mean, error)
    return Interval(mean, float(low), float(high))


def paired_test(
    first: Sequence[float], second: Sequence[float], level: float = LEVEL
) -> PairedTest:
    """The paired t-test of ``second`` minus ``first``, pairs by position.

    Equal differences (to rounding) have no variance to test with: p is 1 where they are zero and
    None otherwise, since seeds that all differ by the same amount are no evidence of a p of 0.

    Raises:
        ValueError: Unequal lengths, no pair, or a value that is not finite.
    """
    if len(first) != len(second):
        raise ValueError(f"{len(first)} and {len(second)} values do not pair; give one each a seed")
    differences = [b - a for a, b in zip(first, second, strict=True)]
    interval = mean_interval(differences, level)
    # One pair has no spread to test with.
    if len(differences) < 2:
        return PairedTest(interval, None, len(differences))
    rounding = _ROUNDING * max(map(abs, (*first, *second)))
    # No spread but that of rounding, by which the t-test would divide.
    if max(differences) - min(differences) <= rounding or interval.low == interval.high:
        p = 1.0 if abs(interval.mean) <= rounding else None
    else:
        p = float(stats.ttest_rel(second, first).pvalue)
    return PairedTest(interval, p, len(differences))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm-Bonferroni adjusted p-values (Holm 1979, Scandinavian Journal of Statistics 6, 65-70).

    Step-down: the smallest of m is multiplied by m, the next by m - 1, ...; none falls below the
    one before it or rises above 1.

    Args:
        p_values: 0..1; None is no test: it stays None and does not count.

    Raises:
        ValueError: One is out of range.
    """
    for p in p_values:
        if p is not None and not 0 <= p <= 1:
            raise ValueError(f"p={p} must be 0..1, or None for no test")
    tests = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    floor = 0.0
    for rank, (p, index) in enumerate(tests):
        floor = max(floor, min(1.0, (len(tests) - rank) * p))
        adjusted[index] = floor
    return adjusted
