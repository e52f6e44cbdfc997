"""Intervals, paired tests and Holm's correction for any sample."""

from __future__ import annotations

import random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from bgaug_d2.report.statistics import holm, mean_interval, paired_test

PERCENT = st.floats(0, 100)
THOUSANDTHS = st.integers(0, 100_000).map(lambda value: value / 1000)
P_VALUES = st.lists(st.none() | st.floats(0, 1), max_size=12)


@given(st.lists(PERCENT, min_size=2, max_size=20), st.floats(0.01, 0.99))
def test_interval_contains_the_mean_and_is_centred_on_it(values: list[float], level: float) -> None:
    interval = mean_interval(values, level)
    assert interval.low is not None
    assert interval.high is not None
    assert interval.low <= interval.mean <= interval.high
    assert interval.high - interval.mean == pytest.approx(interval.mean - interval.low, abs=1e-9)


@given(st.lists(PERCENT, min_size=2, max_size=20), st.floats(0.01, 0.98))
def test_more_coverage_never_means_a_narrower_interval(values: list[float], level: float) -> None:
    narrow, wide = mean_interval(values, level), mean_interval(values, level + 0.01)
    assert wide.low is not None
    assert narrow.low is not None
    assert wide.low <= narrow.low + 1e-9


@given(st.lists(THOUSANDTHS, min_size=2, max_size=12, unique=True), st.floats(0.5, 0.99))
def test_interval_agrees_with_scipy(values: list[float], level: float) -> None:
    interval = mean_interval(values, level)
    found = stats.t.interval(level, len(values) - 1, stats.tmean(values), stats.sem(values))
    assert (interval.low, interval.high) == pytest.approx(found, rel=1e-7, abs=1e-7)


@given(st.lists(st.tuples(THOUSANDTHS, THOUSANDTHS), min_size=2, max_size=12))
def test_paired_test_agrees_with_scipy(pairs: list[tuple[float, float]]) -> None:
    first, second = map(list, zip(*pairs, strict=True))
    differences = [b - a for a, b in pairs]
    assume(max(differences) - min(differences) > 1e-6)
    found = stats.ttest_rel(second, first)
    test = paired_test(first, second)
    assert test.p == pytest.approx(found.pvalue, rel=1e-6, abs=1e-12)
    low, high = found.confidence_interval(0.95)
    assert (test.difference.low, test.difference.high) == pytest.approx((low, high), abs=1e-6)


@given(st.lists(st.tuples(PERCENT, PERCENT), min_size=1, max_size=12))
def test_swapping_the_sides_swaps_the_sign_only(pairs: list[tuple[float, float]]) -> None:
    first, second = map(list, zip(*pairs, strict=True))
    there, back = paired_test(first, second), paired_test(second, first)
    assert there.difference.mean == -back.difference.mean
    assert there.p == back.p
    assert there.p is None or 0 <= there.p <= 1


@given(st.lists(st.tuples(THOUSANDTHS, THOUSANDTHS), min_size=2, max_size=8))
def test_p_below_5_percent_exactly_if_the_interval_leaves_zero_out(
    pairs: list[tuple[float, float]],
) -> None:
    test = paired_test(*map(list, zip(*pairs, strict=True)))
    assume(test.p is not None and abs(test.p - 0.05) > 1e-6)
    assert test.p is not None
    assert test.difference.low is not None
    assert test.difference.high is not None
    assert (test.p < 0.05) == (test.difference.low > 0 or test.difference.high < 0)


@given(P_VALUES)
def test_holm_lies_between_the_raw_p_and_bonferroni(p_values: list[float | None]) -> None:
    tests = sum(p is not None for p in p_values)
    for raw, adjusted in zip(p_values, holm(p_values), strict=True):
        if raw is None or adjusted is None:
            assert raw is None
            assert adjusted is None
        else:
            assert raw <= adjusted <= min(1.0, tests * raw)


@given(P_VALUES)
def test_holm_keeps_the_order_of_size(p_values: list[float | None]) -> None:
    both = [(p, q) for p, q in zip(p_values, holm(p_values), strict=True) if p is not None]
    adjusted = [q for _, q in sorted(both)]
    assert adjusted == sorted(adjusted)  # type: ignore[type-var]


@given(P_VALUES, st.randoms())
def test_holm_does_not_care_for_the_order_given(
    p_values: list[float | None], shuffler: random.Random
) -> None:
    order = list(range(len(p_values)))
    shuffler.shuffle(order)
    adjusted = holm(p_values)
    assert holm([p_values[index] for index in order]) == [adjusted[index] for index in order]


@given(P_VALUES)
def test_holm_rejects_what_the_step_down_procedure_rejects(p_values: list[float | None]) -> None:
    """The definition: reject from the smallest up while p * (tests left) is at most the level."""
    raw = sorted(p for p in p_values if p is not None)
    rejected = 0
    while rejected < len(raw) and (len(raw) - rejected) * raw[rejected] <= 0.05:
        rejected += 1
    assert sum(p is not None and p <= 0.05 for p in holm(p_values)) == rejected
