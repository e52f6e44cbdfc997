"""Draws and copies: fixed values, frequencies, sharing by background ratio."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from bgaug_d2.sampling.policy import nonuniform_counts, replace_variant, uniform_counts


def test_golden_draws() -> None:
    """A changed hash would change every resumed run."""
    draws = [replace_variant(0, image, visit, 0.5, 4) for image in (1, "1") for visit in range(8)]
    assert draws == [2, 0, 4, 1, 3, 1, 1, 2, 0, 3, 0, 0, 3, 0, 0, 3]


def test_numpy_integers_draw_like_integers() -> None:
    numpy_draw = replace_variant(np.int64(3), np.int64(7), np.int64(2), 1.0, 1000)  # type: ignore[arg-type]
    assert numpy_draw == replace_variant(3, 7, 2, 1.0, 1000)


def test_p_is_a_frequency_and_variants_are_even() -> None:
    draws = Counter(
        replace_variant(seed, image, visit, 0.3, 4)
        for seed in range(2)
        for image in range(100)
        for visit in range(100)
    )
    assert abs(draws[0] / 20_000 - 0.7) < 0.015  # over four standard deviations
    assert all(abs(draws[variant] / 20_000 - 0.075) < 0.009 for variant in (1, 2, 3, 4))


def test_the_ends_of_p() -> None:
    assert not any(replace_variant(0, image, 0, 0.0, 4) for image in range(1000))
    assert all(replace_variant(0, image, 0, 1.0, 4) for image in range(1000))


@pytest.mark.parametrize(("p", "variants"), [(-0.1, 4), (1.1, 4), (float("nan"), 4), (0.5, 0)])
def test_draw_arguments_out_of_range(p: float, variants: int) -> None:
    with pytest.raises(ValueError, match="must be"):
        replace_variant(0, 1, 0, p, variants)


def test_uniform() -> None:
    assert uniform_counts([True, False, True], 3) == [3, 0, 3]
    assert uniform_counts([], 3) == []


def test_nonuniform_by_hand() -> None:
    assert nonuniform_counts([0.1, 0.3, 0.6], [True] * 3, 10) == [3, 9, 18]
    assert nonuniform_counts([0.5, 0.5, 0.5], [True] * 3, 1) == [1, 1, 1]
    assert nonuniform_counts([0.9, 0.5, 0.1], [False, True, True], 1) == [0, 2, 0]
    assert nonuniform_counts([0.0, 0.0], [True, True], 2) == [2, 2]
    assert nonuniform_counts([0.5, 0.5], [False, False], 2) == [0, 0]
    assert nonuniform_counts([], [], 2) == []
    assert nonuniform_counts([0.5, 0.5], [True, True], 0) == [0, 0]


def test_ties_go_to_the_first_images() -> None:
    assert nonuniform_counts([0.2, 0.2, 0.2, 0.0], [True] * 4, 1) == [2, 1, 1, 0]


@pytest.mark.parametrize(
    ("ratios", "eligible", "alpha"),
    [
        ([0.5], [True, True], 1),
        ([1.5], [True], 1),
        ([float("nan")], [True], 1),
        ([0.5], [True], -1),
    ],
)
def test_counts_arguments_out_of_range(
    ratios: list[float], eligible: list[bool], alpha: int
) -> None:
    with pytest.raises(ValueError, match=r"ratio|alpha"):
        nonuniform_counts(ratios, eligible, alpha)


def test_a_negative_alpha_is_refused() -> None:
    with pytest.raises(ValueError, match="alpha=-1"):
        uniform_counts([True], -1)
