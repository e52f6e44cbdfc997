"""Object and background masks: which pixels stay and which are painted.

Shapes and words used throughout:
    H, W          the image, as Detectron2 reads it
    S             side of the square that the model paints (the image is squashed into it)
    h, w          the latent grid, S // factor each; a cell covers factor x factor pixels
    object_mask   bool, True on pixels of objects (crowd included), which stay
    background_mask   bool, True on pixels to paint; the complement of the object mask, or less
                      of it after erosion
    painted_mask  bool, True on what one pass through the model paints: background or one object
Pixel i covers [i, i + 1) of the coordinate axis. When a mask changes its grid, a cell that an
object touches belongs to the object, so no object can vanish.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from bgaug_d2.pixels import rle
from bgaug_d2.pixels.read import MAX_PIXELS

BoolMask = npt.NDArray[np.bool_]
Picture = npt.NDArray[np.uint8]


def background_ratio(object_mask: BoolMask) -> float:
    """Share of un-eroded background, 0..1: the paper's ``sum(m_b) / (W * H)``."""
    return 1.0 - int(np.count_nonzero(object_mask)) / object_mask.size


def erode_background(background_mask: BoolMask, kernel: int) -> BoolMask:
    """Background mask erosion: ``m_b <- MinimumFilter(m_b, k)`` (paper, section 3).

    Beyond the border the mask goes on as at the border (edges replicate), so the border itself
    erodes nothing.

    Args:
        background_mask: bool, any 2-D shape.
        kernel: Width ``k`` of the square window in pixels, odd; 1 changes nothing.

    Raises:
        ValueError: ``kernel`` is even or below 1.
    """
    if kernel < 1 or kernel % 2 == 0:
        raise ValueError(f"kernel={kernel!r} must be odd and at least 1")
    window = np.ones((kernel, kernel), dtype=np.uint8)
    # OpenCV's default border never is the minimum, which is the same as replicated edges.
    return cv2.erode(background_mask.astype(np.uint8), window).astype(bool)


def square_object_mask(object_mask: BoolMask, S: int) -> BoolMask:
    """Squash an object mask (H, W) into the square, bool (S, S): any coverage counts."""
    # One axis, then the other: a rectangle is touched if any of its rows is.
    return _squash_rows(_squash_rows(object_mask, S).T, S).T


def latent_background_mask(background_mask: BoolMask, factor: int) -> BoolMask:
    """The mask on the latent grid, bool (h, w): a cell is background only if all its pixels are.

    Nearest sampling would miss three of four objects of 4 pixels; this misses none.

    Args:
        background_mask: bool (S, S).
        factor: Pixels per latent cell and axis, 8 for Stable Diffusion.

    Raises:
        ValueError: ``S`` is no multiple of ``factor``.
    """
    height, width = background_mask.shape
    if factor < 1 or height % factor or width % factor:
        raise ValueError(
            f"a mask of {background_mask.shape} has no latent grid of factor {factor}; "
            f"choose a recipe.resolution that is a multiple of {factor}"
        )
    cells = background_mask.reshape(height // factor, factor, width // factor, factor)
    return np.asarray(cells.all(axis=(1, 3)))


def touched_latent_mask(painted_mask: BoolMask, factor: int) -> BoolMask:
    """The mask on the latent grid, bool (h, w): a cell is painted if any of its pixels is.

    The counterpart of ``latent_background_mask`` for objects: no object is too small to own a cell.

    Args:
        painted_mask: bool (S, S).
        factor: Pixels per latent cell and axis.

    Raises:
        ValueError: ``S`` is no multiple of ``factor``.
    """
    return ~latent_background_mask(~painted_mask, factor)


def composite(painted: Picture, source: Picture, object_mask: BoolMask) -> Picture:
    """The painted picture with the source's object pixels, bit for bit.

    Args:
        painted: uint8 RGB (H, W, 3).
        source: uint8 RGB (H, W, 3).
        object_mask: bool (H, W), True where the source's pixels are put back.

    Returns:
        A new uint8 (H, W, 3).

    Raises:
        ValueError: Shapes or dtypes differ.
    """
    same = painted.shape == source.shape == (*object_mask.shape, 3)
    if not same or painted.dtype != np.uint8 or source.dtype != np.uint8:
        raise ValueError(
            f"painted {painted.dtype} {painted.shape}, source {source.dtype} {source.shape} and "
            f"object mask {object_mask.shape} do not belong together"
        )
    return np.where(object_mask[:, :, None], source, painted)


def mask_to_rle(object_mask: BoolMask) -> dict[str, Any]:
    """A mask, bool (H, W), as compressed COCO RLE in JSON values: ``size`` and ``counts``."""
    # pycocotools takes nothing but Fortran order.
    encoded = coco_mask.encode(np.asfortranarray(object_mask, dtype=np.uint8))
    return {"size": list(object_mask.shape), "counts": encoded["counts"].decode("ascii")}


def mask_from_rle(encoded: Mapping[str, Any]) -> BoolMask:
    """The mask, bool (H, W), of ``mask_to_rle``.

    Raises:
        ValueError: The RLE is malformed or too large.
    """
    height, width = encoded["size"]
    # First, because a damaged record can claim any size.
    if height * width > MAX_PIXELS:
        raise ValueError(f"an RLE of {width} x {height} has more than {MAX_PIXELS} pixels")
    return rle.to_mask(
        rle.validate(encoded["counts"], (height, width), height, width), height, width
    )


def _squash_rows(object_mask: BoolMask, S: int) -> BoolMask:
    """Bring axis 0 to length S; a cell is True if any row that it overlaps is."""
    rows = object_mask.shape[0]
    cells = np.arange(S, dtype=np.int64)
    # In integers, so that no row is lost to rounding; -(a * -b // c) rounds a * b / c up.
    first, last = cells * rows // S, -((cells + 1) * -rows // S) - 1
    squashed = object_mask[first]
    for offset in range(1, int((last - first).max()) + 1):
        # Cells may differ by a row; a shorter one looks at its last row twice.
        squashed |= object_mask[np.minimum(first + offset, last)]
    return squashed
