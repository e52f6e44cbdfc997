"""Image, masks, polygons and boxes move alike."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from detectron2.structures import polygons_to_bitmask
from hypothesis import assume, given
from hypothesis import strategies as st

from bgaug_d2.augment.affine import AffineTransform, clip_polygon
from bgaug_d2.augment.rand_augment import affine_matrix
from bgaug_d2.config.comparison import GEOMETRIC_OPS
from tests.helpers.factories import noise

H, W = 60, 90


def shifted(x: float, y: float) -> AffineTransform:
    return AffineTransform(np.array([[1, 0, x], [0, 1, y]]), H, W)


@st.composite
def transforms(draw: st.DrawFn) -> AffineTransform:
    """Two operations of RandAugment, one after the other."""
    matrix = np.eye(3)
    for _ in range(2):
        op, strength = draw(st.sampled_from(GEOMETRIC_OPS)), draw(st.floats(-1, 1))
        matrix = np.vstack([affine_matrix(op, strength, H, W), [0, 0, 1]]) @ matrix
    return AffineTransform(matrix[:2], H, W)


@st.composite
def stars(draw: st.DrawFn) -> np.ndarray:
    """A polygon (N, 2) around a point, in general not convex, in part outside the picture."""
    count = draw(st.integers(3, 9))
    radii = draw(st.lists(st.floats(8, 40), min_size=count, max_size=count))
    centre = draw(st.tuples(st.floats(0, W), st.floats(0, H)))
    angles = 2 * np.pi * (np.arange(count) + draw(st.floats(0, 1))) / count
    return np.stack([np.cos(angles), np.sin(angles)], axis=1) * np.array(radii)[:, None] + centre


def rasterised(polygons: list[np.ndarray]) -> np.ndarray:
    if not polygons:
        return np.zeros((H, W), bool)
    return np.asarray(polygons_to_bitmask([each.ravel() for each in polygons], H, W))


def farthest(pixels: np.ndarray, polygon: np.ndarray) -> float:
    """Distance of those pixels' centres from the outline of a polygon, at most, in pixels."""
    outline = polygon.astype(np.float32)[:, None]
    centres = np.argwhere(pixels)[:, ::-1] + 0.5
    return max((abs(cv2.pointPolygonTest(outline, each, True)) for each in centres), default=0)


@given(transforms(), stars())
def test_masks_and_polygons_agree(transform: AffineTransform, polygon: np.ndarray) -> None:
    inside = [clip_polygon(polygon, H, W)]  # as a mask has no pixels beyond the frame either
    assume(len(inside[0]))
    by_mask = transform.apply_segmentation(rasterised(inside))
    by_polygon = rasterised(transform.apply_polygons(inside))
    # Rasterising and sampling both round, but only next to the outline.
    assert farthest(by_mask != by_polygon, transform.apply_coords(inside[0])) < 1.5
    union = np.count_nonzero(by_mask | by_polygon)
    if union > 500:
        assert np.count_nonzero(by_mask & by_polygon) > 0.85 * union


@given(transforms(), stars())
def test_boxes_hold_all_of_an_object(transform: AffineTransform, polygon: np.ndarray) -> None:
    inside = [each for each in [clip_polygon(polygon, H, W)] if len(each)]
    rows, columns = transform.apply_segmentation(rasterised(inside)).nonzero()
    assume(len(rows))
    box = np.array([*polygon.min(axis=0), *polygon.max(axis=0)])
    x0, y0, x1, y1 = transform.apply_box(box[None])[0]
    assert x0 - 1 <= columns.min()
    assert columns.max() + 1 <= x1 + 1
    assert y0 - 1 <= rows.min()
    assert rows.max() + 1 <= y1 + 1


@given(stars())
def test_a_clipped_polygon_is_the_part_in_the_frame(polygon: np.ndarray) -> None:
    clipped = clip_polygon(polygon, H, W)
    margin = 60
    canvas = polygons_to_bitmask([(polygon + margin).ravel()], H + 2 * margin, W + 2 * margin)
    expected = canvas[margin:-margin, margin:-margin]
    if len(clipped):
        assert (clipped >= 0).all()
        assert (clipped <= (W, H)).all()
    assert farthest(rasterised([clipped] if len(clipped) else []) != expected, polygon) < 1.5


@pytest.mark.parametrize("shift", [(W, 0), (-W, 0), (0, H), (0, -H), (3 * W, 3 * H)])
def test_a_polygon_that_leaves_the_frame_is_dropped(shift: tuple[float, float]) -> None:
    whole = np.array([[0.0, 0], [W, 0], [W, H], [0, H]])
    part = whole / 10
    assert len(shifted(*shift).apply_polygons([whole])) == 0
    kept = shifted(W / 2, 0).apply_polygons([part + (0.6 * W, 0), part])
    assert len(kept) == 1
    np.testing.assert_allclose(kept[0].min(axis=0), (W / 2, 0))


def test_a_shift_by_whole_pixels_copies_pixels() -> None:
    image, pixels = noise(H, W), noise(H, W, 1)[:, :, 0] > 128
    moved = shifted(7, -4).apply_image(image)
    np.testing.assert_array_equal(moved[:-4, 7:], image[4:, :-7])
    assert (moved[-4:] == 128).all()
    assert (moved[:, :7] == 128).all()
    moved_mask = shifted(7, -4).apply_segmentation(pixels)
    assert moved_mask.dtype == bool
    np.testing.assert_array_equal(moved_mask[:-4, 7:], pixels[4:, :-7])
    assert not moved_mask[-4:].any()
    assert not moved_mask[:, :7].any()


def test_quarter_turns_copy_pixels() -> None:
    """Points and pixels turn about the same centre, which is half a pixel from a pixel's."""
    image = noise(H, H)
    turn = AffineTransform(np.array([[0, 1, 0], [-1, 0, H]]), H, H)
    np.testing.assert_array_equal(turn.apply_image(image), np.rot90(image))
    np.testing.assert_array_equal(turn.apply_segmentation(image[:, :, 0]), np.rot90(image[:, :, 0]))


def test_fill_and_grey_pictures() -> None:
    transform = AffineTransform(np.array([[1, 0, 5], [0, 1, 0]]), H, W, fill=9)
    assert (transform.apply_image(noise(H, W))[:, :5] == 9).all()
    assert (transform.apply_image(noise(H, W)[:, :, 0])[:, :5] == 9).all()


@given(transforms(), stars())
def test_the_inverse_leads_back(transform: AffineTransform, points: np.ndarray) -> None:
    there = transform.apply_coords(points)
    np.testing.assert_allclose(transform.inverse().apply_coords(there), points, atol=1e-6)


def test_points_given_are_not_changed() -> None:
    points = np.array([[1.0, 2], [30, 4], [5, 50]])
    before = points.copy()
    shifted(3, 4).apply_polygons([points])
    shifted(3, 4).apply_coords(points)
    np.testing.assert_array_equal(points, before)
