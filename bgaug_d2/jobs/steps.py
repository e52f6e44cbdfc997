"""How many denoising steps a picture gets: T_hat, fixed or adapted to its background."""

from __future__ import annotations

import math

from bgaug_d2.config.recipe import RecipeConfig


def adaptive_T_hat(T: int, D: float, ratio: float) -> int:  # noqa: N802 - the paper's name
    """Adaptive augmentation freedom: ``T_hat = T * (1 - D * ratio)`` (paper, section 3).

    A larger background gets fewer steps, so more of the original stays. The result becomes an
    integer here and nowhere else, by rounding to the nearest (half up): truncation would lose a
    step to floating-point noise (50 * 0.58 = 28.999...). It is clamped to 1..T.

    Args:
        T: Length of the full schedule, at least 1.
        D: Strength of the reduction, in (0, 1).
        ratio: Share of the image that is un-eroded background, 0..1.

    Returns:
        Steps to take, 1..T; never more for a larger ``ratio``.

    Raises:
        ValueError: An argument out of its range.
    """
    if T < 1:
        raise ValueError(f"T={T!r} must be at least 1")
    if not 0 < D < 1:
        raise ValueError(f"D={D!r} must be between 0 and 1, exclusive")
    if not 0 <= ratio <= 1:
        raise ValueError(f"background ratio {ratio!r} must be in 0..1")
    # Not round(): it takes halves to the even neighbour.
    return min(max(math.floor(T * (1 - D * ratio) + 0.5), 1), T)


def T_hat(settings: RecipeConfig, ratio: float) -> int:  # noqa: N802 - the paper's name
    """Steps that a recipe gives an image whose un-eroded background share is ``ratio`` (0..1)."""
    if settings.step_policy == "fixed":
        return settings.fixed_T_hat or settings.num_inference_steps
    return adaptive_T_hat(settings.num_inference_steps, settings.D, ratio)
