"""COCO run-length encoding, checked and decoded without pycocotools.

pycocotools trusts its input: malformed counts corrupt its heap, and short ones return
uninitialised memory. So every RLE of a data set passes here first.

Runs alternate between background and object, background first, down the columns (Fortran order),
and add up to ``height * width``. A compressed string stores each run in groups of 5 bits; from the
fourth run on it stores the difference to the run two places before.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

_MAX_BITS = 35  # of one stored number: more than any image has pixels


def decode_counts(counts: str) -> list[int]:
    """The run lengths of a compressed string.

    Raises:
        ValueError: A character outside the code, a number cut off or too long, a negative run.
    """
    try:
        codes = counts.encode("ascii")
    except UnicodeEncodeError as error:
        raise ValueError(f"compressed RLE holds {counts[error.start]!r}, not ASCII") from error
    runs: list[int] = []
    number = shift = 0
    for position, code in enumerate(codes):
        group = code - 48  # the alphabet begins at the character 0
        if not 0 <= group < 64:
            raise ValueError(f"compressed RLE holds {chr(code)!r} at position {position}")
        number |= (group & 0x1F) << shift
        shift += 5
        if group & 0x20:  # the number goes on in the next group
            if shift >= _MAX_BITS:
                raise ValueError(f"compressed RLE holds too long a number at position {position}")
            continue
        if group & 0x10:  # the sign of the whole number
            number -= 1 << shift
        if len(runs) > 2:
            number += runs[-2]
        if number < 0:
            raise ValueError(f"compressed RLE has the negative run {number} at position {position}")
        runs.append(number)
        number = shift = 0
    if shift:
        raise ValueError("compressed RLE ends inside a number")
    return runs


def validate(
    counts: str | Iterable[int], size: tuple[int, int], height: int, width: int
) -> list[int]:
    """The run lengths of an RLE that fits an image of ``height`` x ``width`` pixels.

    Args:
        counts: A compressed string or run lengths.
        size: What the RLE says its (height, width) is.
        height: Pixels of the image.
        width: Pixels of the image.

    Raises:
        ValueError: Size or sum differ from the image, a run is negative, the string is malformed.
    """
    if tuple(size) != (height, width):
        raise ValueError(
            f"RLE is for {size[0]} x {size[1]} pixels (height x width), "
            f"the image has {height} x {width}"
        )
    runs = decode_counts(counts) if isinstance(counts, str) else _checked(counts)
    # Before any mask is made of them: broken runs can ask for any amount of memory.
    if sum(runs) != height * width:
        raise ValueError(f"RLE runs add up to {sum(runs)}, the image has {height * width} pixels")
    return runs


def to_mask(runs: list[int], height: int, width: int) -> npt.NDArray[np.bool_]:
    """The mask, bool (H, W), of run lengths that passed ``validate``."""
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(width, height).T


def _checked(counts: Iterable[int]) -> list[int]:
    runs = list(counts)
    for run in runs:
        if isinstance(run, bool) or not isinstance(run, int) or run < 0:
            raise ValueError(f"RLE has the run {run!r}; runs are integers from 0")
    return runs
