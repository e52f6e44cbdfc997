"""Which draw shows which variant, and how many copies an image gets.

These are pure functions. No generator keeps a state, so a draw is the same in every process and
does not depend on the draws before it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

_UNIT = 2**53  # floats in [0, 1] are multiples of about this


def replace_variant(seed: int, image_id: int | str, visit: int, p: float, variants: int) -> int:
    """The variant that one draw of an image shows in mode ``replace``.

    Nested in ``p``: a draw that is augmented at some ``p`` shows the same variant at every larger
    one, so runs with different ``p`` differ only in the draws that were added.

    Args:
        seed: Seed of the run.
        image_id: The image; 7 and "7" are different images.
        visit: How often the image was drawn before, from 0.
        p: Probability of an augmented draw, 0..1.
        variants: Number of variants, from 1.

    Returns:
        0 for the original, or 1..variants.

    Raises:
        ValueError: ``p`` or ``variants`` out of range.
    """
    if not 0 <= p <= 1:
        raise ValueError(f"p={p!r} must be in 0..1")
    if variants < 1:
        raise ValueError(f"variants={variants!r} must be at least 1")
    # `json` refuses NumPy's integers.
    image = image_id if isinstance(image_id, str) else int(image_id)
    # As JSON, 7 and "7" differ, and the text is the same in every process.
    draw = json.dumps([int(seed), image, int(visit)])
    digest = hashlib.sha256(draw.encode("ascii")).digest()
    # 53 bits, as many as a float holds exactly.
    chance = (int.from_bytes(digest[:8], "big") >> 11) / _UNIT  # [0, 1)
    if chance >= p:
        return 0
    # Other bytes than the chance, so that the variant does not depend on it.
    return 1 + int.from_bytes(digest[8:16], "big") % variants


def uniform_counts(eligible: Sequence[bool], alpha: int) -> list[int]:
    """Copies per image in mode ``expand``: ``alpha`` for each eligible image, else none."""
    _check_alpha(alpha)
    return [alpha if each else 0 for each in eligible]


def nonuniform_counts(ratios: Sequence[float], eligible: Sequence[bool], alpha: int) -> list[int]:
    """Copies per image in proportion to the background share (paper, figure 6, "non-uniform").

    The total is that of ``uniform_counts``. Fractions go to the largest remainders, ties to the
    first images. All is computed in integers, so no rounding of a sum can shift a copy. Where every
    ratio is 0 the copies are shared out evenly.

    Args:
        ratios: Background share of each image, 0..1.
        eligible: Which images can be augmented; the others get none.
        alpha: Mean number of copies per eligible image.

    Raises:
        ValueError: Lengths differ, a ratio is out of range, or ``alpha`` is negative.
    """
    _check_alpha(alpha)
    if len(ratios) != len(eligible):
        raise ValueError(f"{len(ratios)} ratios for {len(eligible)} images")
    for ratio in ratios:
        if not 0 <= ratio <= 1:
            raise ValueError(f"background ratio {ratio!r} must be in 0..1")
    chosen = [index for index, each in enumerate(eligible) if each]
    weights = [int(ratios[index] * _UNIT) for index in chosen]
    if not any(weights):
        weights = [1] * len(chosen)
    total, weight_sum = alpha * len(chosen), sum(weights)
    counts = [0] * len(ratios)
    remainders = []
    for index, weight in zip(chosen, weights, strict=True):
        counts[index], remainder = divmod(total * weight, weight_sum)
        remainders.append((-remainder, index))
    for _, index in sorted(remainders)[: total - sum(counts)]:
        counts[index] += 1
    return counts


def _check_alpha(alpha: int) -> None:
    if alpha < 0:
        raise ValueError(f"alpha={alpha!r} must be at least 0")
