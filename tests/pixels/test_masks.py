"""Masks on small images by hand, and on real ones against pycocotools and Detectron2."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from bgaug_d2.config.recipe import RecipeConfig
from bgaug_d2.errors import AnnotationError
from bgaug_d2.jobs.job import JobObject, Rle
from bgaug_d2.painting.prepare import eroded_background_mask
from bgaug_d2.pixels import masks
from bgaug_d2.pixels.object_masks import MASK_SOURCES, ObjectMasks, object_masks
from tests.helpers.factories import make_object, noise, objects_of, tiny_coco

SQUARE = (1.0, 1.0, 4.0, 1.0, 4.0, 3.0, 1.0, 3.0)  # columns 1..3, rows 1..2


def rasterise(*objects: JobObject, height: int = 6, width: int = 8) -> ObjectMasks:
    return object_masks(objects, height, width, 9)


def pixels(*places: tuple[slice | int, slice | int], height: int = 6, width: int = 8) -> Any:
    expected = np.zeros((height, width), dtype=bool)
    for place in places:
        expected[place] = True
    return expected


def test_polygon_box_and_rle() -> None:
    column_major = np.zeros((6, 8), dtype=bool)
    column_major[2:4, 5] = True
    runs = (5 * 6 + 2, 2, 14)
    counts = coco_mask.encode(np.asfortranarray(column_major, np.uint8))["counts"].decode()
    for item, expected, source in (
        (make_object(segmentation=[SQUARE]), pixels(np.s_[1:3, 1:4]), "polygon"),
        (make_object((1.2, 0, 1.9, 2)), pixels(np.s_[0:2, 1:4]), "box"),
        (make_object(segmentation=Rle(6, 8, runs)), column_major, "rle"),
        (make_object(segmentation=Rle(6, 8, counts)), column_major, "compressed_rle"),
    ):
        found = rasterise(item)
        np.testing.assert_array_equal(found.object_mask, expected)
        assert found.object_mask.dtype == np.bool_
        assert found.sources == dict.fromkeys(MASK_SOURCES, 0) | {source: 1}


def test_union_and_counts() -> None:
    found = rasterise(
        make_object(segmentation=[SQUARE, (5, 0, 8, 0, 8, 1, 5, 1)]),
        make_object((0, 5, 2, 1)),
        make_object((6, 4, 2, 2), iscrowd=True),
    )
    expected = pixels(np.s_[1:3, 1:4], np.s_[0, 5:8], np.s_[5, 0:2], np.s_[4:6, 6:8])
    np.testing.assert_array_equal(found.object_mask, expected)
    assert (found.num_objects, found.num_crowd) == (2, 1)
    assert found.sources == {"polygon": 1, "box": 2, "rle": 0, "compressed_rle": 0}


def test_no_object() -> None:
    found = rasterise()
    assert not found.object_mask.any()
    assert (found.num_objects, found.num_crowd, sum(found.sources.values())) == (0, 0, 0)


def test_a_sliver_takes_the_pixels_that_it_touches() -> None:
    """pycocotools gives it none; unprotected, the object would be painted over."""
    sliver = (2.1, 1.0, 2.2, 1.0, 2.2, 3.5)
    assert not coco_mask.area(coco_mask.frPyObjects([list(sliver)], 6, 8)).any()
    np.testing.assert_array_equal(
        rasterise(make_object(segmentation=[sliver])).object_mask, pixels(np.s_[1:4, 2])
    )


def test_two_equal_slivers_are_two_objects() -> None:
    sliver = make_object(segmentation=[(2.1, 1.0, 2.2, 1.0, 2.2, 3.5)])
    visible = make_object(segmentation=[SQUARE])
    found = rasterise(visible, sliver, sliver)
    np.testing.assert_array_equal(found.object_mask, pixels(np.s_[1:3, 1:4], np.s_[1:4, 2]))


def test_an_empty_rle_falls_back_to_its_box() -> None:
    found = rasterise(make_object((1, 1, 2, 2), Rle(6, 8, (48,))))
    np.testing.assert_array_equal(found.object_mask, pixels(np.s_[1:3, 1:3]))
    assert found.sources["box"] == 1


def test_what_real_data_has_is_tolerated() -> None:
    beyond = (-3.0, 1.0, 4.0, 1.0, 4.0, 9.0, -3.0, 9.0)
    np.testing.assert_array_equal(
        rasterise(make_object(segmentation=[beyond])).object_mask, pixels(np.s_[1:6, 0:4])
    )
    at_the_edge = (8.0, 2.0, 8.0, 3.0, 8.0, 4.0)  # all of it on the border line
    np.testing.assert_array_equal(
        rasterise(make_object(segmentation=[at_the_edge])).object_mask, pixels(np.s_[2:4, 7])
    )
    flat_box = make_object((1, 1, 3, 0), [SQUARE])
    np.testing.assert_array_equal(rasterise(flat_box).object_mask, pixels(np.s_[1:3, 1:4]))
    np.testing.assert_array_equal(
        rasterise(make_object((-2, -2, 3.5, 100))).object_mask, pixels(np.s_[:, 0:2])
    )


@pytest.mark.parametrize(
    ("x", "y"), [(8, 0), (20, 0), (-3, 0), (-9, 0), (0, 6), (0, 9), (0, -3), (0, -9)]
)
def test_an_object_outside_is_refused(x: float, y: float) -> None:
    with pytest.raises(AnnotationError, match="image 9, annotation 5: .* outside the image, 8 x 6"):
        rasterise(make_object((x, y, 3, 3)))
    if (x, y) not in ((8, 0), (-3, 0), (0, 6), (0, -3)):  # a polygon may touch the border
        with pytest.raises(AnnotationError, match="outside the image, 8 x 6"):
            rasterise(make_object(segmentation=[(x, y, x + 3, y, x + 3, y + 3)]))


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, 1e8, -1e8, 1e300])
def test_an_object_made_by_hand_is_checked_too(number: float) -> None:
    """``jobs`` refuses most of these earlier, but a crash of pycocotools must not depend on it."""
    for item in (
        make_object((1, number, 3, 3)),
        make_object((number, 1, 3, 3), [SQUARE]),
        make_object(segmentation=[(1, 1, number, 4, 4, 4)]),
    ):
        with pytest.raises(AnnotationError, match="annotation 5: .* not a usable number"):
            rasterise(item)


def test_a_polygon_of_a_wrong_length_is_refused() -> None:
    for length in (0, 4, 7):
        with pytest.raises(AnnotationError, match=f"a polygon has {length} numbers"):
            rasterise(make_object(segmentation=[(1.0,) * length]))


def test_points_may_lie_outside_by_the_longer_side() -> None:
    for near, far in (((16, 0), (16.1, 0)), ((-8, 0), (-8.1, 0)), ((0, 14), (0, 14.1))):
        assert rasterise(make_object(segmentation=[(1, 1, 4, 4, *near)])).object_mask.any()
        with pytest.raises(AnnotationError, match="far outside the image"):
            rasterise(make_object(segmentation=[(1, 1, 4, 4, *far)]))


@pytest.mark.parametrize(("height", "width"), [(0, 8), (6, 0), (-6, -8), (100_000, 100_000)])
def test_an_impossible_image_is_refused(height: int, width: int) -> None:
    with pytest.raises(AnnotationError, match="image 9"):
        object_masks([], height, width, 9)


def test_background_ratio() -> None:
    object_mask = pixels(np.s_[0:3, :])
    assert masks.background_ratio(object_mask) == 0.5
    assert masks.background_ratio(~pixels()) == 0.0
    assert masks.background_ratio(pixels()) == 1.0


def test_erosion_grows_objects_and_not_the_border() -> None:
    background = ~pixels(np.s_[3, 4])
    np.testing.assert_array_equal(masks.erode_background(background, 3), ~pixels(np.s_[2:5, 3:6]))
    np.testing.assert_array_equal(masks.erode_background(background, 1), background)
    assert masks.erode_background(~pixels(), 7).all()
    assert not masks.erode_background(background, 255).any()
    for kernel in (0, 2, -3):
        with pytest.raises(ValueError, match="must be odd"):
            masks.erode_background(background, kernel)


def test_erosion_takes_any_layout_of_memory() -> None:
    background = ~pixels(np.s_[3, 4])
    expected = masks.erode_background(background, 3)
    np.testing.assert_array_equal(
        masks.erode_background(np.asfortranarray(background), 3), expected
    )
    np.testing.assert_array_equal(masks.erode_background(background[::-1], 3), expected[::-1])


def test_a_pixel_survives_any_shrinking() -> None:
    object_mask = np.zeros((4000, 3000), dtype=bool)
    object_mask[1234, 2345] = True
    square = masks.square_object_mask(object_mask, 64)
    assert np.argwhere(square).tolist() == [[1234 * 64 // 4000, 2345 * 64 // 3000]]


def test_squaring_an_image_that_is_square_changes_nothing() -> None:
    object_mask = noise(64, 64)[:, :, 0] > 128
    np.testing.assert_array_equal(masks.square_object_mask(object_mask, 64), object_mask)
    doubled = masks.square_object_mask(object_mask, 128)
    np.testing.assert_array_equal(doubled, object_mask.repeat(2, axis=0).repeat(2, axis=1))


def test_a_latent_cell_is_background_only_if_all_of_it_is() -> None:
    background = np.ones((16, 16), dtype=bool)
    background[7, 8] = False
    np.testing.assert_array_equal(
        masks.latent_background_mask(background, 8), [[True, False], [True, True]]
    )
    with pytest.raises(ValueError, match="multiple of 8"):
        masks.latent_background_mask(background[:15, :15], 8)


def test_erosion_counts_pixels_of_the_square_or_of_the_image() -> None:
    object_mask = np.zeros((128, 256), dtype=bool)
    object_mask[64, 128] = True
    for where, size in (("diffusion", (7, 7)), ("image", (7 / 2, 7 / 4))):
        settings = RecipeConfig(resolution=64, erosion_resolution=where)
        kept = ~eroded_background_mask(object_mask, settings)
        assert kept.shape == (64, 64)
        rows, columns = kept.any(axis=1).sum(), kept.any(axis=0).sum()
        assert (rows, columns) == tuple(int(np.ceil(side)) for side in size)


def test_composite_refuses_what_does_not_fit() -> None:
    source, object_mask = noise(6, 8), pixels()
    wrong: list[Any] = [noise(6, 7), noise(6, 8).astype(np.float32), noise(6, 8)[:, :, :2]]
    for painted in wrong:
        with pytest.raises(ValueError, match="do not belong together"):
            masks.composite(painted, source, object_mask)
    with pytest.raises(ValueError, match="do not belong together"):
        masks.composite(source, source, object_mask[:5])


def test_composite_leaves_its_arguments() -> None:
    painted, source = noise(6, 8, 1), noise(6, 8, 2)
    before = painted.copy(), source.copy()
    result = masks.composite(painted, source, pixels(np.s_[1, 1]))
    result[:] = 0
    np.testing.assert_array_equal(painted, before[0])
    np.testing.assert_array_equal(source, before[1])


def test_an_rle_of_a_cache_is_checked() -> None:
    with pytest.raises(ValueError, match="more than"):
        masks.mask_from_rle({"size": [10**6, 10**6], "counts": "0"})
    with pytest.raises(ValueError, match="add up"):
        masks.mask_from_rle({"size": [2, 3], "counts": "5"})


def test_real_images_as_pycocotools_and_detectron2_see_them(tiny_coco_root: Any) -> None:
    """All 100 images of tiny COCO: polygons, crowd RLE, and the RLE that Detectron2 makes of it."""
    structures = pytest.importorskip("detectron2.structures.masks")
    seen = {"polygon": 0, "rle": 0, "crowd": 0}
    for record, annos, _ in tiny_coco(tiny_coco_root):
        height, width = record["height"], record["width"]
        expected = np.zeros((height, width), dtype=bool)
        for annotation in annos:
            segmentation = annotation["segmentation"]
            if isinstance(segmentation, dict):
                segmentation = coco_mask.frPyObjects(segmentation, height, width)
                expected |= coco_mask.decode(segmentation).astype(bool)
                annotation["segmentation"] = segmentation
            else:
                expected |= structures.polygons_to_bitmask(
                    [np.array(polygon) for polygon in segmentation], height, width
                )
        found = object_masks(objects_of(annos, record["id"]), height, width, 9)
        np.testing.assert_array_equal(found.object_mask, expected)
        assert found.num_objects + found.num_crowd == len(annos)
        seen["polygon"] += found.sources["polygon"]
        seen["rle"] += found.sources["compressed_rle"]
        seen["crowd"] += found.num_crowd
    assert seen["polygon"] > 500
    assert seen["crowd"] == seen["rle"] == 10


def test_real_crowd_regions_as_the_json_has_them(tiny_coco_root: Any) -> None:
    """Run lengths straight from the JSON give the same mask as their compressed form."""
    crowds = 0
    for record, annos, _ in tiny_coco(tiny_coco_root):
        height, width = record["height"], record["width"]
        for annotation in annos:
            if not annotation["iscrowd"]:
                continue
            found = object_masks(objects_of([annotation], 9), height, width, 9)
            assert found.sources["rle"] == 1
            encoded = coco_mask.frPyObjects(annotation["segmentation"], height, width)
            np.testing.assert_array_equal(found.object_mask, coco_mask.decode(encoded))
            crowds += 1
    assert crowds == 10
