"""What holds for any object on any image: none vanishes, none of its pixels changes."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco_mask

from bgaug_d2.config.recipe import RecipeConfig
from bgaug_d2.painting.prepare import eroded_background_mask
from bgaug_d2.pixels import masks
from bgaug_d2.pixels.object_masks import object_masks
from tests.helpers.factories import make_object

SIDES = st.integers(1, 40)


@st.composite
def bool_masks(draw: st.DrawFn) -> np.ndarray:
    return draw(hnp.arrays(np.bool_, (draw(SIDES), draw(SIDES))))


@st.composite
def places(draw: st.DrawFn) -> tuple[int, int, int, int]:
    """Height, width, row and column of one pixel, on images of every usual size."""
    height, width = draw(st.integers(1, 2000)), draw(st.integers(1, 2000))
    return height, width, draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))


@given(places(), st.sampled_from([(512, 8), (128, 8), (128, 4), (64, 8)]), st.sampled_from([1, 7]))
@example((4000, 4000, 3999, 3999), (512, 8), 1)
@example((1, 1, 0, 0), (512, 8), 1)
def test_an_object_of_one_pixel_owns_a_latent_cell(
    place: tuple[int, int, int, int], grid: tuple[int, int], kernel: int
) -> None:
    """Nearest sampling would lose it nearly always; every larger object covers such a pixel."""
    height, width, row, column = place
    S, factor = grid
    object_mask = np.zeros((height, width), dtype=bool)
    object_mask[row, column] = True
    settings = RecipeConfig(resolution=S, erosion_kernel=kernel)
    kept = ~masks.latent_background_mask(eroded_background_mask(object_mask, settings), factor)
    assert kept.shape == (S // factor, S // factor)
    assert kept[row * S // height // factor, column * S // width // factor]


@given(
    st.integers(1, 700),
    st.integers(1, 700),
    st.lists(st.tuples(*[st.floats(0, 1)] * 2), min_size=1, max_size=5),
)
def test_every_object_owns_a_latent_cell(
    height: int, width: int, corners: list[tuple[float, float]]
) -> None:
    objects = [make_object((x * width * 0.99, y * height * 0.99, 0.5, 0.5)) for x, y in corners]
    union = object_masks(objects, height, width, 1).object_mask
    for item in objects:
        own = object_masks([item], height, width, 1).object_mask
        assert own.any()
        assert not (own & ~union).any()
        background_mask = eroded_background_mask(own, RecipeConfig())
        assert not masks.latent_background_mask(background_mask, 8).all()


@given(bool_masks(), st.integers(1, 50))
def test_square_mask_by_its_definition(object_mask: np.ndarray, S: int) -> None:
    """A cell is True exactly if it overlaps an object pixel: r / H .. (r + 1) / H, i / S .."""
    height, width = object_mask.shape
    cell = np.arange(S)[:, None]

    def overlaps(n: int) -> np.ndarray:
        pixel = np.arange(n)[None, :]
        return (pixel * S < (cell + 1) * n) & (cell * n < (pixel + 1) * S)

    touched = overlaps(height).astype(int) @ object_mask.astype(int) @ overlaps(width).T.astype(int)
    np.testing.assert_array_equal(masks.square_object_mask(object_mask, S), touched > 0)


@given(bool_masks(), st.sampled_from([1, 3, 5, 7, 15]))
def test_erosion_is_the_minimum_filter(background_mask: np.ndarray, kernel: int) -> None:
    padded = np.pad(background_mask, kernel // 2, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (kernel, kernel))
    eroded = masks.erode_background(background_mask, kernel)
    np.testing.assert_array_equal(eroded, windows.min(axis=(2, 3)))
    assert eroded.dtype == np.bool_


@given(bool_masks(), st.integers(1, 64), st.sampled_from(["diffusion", "image"]))
def test_what_is_painted_is_background(object_mask: np.ndarray, S: int, where: str) -> None:
    """No painted pixel of the square touches an object, and a wider kernel paints less."""
    settings = RecipeConfig(erosion_resolution=where, erosion_kernel=3)
    settings.resolution = S  # smaller than a recipe may have it
    painted = eroded_background_mask(object_mask, settings)
    settings.erosion_kernel = 5
    less = eroded_background_mask(object_mask, settings)
    assert not (painted & masks.square_object_mask(object_mask, S)).any()
    assert not (less & ~painted).any()


@given(bool_masks(), st.sampled_from([32, 64, 128]), st.sampled_from([4, 8]), st.integers(0, 10**6))
def test_every_cell_that_an_object_touches_is_painted(
    object_mask: np.ndarray, S: int, factor: int, place: int
) -> None:
    object_mask.flat[place % object_mask.size] = True
    square = masks.square_object_mask(object_mask, S)
    cells = masks.touched_latent_mask(square, factor)
    assert cells.shape == (S // factor, S // factor)
    assert cells.any()
    pixels = cells.repeat(factor, 0).repeat(factor, 1)
    assert not (square & ~pixels).any()
    owned = square.reshape(S // factor, factor, S // factor, factor).any(axis=(1, 3))
    np.testing.assert_array_equal(cells, owned)


@given(st.data())
def test_composite_keeps_object_pixels_bit_for_bit(data: st.DataObject) -> None:
    object_mask = data.draw(bool_masks())
    pictures = hnp.arrays(np.uint8, (*object_mask.shape, 3))
    source, painted = data.draw(pictures), data.draw(pictures)
    result = masks.composite(painted, source, object_mask)
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result[object_mask], source[object_mask])
    np.testing.assert_array_equal(result[~object_mask], painted[~object_mask])


@given(bool_masks())
def test_background_ratio_counts_pixels(object_mask: np.ndarray) -> None:
    ratio = masks.background_ratio(object_mask)
    assert 0 <= ratio <= 1
    assert ratio * object_mask.size == np.float64((~object_mask).sum()) or np.isclose(
        ratio * object_mask.size, (~object_mask).sum()
    )


@given(bool_masks())
def test_a_mask_survives_its_rle(object_mask: np.ndarray) -> None:
    encoded = masks.mask_to_rle(object_mask)
    np.testing.assert_array_equal(masks.mask_from_rle(encoded), object_mask)


@st.composite
def polygon_objects(draw: st.DrawFn) -> tuple[int, int, list[Any]]:
    """Polygons around an image of H x W, none far outside, each with a point inside."""
    height, width = draw(SIDES), draw(SIDES)
    margin = max(height, width)
    xs, ys = st.floats(-margin, width + margin), st.floats(-margin, height + margin)
    inside = st.tuples(st.floats(0, width), st.floats(0, height))
    polygon = st.tuples(inside, st.lists(st.tuples(xs, ys), min_size=2, max_size=8))
    polygons = draw(st.lists(st.lists(polygon, min_size=1, max_size=3), min_size=1, max_size=3))
    objects = [
        make_object(segmentation=[[v for p in (first, *rest) for v in p] for first, rest in parts])
        for parts in polygons
    ]
    return height, width, objects


@given(polygon_objects())
def test_polygons_as_pycocotools_and_never_nothing(case: tuple[int, int, list[Any]]) -> None:
    height, width, objects = case
    expected = np.zeros((height, width), dtype=bool)
    for item in objects:
        polygons = [list(polygon) for polygon in item.segmentation]
        encoded = coco_mask.frPyObjects(polygons, height, width)
        own = coco_mask.decode(coco_mask.merge(encoded)).astype(bool)
        found = object_masks([item], height, width, 1)
        assert found.object_mask.any()
        if own.any():
            np.testing.assert_array_equal(found.object_mask, own)
        expected |= found.object_mask
    union = object_masks(objects, height, width, 1)
    np.testing.assert_array_equal(union.object_mask, expected)
    assert union.sources["polygon"] == len(objects)
