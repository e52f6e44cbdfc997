"""An affine map of image, masks, polygons and boxes, as one of Detectron2's transforms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from detectron2.data.transforms import Transform

Array = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float64]

# px^2; a polygon that only touches the image keeps a line or a point, which has no area.
_MIN_AREA = 1e-6


class AffineTransform(Transform):
    """Moves a picture within its frame, which keeps its size.

    Args:
        matrix: float (2, 3) ``[A | t]``: a point (x, y) of the picture goes to ``A (x, y) + t``.
            Coordinates are Detectron2's: pixel i covers [i, i + 1).
        height: Height of the picture, in pixels.
        width: Width of the picture, in pixels.
        fill: Grey value, 0..255, of pixels that come from outside the picture.
    """

    def __init__(self, matrix: Array, height: int, width: int, fill: int = 128) -> None:
        super().__init__()
        self.matrix = np.asarray(matrix, dtype=np.float64)
        self.height = height
        self.width = width
        self.fill = fill

    def apply_image(self, img: Array) -> Array:
        """Move ``img``, uint8 or float32, (H, W) or (H, W, 3), with bilinear interpolation."""
        return self._warp(img, cv2.INTER_LINEAR, self.fill)

    def apply_segmentation(self, segmentation: Array) -> Array:
        """Move ``segmentation``, uint8 or bool (H, W), by nearest pixels; outside is 0."""
        warped = self._warp(segmentation.astype(np.uint8), cv2.INTER_NEAREST, 0)
        return warped.astype(segmentation.dtype)

    def apply_coords(self, coords: Array) -> FloatArray:
        """Move points (N, 2) as (x, y), inside and outside the picture."""
        moved: FloatArray = np.asarray(coords, np.float64) @ self.matrix[:, :2].T
        return moved + self.matrix[:, 2]

    def apply_polygons(self, polygons: Sequence[Array]) -> list[FloatArray]:
        """Move polygons (N, 2) and cut them at the frame; one that leaves it is dropped."""
        clipped = [
            clip_polygon(self.apply_coords(each), self.height, self.width) for each in polygons
        ]
        # Detectron2 cannot rasterise empty polygons.
        return [each for each in clipped if len(each)]

    def inverse(self) -> AffineTransform:
        """The opposite movement; pixels that left the frame stay lost."""
        matrix = cv2.invertAffineTransform(self.matrix)
        return AffineTransform(matrix, self.height, self.width, self.fill)

    def _warp(self, img: Array, interpolation: int, fill: int) -> Array:
        # OpenCV's origin is the centre of the first pixel, Detectron2's (0.5, 0.5).
        matrix = self.matrix.copy()
        matrix[:, 2] += matrix[:, :2] @ (0.5, 0.5) - 0.5
        warped: Array = cv2.warpAffine(
            # OpenCV refuses views with negative strides, such as a flipped picture.
            np.ascontiguousarray(img),
            matrix,
            (self.width, self.height),
            flags=interpolation,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=(fill, fill, fill),
        )
        return warped


def clip_polygon(polygon: FloatArray, height: int, width: int) -> FloatArray:
    """Cut a polygon at the borders of an image (Sutherland and Hodgman 1974).

    Args:
        polygon: float (N, 2), corners (x, y), convex or not. Parts that the image's border
            separates stay joined by edges along that border, which enclose no area.
        height: Height of the image, in pixels.
        width: Width of the image, in pixels.

    Returns:
        float (M, 2) with coordinates in 0..width and 0..height; (0, 2) where no area is left.
    """
    empty = np.zeros((0, 2))
    # Each border cuts what the borders before it have left.
    for axis, border, side in ((0, 0, 1), (0, width, -1), (1, 0, 1), (1, height, -1)):
        corners = []
        inside = side * (polygon[:, axis] - border) >= 0
        for current, following in zip(
            range(-1, len(polygon) - 1), range(len(polygon)), strict=True
        ):
            start, end = polygon[current], polygon[following]
            if inside[current] != inside[following]:
                share = (border - start[axis]) / (end[axis] - start[axis])
                crossing = start + share * (end - start)
                crossing[axis] = border  # no rounding beyond the border
                corners.append(crossing)
            if inside[following]:
                corners.append(end)
        polygon = np.array(corners).reshape(-1, 2)
        if len(polygon) < 3:
            return empty
    x, y = polygon.T  # the shoelace formula
    area = abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2
    return polygon if area > _MIN_AREA else empty
