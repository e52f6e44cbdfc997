"""AP by background ratio, class and size on sets made by hand, where it is known."""

from __future__ import annotations

import contextlib
import io
import json
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO

from bgaug_d2.data.breakdown import (
    BACKGROUND_BINS,
    SIZES,
    breakdown,
    evaluated,
    image_ratios,
    in_memory,
)

SIDE = 200  # px of the pictures


def _truth(boxes: list[tuple[int, int, list[float]]], num_images: int, classes: list[str]) -> COCO:
    """Ground truth of (image, class, box x y w h); images count from 1."""
    images = [{"id": i, "height": SIDE, "width": SIDE} for i in range(1, num_images + 1)]
    annotations = [
        {
            "id": number,
            "image_id": image,
            "category_id": category,
            "bbox": box,
            "area": box[2] * box[3],
            "iscrowd": 0,
        }
        for number, (image, category, box) in enumerate(boxes, start=1)
    ]
    return in_memory(images, annotations, classes)


def _found(coco: COCO, images: set[int]) -> list[dict[str, Any]]:
    """Every object of some images, exactly."""
    return [
        {key: each[key] for key in ("image_id", "category_id", "bbox")} | {"score": 0.9}
        for each in coco.dataset["annotations"]
        if each["image_id"] in images
    ]


def _ratios(coco: COCO) -> dict[Any, float]:
    return image_ratios(
        [
            {**image, "image_id": image["id"], "annotations": coco.imgToAnns[image["id"]]}
            for image in coco.dataset["images"]
        ]
    )


@pytest.fixture
def two_bins() -> COCO:
    """Images 1 and 3 are objects by 3/4, image 2 by 1/100; image 4 is empty."""
    large, small = [0.0, 0.0, 200.0, 150.0], [20.0, 20.0, 20.0, 20.0]
    return _truth([(1, 0, large), (2, 0, small), (3, 1, large)], 4, ["ball", "box", "star"])


def test_bins_are_told_apart(two_bins: COCO) -> None:
    coco_eval = evaluated(two_bins, _found(two_bins, {1, 3}), "bbox")
    bins = breakdown(coco_eval, _ratios(two_bins))["background"]
    assert [(each["from"], each["to"]) for each in bins] == list(
        zip(BACKGROUND_BINS[:-1], BACKGROUND_BINS[1:], strict=True)
    )
    assert [each["images"] for each in bins] == [2, 0, 0, 2]
    assert [each["objects"] for each in bins] == [2, 0, 0, 1]
    assert [each["AP"] for each in bins] == [pytest.approx(100), None, None, 0]
    assert [each["AP50"] for each in bins] == [pytest.approx(100), None, None, 0]


def test_classes_and_sizes_are_told_apart(two_bins: COCO) -> None:
    coco_eval = evaluated(two_bins, _found(two_bins, {1}), "bbox")
    classes = breakdown(coco_eval, {})["classes"]
    assert list(classes) == ["ball", "box", "star"]
    assert [classes["ball"][size]["objects"] for size in SIZES] == [2, 1, 0, 1]
    assert [classes["ball"][size]["AP50"] for size in SIZES] == [
        pytest.approx(100 * 51 / 101),  # half of the objects: 51 of 101 recall thresholds
        0,
        None,
        pytest.approx(100),
    ]
    assert [classes["box"][size]["AP"] for size in SIZES] == [0, None, None, 0]
    nothing = {"AP": None, "AP50": None, "objects": 0}
    assert classes["star"] == dict.fromkeys(SIZES, nothing)


def test_limits_between_bins_belong_to_the_upper_one() -> None:
    coco = _truth([(i, 0, [0.0, 0.0, 20.0, 20.0]) for i in range(1, 7)], 6, ["ball"])
    ratios = dict(enumerate([0.0, 0.5, 0.75, 0.9, 1.0], start=1))  # image 6 has none
    bins = breakdown(evaluated(coco, [], "bbox"), ratios)["background"]
    assert [each["images"] for each in bins] == [1, 1, 1, 2]
    assert [each["objects"] for each in bins] == [1, 1, 1, 2]


