"""AP by object size with limits of our own, against a count by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import COCOEvaluator
from detectron2.structures import Boxes, Instances

from bgaug_d2.data.evaluator import SizedCOCOEvaluator

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


def test_sizes_are_told_apart_by_the_limits(data_set: str) -> None:
    options: dict[str, Any] = {"tasks": ("bbox",), "use_fast_impl": False}
    ours = SizedCOCOEvaluator(data_set, size_limits=(15**2, 30**2), **options)
    theirs = COCOEvaluator(data_set, **options)
    for found in ([0], [1, 2], [0, 2], [0, 1, 2]):
        sized, plain = _evaluate(ours, found), _evaluate(theirs, found)
        expected = [100.0 * (number in found) for number in range(3)]
        assert [sized[name] for name in ("APs", "APm", "APl")] == pytest.approx(expected)
        for name in ("AP", "AP50", "AP75"):
            assert sized[name] == pytest.approx(plain[name])
    assert np.isnan(_evaluate(theirs, [0])["APl"])  # 40 px are not large by COCO's limits


def test_nothing_found_is_no_fault(data_set: str) -> None:
    evaluator = SizedCOCOEvaluator(
        data_set, tasks=("bbox",), use_fast_impl=False, size_limits=(1, 2)
    )
    assert np.isnan(_evaluate(evaluator, [])["APs"])


@pytest.mark.parametrize("limits", [(0, 5), (5, 5), (9, 3)])
def test_limits_have_to_rise(data_set: str, limits: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="must be positive and rising"):
        SizedCOCOEvaluator(data_set, size_limits=limits)
