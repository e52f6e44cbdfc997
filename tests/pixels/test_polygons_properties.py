"""Any mask comes back from its polygons, pixel for pixel."""

from __future__ import annotations

import cv2
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pycocotools import mask as coco_mask

from bgaug_d2.pixels.polygons import mask_to_polygons


def rasterise(polygons: list[list[float]], shape: tuple[int, int]) -> np.ndarray:
    encoded = coco_mask.frPyObjects(polygons, *shape)
    return coco_mask.decode(coco_mask.merge(encoded)).astype(bool)


@given(arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=24)))
def test_any_mask_survives(mask: np.ndarray) -> None:
    polygons = mask_to_polygons(mask)
    assert (polygons == []) == (not mask.any())
    if polygons:
        np.testing.assert_array_equal(rasterise(polygons, mask.shape), mask)


@given(st.integers(0, 10_000), st.integers(3, 90), st.integers(3, 90), st.floats(0.2, 0.8))
def test_blobs_with_holes_survive_and_fit_detectron2(
    seed: int, height: int, width: int, level: float
) -> None:
    grid = np.random.default_rng(seed).random((6, 6), dtype=np.float32)
    mask = cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC) > level
    polygons = mask_to_polygons(mask)
    assert all(len(polygon) >= 6 and len(polygon) % 2 == 0 for polygon in polygons)
    if polygons:
        np.testing.assert_array_equal(rasterise(polygons, mask.shape), mask)
