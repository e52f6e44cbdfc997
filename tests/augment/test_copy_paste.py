"""Copy-paste: what is pasted, what is left of what it covers, and what goes into training."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from bgaug_d2.augment.copy_paste import CopyPaste
from bgaug_d2.augment.objects import object_from_mask, object_mask, objects_of
from bgaug_d2.config.comparison import CopyPasteConfig
from bgaug_d2.errors import ConfigError, DatasetError
from bgaug_d2.pixels.masks import mask_to_rle
from bgaug_d2.pixels.polygons import mask_to_polygons
from tests.helpers.dataset_dicts import XYWH_ABS, annotation, make_dict
from tests.helpers.factories import noise

H, W = 40, 56
DONOR_H, DONOR_W = 32, 48
KINDS = ("polygon", "rle", "uncompressed_rle", "box")


def annotated(pixels: np.ndarray, kind: str, category_id: int = 0) -> dict[str, Any]:
    """An annotation of a mask in each form that a data set may have."""
    rows, columns = pixels.nonzero()
    x, y = columns.min(), rows.min()
    box = [float(each) for each in (x, y, columns.max() + 1 - x, rows.max() + 1 - y)]
    found = {"bbox": box, "bbox_mode": XYWH_ABS, "category_id": category_id, "iscrowd": 0}
    if kind == "polygon":
        found["segmentation"] = mask_to_polygons(pixels)
    elif kind == "rle":
        found["segmentation"] = mask_to_rle(pixels)
    elif kind == "uncompressed_rle":
        flat = np.concatenate([[False], pixels.ravel(order="F"), [not pixels[-1, -1]]])
        ends = (flat[1:] != flat[:-1]).nonzero()[0]
        counts = np.diff(ends, prepend=0).tolist()
        found["segmentation"] = {"size": list(pixels.shape), "counts": counts}
    return found


def blob(height: int, width: int, x: int, y: int, w: int, h: int) -> np.ndarray:
    """A block with a corner cut off, so that it is not its box."""
    pixels = np.zeros((height, width), bool)
    pixels[y : y + h, x : x + w] = True
    pixels[y : y + h // 2, x : x + w // 2] = False
    return pixels


def shown(item: dict[str, Any], kind: str, pixels: np.ndarray) -> np.ndarray:
    """The pixels that an annotation of ``pixels`` stands for."""
    if kind != "box":
        return pixels
    x, y, w, h = (int(each) for each in item["bbox"])
    box = np.zeros_like(pixels)
    box[y : y + h, x : x + w] = True
    return box


def donor_of(root: Path, annotations: list[dict[str, Any]]) -> dict[str, Any]:
    donor = make_dict(root, 900, DONOR_H, DONOR_W)
    Image.fromarray(noise(DONOR_H, DONOR_W, 5) // 2 + 128).save(donor["file_name"])  # bright
    return {**donor, "annotations": annotations}


def paster(donor: dict[str, Any], **options: Any) -> CopyPaste:
    defaults: dict[str, Any] = {"p": 1.0, "scale": [1.0, 1.0], "min_visible": 0.0}
    return CopyPaste(CopyPasteConfig(**defaults | options), [donor], "RGB")


def boxes_are_tight(objects: list[dict[str, Any]]) -> None:
    for each in objects:
        rows, columns = object_mask(each, H, W).nonzero()
        expected = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_allclose(each["bbox"], expected)


BLOBS = st.tuples(st.integers(0, 24), st.integers(0, 16), st.integers(4, 24), st.integers(4, 16))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(BLOBS, min_size=1, max_size=4),
    st.lists(BLOBS, min_size=1, max_size=4),
    st.integers(0, 999),
)
def test_a_paste(
    tmp_path: Path,
    kind: str,
    donor_blobs: list[tuple[int, int, int, int]],
    target_blobs: list[tuple[int, int, int, int]],
    seed: int,
) -> None:
    donor_masks = [blob(DONOR_H, DONOR_W, *each) for each in donor_blobs]
    donor = donor_of(tmp_path, [annotated(each, kind, 7) for each in donor_masks])
    target_masks = [blob(H, W, *each) for each in target_blobs]
    annotations = [annotated(each, kind, index) for index, each in enumerate(target_masks)]
    target, objects = noise(H, W, seed) // 2, objects_of(annotations)  # dark
    target_before, objects_before = target.copy(), copy.deepcopy(objects)
    np.random.seed(seed)
    picture, result = paster(donor)(target, objects)

    # Pasted objects come last, each whole or cut by the border, and their pixels are the donor's.
    assert [each["category_id"] == 7 for each in result] == sorted(
        each["category_id"] == 7 for each in result
    )
    left = [each for each in result if each["category_id"] != 7]
    pasted = [each for each in result if each["category_id"] == 7]
    assert 1 <= len(pasted) <= len(donor_masks)
    covered = np.logical_or.reduce([object_mask(each, H, W) for each in pasted])
    np.testing.assert_array_equal(picture[~covered], target[~covered])
    assert (picture[covered] >= 128).all()
    donor_picture = noise(DONOR_H, DONOR_W, 5) // 2 + 128
    items = zip(donor["annotations"], donor_masks, strict=True)
    donor_mask = np.logical_or.reduce([shown(each, kind, pixels) for each, pixels in items])
    assert any(
        np.array_equal(picture[place][covered[place]], donor_picture[:, ::step][covered[place]])
        for place, step in placements()
        if covered[place].sum() == covered.sum()
        and not (covered[place] & ~donor_mask[:, ::step]).any()
    )
    # The target's objects lose exactly the covered pixels.
    boxes_are_tight(result)
    for each in left:
        index = each["category_id"]
        before = shown(annotations[index], kind, target_masks[index])
        np.testing.assert_array_equal(object_mask(each, H, W), before & ~covered)
    lost = set(range(len(annotations))) - {each["category_id"] for each in left}
    for index in lost:
        assert not (shown(annotations[index], kind, target_masks[index]) & ~covered).any()
    # Nothing that was given has changed.
    np.testing.assert_array_equal(target, target_before)
    for now, then in zip(objects, objects_before, strict=True):
        np.testing.assert_equal(now, then)


def placements() -> Iterator[tuple[tuple[slice, slice], int]]:
    """Places on the target where the donor may lie, and the step in x that flips it or not."""
    for top in range(H - DONOR_H + 1):
        for left in range(W - DONOR_W + 1):
            for step in (1, -1):
                yield (slice(top, top + DONOR_H), slice(left, left + DONOR_W)), step


@pytest.mark.parametrize(
    ("scale", "fewest", "most"), [([0.05, 0.1], 0, 1), ([0.9, 1.2], 1, 3), ([3.0, 4.0], 0, 1)]
)
def test_any_scale(tmp_path: Path, scale: list[float], fewest: int, most: int) -> None:
    """Objects without a pixel are skipped, large ones are cut at the border."""
    sizes = [(1, 1), (4, 3), (30, 30)]
    items = [annotated(blob(DONOR_H, DONOR_W, 2, 2, *each), "rle", 7) for each in sizes]
    paste = paster(donor_of(tmp_path, items), scale=scale)
    target = noise(H, W) // 2
    counts = set()
    for seed in range(30):
        np.random.seed(seed)
        picture, pasted = paste(target, [])
        boxes_are_tight(pasted)
        bright = (picture != target).any(axis=2)
        covered = np.zeros((H, W), bool)
        for each in pasted:
            covered |= object_mask(each, H, W)
        np.testing.assert_array_equal(bright, covered)
        counts.add(len(pasted))
    assert (min(counts), max(counts)) == (fewest, most)


def test_at_most_max_objects(tmp_path: Path) -> None:
    items = [annotated(blob(DONOR_H, DONOR_W, 5 * i, 2, 4, 4), "rle", i) for i in range(8)]
    for most, expected in ((3, {1, 2, 3}), (20, set(range(1, 9)))):
        paste = paster(donor_of(tmp_path, items), max_objects=most)
        np.random.seed(0)
        drawn = [{each["category_id"] for each in paste(noise(H, W), [])[1]} for _ in range(80)]
        assert {len(each) for each in drawn} == expected
        assert set().union(*drawn) == set(range(8))


def test_crowds_are_not_pasted(tmp_path: Path) -> None:
    item = annotated(blob(DONOR_H, DONOR_W, 20, 20, 8, 8), "rle", 3)
    crowd = {**annotated(np.ones((DONOR_H, DONOR_W), bool), "rle", 7), "iscrowd": 1}
    paste = paster(donor_of(tmp_path, [crowd, item]))
    for seed in range(10):
        np.random.seed(seed)
        assert [each["category_id"] for each in paste(noise(H, W), [])[1]] == [3]


@pytest.mark.parametrize(("min_visible", "kept"), [(0.0, True), (0.24, True), (0.26, False)])
def test_an_object_of_which_little_is_left_is_dropped(
    tmp_path: Path, min_visible: float, kept: bool
) -> None:
    """The donor is one object as large as the target's three quarters."""
    everywhere = annotated(np.ones((DONOR_H, DONOR_W), bool), "rle", 7)
    paste = paster(donor_of(tmp_path, [everywhere]), min_visible=min_visible)
    target = noise(DONOR_H, DONOR_W // 3 * 4)
    whole = object_from_mask(1, np.ones(target.shape[:2], bool))
    _, result = paste(target, [whole])
    assert [each["category_id"] for each in result] == ([1, 7] if kept else [7])


def test_a_pasted_object_must_be_visible_too(tmp_path: Path) -> None:
    """At four times its size an object of the donor's whole area is seen to a tenth at most."""
    everywhere = annotated(np.ones((DONOR_H, DONOR_W), bool), "rle", 7)
    donor, target = donor_of(tmp_path, [everywhere]), noise(H, W)
    assert len(paster(donor, scale=[4, 4])(target, [])[1]) == 1
    picture, pasted = paster(donor, scale=[4, 4], min_visible=0.2)(target, [])
    assert (picture is target, pasted) == (True, [])


def test_how_often(tmp_path: Path) -> None:
    donor = donor_of(tmp_path, [annotated(blob(DONOR_H, DONOR_W, 4, 4, 9, 9), "rle")])
    target, objects = noise(H, W), [object_from_mask(1, blob(H, W, 0, 0, 5, 5))]
    np.random.seed(0)
    results = [paster(donor, p=0.3)(target, objects) for _ in range(200)]
    untouched = [each for each in results if each[0] is target]
    assert all(each[1] is objects for each in untouched)
    assert 120 < len(untouched) < 160


def test_a_sliver_has_the_pixels_that_its_box_touches() -> None:
    sliver = annotation(bbox=[3.6, 2.2, 0.3, 3.0], segmentation=[[3.6, 2.2, 3.9, 2.2, 3.9, 5.2]])
    (item,) = objects_of([sliver])
    rows, columns = object_mask(item, H, W).nonzero()
    assert (set(rows), set(columns)) == ({2, 3, 4, 5}, {3})
    (item,) = objects_of([annotation(bbox=[W - 0.3, H - 0.3, 0.2, 0.2], segmentation=[])])
    assert np.argwhere(object_mask(item, H, W)).tolist() == [[H - 1, W - 1]]


def test_the_same_in_another_process(tmp_path: Path) -> None:
    items = [annotated(blob(DONOR_H, DONOR_W, 9 * i, 2, 8, 8), "rle", i) for i in range(4)]
    paste = paster(donor_of(tmp_path, items), scale=[0.5, 1.5])
    found = []
    for each in (paste, pickle.loads(pickle.dumps(paste))):
        np.random.seed(3)
        found.append(each(noise(H, W), []))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    assert found[0][1] == found[1][1]


@pytest.mark.parametrize("fault", ["missing", "no_picture", "truncated", "size"])
def test_an_unreadable_donor_is_named(tmp_path: Path, fault: str) -> None:
    donor = donor_of(tmp_path, [annotated(blob(DONOR_H, DONOR_W, 4, 4, 9, 9), "rle")])
    path = Path(donor["file_name"])
    if fault == "missing":
        path.unlink()
    elif fault == "no_picture":
        path.write_text("text")
    elif fault == "truncated":
        path.write_bytes(path.read_bytes()[:200])
    else:
        donor["width"] += 1
    with pytest.raises(DatasetError, match=r"train/900\.png.* cannot be read"):
        paster(donor)(noise(H, W), [])


def test_an_rle_of_another_size_is_an_error(tmp_path: Path) -> None:
    item = annotated(blob(DONOR_H + 1, DONOR_W, 4, 4, 9, 9), "rle")
    with pytest.raises(DatasetError, match=r"\[33, 48\].*\[32, 48\]"):
        paster(donor_of(tmp_path, [item]))(noise(H, W), [])


def test_a_data_set_without_objects_is_an_error(tmp_path: Path) -> None:
    crowd = {**annotated(np.ones((DONOR_H, DONOR_W), bool), "rle"), "iscrowd": 1}
    with pytest.raises(ConfigError, match="no training image has one"):
        paster(donor_of(tmp_path, [crowd]))