def test_nothing_found_is_zero_where_there_are_objects(two_bins: COCO) -> None:
    content = breakdown(evaluated(two_bins, [], "bbox"), _ratios(two_bins))
    assert [each["AP"] for each in content["background"]] == [0, None, None, 0]
    assert content["classes"]["ball"]["all"] == {"AP": 0, "AP50": 0, "objects": 2}
    assert json.loads(json.dumps(content, allow_nan=False)) == content


def test_a_broken_annotation_costs_its_image_only(caplog: pytest.LogCaptureFixture) -> None:
    coco = _truth([(1, 0, [0.0, 0.0, 9.0, 9.0]), (2, 0, [300.0, 0.0, 9.0, 9.0])], 2, ["ball"])
    with caplog.at_level("WARNING", logger="bgaug_d2"):
        ratios = _ratios(coco)
    assert set(ratios) == {1}
    assert "1 images have no background ratio: image 2" in caplog.text


def _random_set(num_images: int, num_classes: int, seed: int = 0) -> tuple[COCO, list[Any]]:
    """Boxes of all sizes and classes, found inexactly, with misses and false alarms."""
    rng = np.random.default_rng(seed)
    boxes, found = [], []
    for image in range(1, num_images + 1):
        for _ in range(7):
            width, height = np.exp(rng.uniform(np.log(8), np.log(150), 2))
            x, y = rng.uniform(0, SIDE - width), rng.uniform(0, SIDE - height)
            box = [float(each) for each in (x, y, width, height)]
            category = int(rng.integers(num_classes))
            boxes.append((image, category, box))
            for _ in range(int(rng.integers(0, 4))):
                jitter = rng.normal(0, 0.08, 4) * [width, height, width, height]
                near = [float(each) for each in np.maximum(np.array(box) + jitter, 1)]
                guess = category if rng.random() < 0.8 else int(rng.integers(num_classes))
                detection = {"image_id": image, "category_id": guess, "bbox": near}
                found.append({**detection, "score": float(rng.random())})
    return _truth(boxes, num_images, [f"class {i}" for i in range(num_classes)]), found


def test_a_bin_is_what_its_images_alone_would_give() -> None:
    coco, found = _random_set(40, 5)
    ratios = _ratios(coco)
    coco_eval = evaluated(coco, found, "bbox")
    content = breakdown(coco_eval, ratios)
    for each, upper in zip(content["background"], [0.5, 0.75, 0.9, 1.1], strict=True):
        chosen = {i for i, ratio in ratios.items() if each["from"] <= ratio < upper}
        assert each["images"] == len(chosen)
        if not chosen:
            continue
        annotations = [a for a in coco.dataset["annotations"] if a["image_id"] in chosen]
        images = [image for image in coco.dataset["images"] if image["id"] in chosen]
        alone = in_memory(images, annotations, [f"class {i}" for i in range(5)])
        part = evaluated(alone, [d for d in found if d["image_id"] in chosen], "bbox")
        with contextlib.redirect_stdout(io.StringIO()):
            part.summarize()
        assert each["objects"] == len(annotations)
        assert each["AP"] == pytest.approx(100 * part.stats[0])
        assert each["AP50"] == pytest.approx(100 * part.stats[1])
    assert sum(each["images"] > 0 for each in content["background"]) >= 3


def test_classes_average_to_pycocotools_summary_which_is_not_touched() -> None:
    coco, found = _random_set(40, 5)
    coco_eval = evaluated(coco, found, "bbox")
    before = coco_eval.eval["precision"].copy()
    classes = breakdown(coco_eval, _ratios(coco))["classes"]
    with contextlib.redirect_stdout(io.StringIO()):
        coco_eval.summarize()
    for size, place in zip(SIZES, (0, 3, 4, 5), strict=True):
        numbers = [each[size]["AP"] for each in classes.values() if each[size]["AP"] is not None]
        assert np.mean(numbers) == pytest.approx(100 * coco_eval.stats[place])
        assert sum(each["all"]["objects"] for each in classes.values()) == 280
    np.testing.assert_array_equal(coco_eval.eval["precision"], before)
