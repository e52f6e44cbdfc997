"""Masks as polygons. Mask R-CNN's default mask format in Detectron2 takes polygons only, no RLE."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt


def mask_to_polygons(mask: npt.NDArray[np.bool_]) -> list[list[float]]:
    """Polygons, in COCO's format, that pycocotools rasterises to exactly ``mask``.

    The outline runs a quarter of a pixel outside the outermost pixel centres, so no centre lies on
    it. COCO's polygons have no holes: a part with a hole is cut in two at the hole, again and
    again.

    Args:
        mask: bool (H, W).

    Returns:
        Polygons ``[x0, y0, x1, y1, ...]`` in pixels, pixel i covering [i, i + 1); none for an
        empty mask.
    """
    polygons: list[list[float]] = []
    x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
    whole = mask[y : y + height, x : x + width].astype(np.uint8)
    rest = [(whole, x)] if whole.size else []  # parts of the mask and the column where each begins
    while rest:
        part, left = rest.pop()
        # At twice the size a contour, which runs through pixel centres, has an area everywhere.
        doubled = part.repeat(2, axis=0).repeat(2, axis=1)
        contours, hierarchy = cv2.findContours(doubled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
        holes = [
            contour for contour, row in zip(contours, hierarchy[0], strict=True) if row[3] >= 0
        ]
        if holes:
            columns = holes[0][:, 0, 0]  # of the rim, so some of it lies on either side of the cut
            cut = (int(columns.min()) + int(columns.max()) + 1) // 4
            rest += [(part[:, cut:], left + cut), (part[:, :cut], left)]
            continue
        for contour in contours:
            points = (contour[:, 0, :] + 0.5) / 2 + (left, y)
            polygons.append([float(value) for value in points.ravel()])
    return polygons
