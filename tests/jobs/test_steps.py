"""T_hat: the paper's formula, one rounding, the ends of its range."""

from __future__ import annotations

import math

import pytest

from bgaug_d2.config.recipe import RecipeConfig
from bgaug_d2.jobs.steps import T_hat, adaptive_T_hat


@pytest.mark.parametrize(
    ("T", "D", "ratio", "expected"),
    [
        (25, 0.5, 0.0, 25),
        (25, 0.5, 1.0, 13),  # 12.5 rounds up
        (25, 0.5, 0.664, 17),  # 16.7
        (50, 0.42, 1.0, 29),  # 50 * 0.58 is 28.999... in floating point
        (10, 0.5, 0.5, 8),  # 7.5
        (1, 0.9, 1.0, 1),
        (3, 0.999, 1.0, 1),  # 0.003 is clamped
        (1000, 0.001, 0.1, 1000),
    ],
)
def test_the_formula(T: int, D: float, ratio: float, expected: int) -> None:
    assert adaptive_T_hat(T, D, ratio) == expected


@pytest.mark.parametrize(
    ("T", "D", "ratio"),
    [
        (0, 0.5, 0.5),
        (25, 0.0, 0.5),
        (25, 1.0, 0.5),
        (25, 0.5, -0.1),
        (25, 0.5, 1.1),
        (25, 0.5, math.nan),
        (25, math.nan, 0.5),
    ],
)
def test_arguments_out_of_range(T: int, D: float, ratio: float) -> None:
    with pytest.raises(ValueError, match="must be"):
        adaptive_T_hat(T, D, ratio)


def test_of_a_recipe() -> None:
    assert T_hat(RecipeConfig(num_inference_steps=20, D=0.25), 0.8) == 16
    assert T_hat(RecipeConfig(step_policy="fixed", fixed_T_hat=9), 0.8) == 9
    assert T_hat(RecipeConfig(step_policy="fixed"), 0.8) == 25
