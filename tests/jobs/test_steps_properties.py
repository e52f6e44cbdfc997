"""T_hat for any T, D and background ratio."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from bgaug_d2.jobs.steps import adaptive_T_hat

LENGTHS = st.integers(1, 1000)
STRENGTHS = st.floats(0, 1, exclude_min=True, exclude_max=True)
RATIOS = st.floats(0, 1)


@given(LENGTHS, STRENGTHS, RATIOS)
def test_range_and_nearest_integer(T: int, D: float, ratio: float) -> None:
    steps = adaptive_T_hat(T, D, ratio)
    exact = T * (1 - Fraction(D) * Fraction(ratio))
    assert isinstance(steps, int)
    assert 1 <= steps <= T
    assert abs(steps - exact) <= Fraction(1, 2) + Fraction(1, 10**9) or (steps == 1 and exact < 1)


@given(LENGTHS, STRENGTHS, RATIOS, RATIOS)
def test_more_background_never_means_more_steps(T: int, D: float, a: float, b: float) -> None:
    low, high = sorted((a, b))
    assert adaptive_T_hat(T, D, high) <= adaptive_T_hat(T, D, low)


@given(LENGTHS, STRENGTHS, STRENGTHS, RATIOS)
def test_a_larger_D_never_means_more_steps(T: int, a: float, b: float, ratio: float) -> None:
    low, high = sorted((a, b))
    assert adaptive_T_hat(T, high, ratio) <= adaptive_T_hat(T, low, ratio)


@given(LENGTHS, LENGTHS, STRENGTHS, RATIOS)
def test_a_longer_schedule_never_means_fewer_steps(a: int, b: int, D: float, ratio: float) -> None:
    low, high = sorted((a, b))
    assert adaptive_T_hat(low, D, ratio) <= adaptive_T_hat(high, D, ratio)


@given(LENGTHS, STRENGTHS)
def test_no_background_takes_the_whole_schedule(T: int, D: float) -> None:
    assert adaptive_T_hat(T, D, 0.0) == T
