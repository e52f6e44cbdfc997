"""Draws and copies for any seed, image, visit and background ratio."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from bgaug_d2.sampling.policy import nonuniform_counts, replace_variant, uniform_counts

SEEDS = st.integers(0, 2**31 - 1)
IMAGES = st.one_of(st.integers(0, 10**12), st.text(max_size=20))
VISITS = st.integers(0, 10**6)
CHANCES = st.floats(0, 1)


@given(SEEDS, IMAGES, VISITS, CHANCES, st.integers(1, 100))
def test_a_draw_is_in_range_and_repeatable(
    seed: int, image: int | str, visit: int, p: float, variants: int
) -> None:
    draw = replace_variant(seed, image, visit, p, variants)
    assert 0 <= draw <= variants
    assert draw == replace_variant(seed, image, visit, p, variants)


@given(SEEDS, IMAGES, VISITS, CHANCES, CHANCES)
def test_a_larger_p_only_adds_draws(
    seed: int, image: int | str, visit: int, a: float, b: float
) -> None:
    low, high = sorted((a, b))
    few, many = (replace_variant(seed, image, visit, p, 4) for p in (low, high))
    assert few in (0, many)


@st.composite
def data_sets(draw: st.DrawFn) -> tuple[list[float], list[bool], int]:
    images = draw(st.lists(st.tuples(CHANCES, st.booleans()), max_size=30))
    return [ratio for ratio, _ in images], [each for _, each in images], draw(st.integers(0, 12))


@given(data_sets())
def test_totals_are_equal(case: tuple[list[float], list[bool], int]) -> None:
    ratios, eligible, alpha = case
    counts = nonuniform_counts(ratios, eligible, alpha)
    assert sum(counts) == sum(uniform_counts(eligible, alpha)) == alpha * sum(eligible)
    assert all(count == 0 for count, each in zip(counts, eligible, strict=True) if not each)


@given(data_sets())
def test_each_gets_its_quota_to_less_than_one(
    case: tuple[list[float], list[bool], int],
) -> None:
    ratios, eligible, alpha = case
    chosen = [
        Fraction(r) if each else Fraction(0) for r, each in zip(ratios, eligible, strict=True)
    ]
    total = alpha * sum(eligible)
    if sum(chosen) < Fraction(1, 10**9):  # all zero, or lost in the last bit of the integers
        return
    for count, ratio in zip(nonuniform_counts(ratios, eligible, alpha), chosen, strict=True):
        assert abs(count - total * ratio / sum(chosen)) < 1 + Fraction(1, 10**5)


@given(data_sets())
def test_more_background_never_means_fewer_copies(
    case: tuple[list[float], list[bool], int],
) -> None:
    """Up to the one copy that equal remainders share out by the order of the images."""
    ratios, eligible, alpha = case
    counts = nonuniform_counts(ratios, eligible, alpha)
    chosen = sorted((r, c) for r, c, each in zip(ratios, counts, eligible, strict=True) if each)
    for (low, fewer), (high, more) in zip(chosen, chosen[1:], strict=False):
        assert fewer <= more + (low == high)
