"""Statistics over seeds: examples worked out elsewhere, degenerate samples, refusals."""

from __future__ import annotations

import math

import pytest

from bgaug_d2.report.statistics import Interval, holm, mean_interval, paired_test


def test_interval_of_a_known_sample() -> None:
    # t(0.975, 4) = 2.776 (any table), s = sqrt(2.5): 3 -+ 2.776 * sqrt(2.5 / 5)
    interval = mean_interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert interval.mean == 3.0
    assert (interval.low, interval.high) == pytest.approx((1.0368, 4.9632), abs=1e-4)


def test_one_value_has_a_mean_and_no_interval() -> None:
    assert mean_interval([7.5]) == Interval(7.5, None, None)


def test_equal_values_have_an_interval_of_no_width() -> None:
    interval = mean_interval([0.1, 0.1, 0.1])
    assert interval.low == interval.mean == interval.high == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("values", "level", "message"),
    [
        ([], 0.95, "no values"),
        ([1.0, math.nan], 0.95, "nan"),
        ([1.0, math.inf], 0.95, "inf"),
        ([1.0], 1.0, "level=1.0"),
        ([1.0], 95, "level=95"),
    ],
)
def test_refuses_what_has_no_mean(values: list[float], level: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mean_interval(values, level)


def test_students_own_sleep_data() -> None:
    # Student (1908): ten patients, hours of sleep gained; t = 4.0621, p = 0.002833, mean 1.58
    first = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
    second = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
    test = paired_test(first, second)
    assert test.count == 10
    assert test.p == pytest.approx(0.002833, abs=1e-6)
    difference = test.difference
    assert (difference.mean, difference.low, difference.high) == pytest.approx(
        (1.58, 0.7001142, 2.4598858), abs=1e-6
    )


def test_one_pair_has_a_difference_and_no_p() -> None:
    test = paired_test([10.0], [12.0])
    assert (test.difference, test.p, test.count) == (Interval(2.0, None, None), None, 1)


def test_no_difference_at_all_is_p_1() -> None:
    test = paired_test([10.0, 11.0], [10.0, 11.0])
    assert (test.difference, test.p) == (Interval(0.0, 0.0, 0.0), 1.0)


def test_the_same_difference_in_every_pair_has_no_p_even_with_rounding() -> None:
    assert paired_test([1.0, 2.0], [1.5, 2.5]).p is None
    assert 0.3 - 0.2 != 0.2 - 0.1
    assert paired_test([0.1, 0.2], [0.2, 0.3]).p is None


def test_refuses_what_does_not_pair() -> None:
    with pytest.raises(ValueError, match="1 and 2 values do not pair"):
        paired_test([1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="no values"):
        paired_test([], [])


def test_holm_on_a_known_example() -> None:
    # R: p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm") is 0.03 0.06 0.06 0.02
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_holm_leaves_none_out_and_in_place() -> None:
    assert holm([None, 0.02, None, 0.04]) == [None, 0.04, None, 0.04]
    assert holm([None]) == [None]
    assert holm([]) == []


@pytest.mark.parametrize("p", [-0.1, 1.1, math.nan])
def test_holm_refuses_what_is_no_p(p: float) -> None:
    with pytest.raises(ValueError, match=r"must be 0\.\.1"):
        holm([0.5, p])
