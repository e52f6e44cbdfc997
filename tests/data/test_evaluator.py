"""Detectron2's evaluators with limits of our own and a breakdown, against counts by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import COCOEvaluator, DatasetEvaluator, PascalVOCDetectionEvaluator
from detectron2.structures import Boxes, Instances

from bgaug_d2.data.breakdown import read_breakdowns
from bgaug_d2.data.evaluator import BreakdownCOCOEvaluator, BreakdownVOCEvaluator
from bgaug_d2.data.register import register_dataset
from tests.helpers.data_trees import HEIGHT, WIDTH, voc_xml, write_voc

NAME = "evaluator_test"
SIDES = (10, 20, 40)  # px of the three objects


@pytest.fixture
def data_set(tmp_path: Path) -> str:
    boxes = [[10 + 60 * i, 10, side, side] for i, side in enumerate(SIDES)]
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": 200, "width": 200}],
        "categories": [{"id": 1, "name": "ball"}],
        "annotations": [
            {
                "id": i,
                "image_id": 1,
                "category_id": 1,
                "bbox": box,
                "area": box[2] ** 2,
                "iscrowd": 0,
            }
            for i, box in enumerate(boxes, start=1)
        ],
    }
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(content))
    for catalog in (DatasetCatalog, MetadataCatalog):
        if NAME in catalog.list():
            catalog.remove(NAME)
    DatasetCatalog.register(NAME, list)
    MetadataCatalog.get(NAME).set(
        json_file=str(path),
        thing_classes=["ball"],
        thing_dataset_id_to_contiguous_id={1: 0},
        evaluator_type="coco",
    )
    return NAME


def _evaluate(evaluator: COCOEvaluator, found: list[int]) -> dict[str, Any]:
    """AP where the objects of these numbers are found exactly."""
    instances = Instances((200, 200))
    corners = [[10 + 60 * i, 10, 10 + 60 * i + SIDES[i], 10 + SIDES[i]] for i in found]
    instances.pred_boxes = Boxes(torch.tensor(corners, dtype=torch.float32).reshape(-1, 4))
    instances.scores = torch.full((len(found),), 0.9)
    instances.pred_classes = torch.zeros(len(found), dtype=torch.int64)
    evaluator.reset()
    evaluator.process([{"image_id": 1}], [{"instances": instances}])
    result: dict[str, Any] = evaluator.evaluate()["bbox"]
    return result


def test_sizes_are_told_apart_by_the_limits(data_set: str, tmp_path: Path) -> None:
    ours = BreakdownCOCOEvaluator(data_set, ["bbox"], str(tmp_path), (15**2, 30**2))
    theirs = COCOEvaluator(data_set, ("bbox",), use_fast_impl=False)
    for found in ([0], [1, 2], [0, 2], [0, 1, 2]):
        sized, plain = _evaluate(ours, found), _evaluate(theirs, found)
        expected = [100.0 * (number in found) for number in range(3)]
        assert [sized[name] for name in ("APs", "APm", "APl")] == pytest.approx(expected)
        classes = ours.breakdown["bbox"]["classes"]["ball"]
        sizes = [classes[size]["AP"] for size in ("small", "medium", "large")]
        assert sizes == pytest.approx(expected)
        for name in ("AP", "AP50", "AP75"):
            assert sized[name] == pytest.approx(plain[name])
    assert np.isnan(_evaluate(theirs, [0])["APl"])  # 40 px are not large by COCO's limits
    assert ours.breakdown["bbox"]["size_limits"] == [15**2, 30**2]


def test_without_limits_every_number_is_detectron2s(data_set: str, tmp_path: Path) -> None:
    ours = BreakdownCOCOEvaluator(data_set, ["bbox"], str(tmp_path))
    theirs = COCOEvaluator(data_set, ("bbox",), use_fast_impl=False)
    np.testing.assert_equal(_evaluate(ours, [0, 2]), _evaluate(theirs, [0, 2]))
    assert ours.breakdown["bbox"]["size_limits"] == [32**2, 96**2]


def test_the_breakdown_is_in_a_file(data_set: str, tmp_path: Path) -> None:
    evaluator = BreakdownCOCOEvaluator(data_set, ["bbox"], str(tmp_path))
    _evaluate(evaluator, [0, 1, 2])
    found = read_breakdowns(str(tmp_path), [data_set])
    assert found == evaluator.breakdown
    # The three objects cover 2100 of 40,000 pixels.
    (last,) = [each for each in found["bbox"]["background"] if each["images"]]
    assert (last["from"], last["objects"], last["AP"]) == (0.9, 3, pytest.approx(100))
    assert read_breakdowns(str(tmp_path), [data_set, "other"]) == {data_set: found, "other": {}}
    evaluator.reset()
    assert read_breakdowns(str(tmp_path), [data_set]) == {}  # nothing stale is left


def test_nothing_found_is_no_fault(data_set: str, tmp_path: Path) -> None:
    evaluator = BreakdownCOCOEvaluator(data_set, ["bbox"], str(tmp_path), (150, 300))
    assert np.isnan(_evaluate(evaluator, [])["APs"])
    found = evaluator.breakdown["bbox"]["classes"]["ball"]
    assert [found[size]["objects"] for size in found] == [3, 1, 0, 2]
    assert [found[size]["AP"] for size in found] == [0, 0, None, 0]


@pytest.mark.parametrize("limits", [(0, 5), (5, 5), (9, 3)])
def test_limits_have_to_rise(data_set: str, tmp_path: Path, limits: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="must be positive and rising"):
        BreakdownCOCOEvaluator(data_set, ["bbox"], str(tmp_path), limits)


# --- VOC: two images with a dog, a cat and a small car; in the second one they are difficult ---


@pytest.fixture
def voc(tmp_path: Path) -> str:
    config = write_voc(tmp_path / "voc")
    objects = [("dog", (11, 11, 30, 40)), ("cat", (51, 21, 70, 50)), ("sofa", (1, 1, 6, 6))]
    path = tmp_path / "voc" / "VOC2007" / "Annotations" / "000004.xml"
    path.write_text(voc_xml(objects, difficult=1))
    (name,) = register_dataset(config).test
    return name


def _found_in(image_id: str, shapes: list[tuple[str, list[float], float]], voc: str) -> Any:
    classes = MetadataCatalog.get(voc).thing_classes
    instances = Instances((HEIGHT, WIDTH))
    instances.pred_boxes = Boxes(torch.tensor([box for _, box, _ in shapes]).reshape(-1, 4))
    instances.scores = torch.tensor([score for _, _, score in shapes])
    numbers = [classes.index(name) for name, _, _ in shapes]
    instances.pred_classes = torch.tensor(numbers, dtype=torch.int64)
    return [{"image_id": image_id}], [{"instances": instances}]


def _measure(evaluator: DatasetEvaluator, voc: str, found: dict[str, list[Any]]) -> dict[str, Any]:
    evaluator.reset()
    for image_id in ("000003", "000004"):
        evaluator.process(*_found_in(image_id, found.get(image_id, []), voc))
    metrics: dict[str, Any] = evaluator.evaluate()["bbox"]
    return metrics


DOG, CAT = [10.0, 10.0, 30.0, 40.0], [50.0, 20.0, 70.0, 50.0]


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_voc_reports_every_class(voc: str, tmp_path: Path) -> None:
    ours = BreakdownVOCEvaluator(voc, str(tmp_path / "out"))
    found = {"000003": [("dog", DOG, 0.9), ("cat", DOG, 0.8)]}
    metrics = _measure(ours, voc, found)
    theirs = _measure(PascalVOCDetectionEvaluator(voc), voc, found)
    assert {name: metrics[name] for name in theirs} == theirs
    per_class = {name[5:]: value for name, value in metrics.items() if name.startswith("AP50-")}
    assert list(per_class) == MetadataCatalog.get(voc).thing_classes
    assert (per_class["dog"], per_class["cat"], per_class["car"]) == (pytest.approx(100), 0, 0)
    # Sofas are all difficult, and horses are not there.
    assert np.isnan(per_class["sofa"])
    assert np.isnan(per_class["horse"])
    # Detectron2's mean takes classes without objects for 0.
    assert np.nansum(list(per_class.values())) / 20 == pytest.approx(theirs["AP50"])


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_difficult_objects_and_what_is_found_on_them_do_not_count(voc: str, tmp_path: Path) -> None:
    ours = BreakdownVOCEvaluator(voc, str(tmp_path / "out"))
    # Found twice and more surely than the only dog that counts.
    on_difficult = [("dog", DOG, 0.99), ("dog", DOG, 0.98)]
    _measure(ours, voc, {"000003": [("dog", DOG, 0.9)], "000004": on_difficult})
    content = read_breakdowns(str(tmp_path / "out"), [voc])["bbox"]
    dog = content["classes"]["dog"]
    assert dog["all"] == {"AP": pytest.approx(100), "AP50": pytest.approx(100), "objects": 1}
    assert dog["small"]["objects"] == 1  # 20 x 30 px
    assert content["classes"]["sofa"]["all"] == {"AP": None, "AP50": None, "objects": 0}
    # 600 + 600 + 36 of 4800 pixels are objects, difficult or not.
    assert [each["images"] for each in content["background"]] == [0, 2, 0, 0]
    assert content["background"][1]["objects"] == 3
    # A false alarm more surely than it costs AP, so the test above can fail.
    stray = [("dog", [60.0, 5.0, 75.0, 18.0], 0.99)]
    _measure(ours, voc, {"000003": [("dog", DOG, 0.9)], "000004": stray})
    assert ours.breakdown["bbox"]["classes"]["dog"]["all"]["AP50"] == pytest.approx(50)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_nothing_found_on_voc_is_no_fault(voc: str, tmp_path: Path) -> None:
    ours = BreakdownVOCEvaluator(voc, str(tmp_path / "out"))
    assert _measure(ours, voc, {})["AP50"] == 0
    assert ours.breakdown["bbox"]["classes"]["cat"]["all"] == {"AP": 0, "AP50": 0, "objects": 1}


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_the_truth_gets_a_full_score_by_both_rules(voc: str, tmp_path: Path) -> None:
    ours = BreakdownVOCEvaluator(voc, str(tmp_path / "out"))
    truth = [("dog", DOG, 0.9), ("cat", CAT, 0.9), ("car", [0.0, 0.0, 6.0, 6.0], 0.9)]
    metrics = _measure(ours, voc, {"000003": truth})
    for name in ("dog", "cat", "car"):
        assert metrics[f"AP50-{name}"] == pytest.approx(100)
        assert ours.breakdown["bbox"]["classes"][name]["all"]["AP"] == pytest.approx(100)
