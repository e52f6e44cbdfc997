"""The contact sheet of training samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from detectron2.structures import BitMasks, Boxes, Instances

from bgaug_d2.inspection.samples import CAPTION, CELL, COLUMNS, draw_sample, write_sample_sheet
from tests.helpers.tool_runs import bgaug, smoke


def sample_of(height: int, width: int, masks: bool) -> dict[str, Any]:
    """A picture of one blue (in BGR) plane with an object in its upper left quarter."""
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    image[0] = 200
    pixels = torch.zeros(1, height, width, dtype=torch.bool)
    pixels[0, : height // 2, : width // 2] = True
    instances = Instances((height, width))
    instances.gt_boxes = Boxes(torch.tensor([[0.0, 0, width // 2, height // 2]]))
    instances.gt_classes = torch.tensor([1])
    if masks:
        instances.gt_masks = BitMasks(pixels)
    return {"image": image, "image_id": 7, "instances": instances}


@pytest.mark.parametrize("masks", [True, False])
def test_a_mask_is_drawn_over_its_object_only(masks: bool) -> None:
    drawn = draw_sample(sample_of(64, 96, masks), ["cat", "dog"], "BGR", 288)
    assert drawn.shape == (192, 288, 3)
    assert drawn[150, 250].tolist() == pytest.approx([0, 0, 200], abs=3)
    inner = drawn[10:80, 90:120].reshape(-1, 3)  # right of the label
    changed = (np.abs(inner.astype(int) - (0, 0, 200)).max(axis=1) > 10).mean()
    assert changed > 0.9 if masks else changed < 0.1
    box_edge = drawn[40:80, 142:146].reshape(-1, 3).astype(int)
    assert (np.abs(box_edge - (0, 0, 200)).max(axis=1) > 10).mean() > 0.3


def test_cells_of_a_sheet(tmp_path: Path) -> None:
    empty = sample_of(40, 40, False)
    empty["instances"] = empty["instances"][torch.zeros(1, dtype=torch.bool)]
    samples = [sample_of(64, 96, True), sample_of(96, 64, False), empty] * 2
    write_sample_sheet(samples, ["cat", "dog"], "BGR", tmp_path / "new" / "sheet.png")
    sheet = cv2.imread(str(tmp_path / "new" / "sheet.png"))
    assert sheet.shape == (2 * (CELL + CAPTION), COLUMNS * CELL, 3)
    assert (sheet[CELL + CAPTION :, 2 * CELL :] == 255).all()  # two cells are left over
    plane = sheet[20 : CELL - 20, 2 * CELL + 20 : 3 * CELL - 20].reshape(-1, 3)  # of the empty one
    assert np.abs(plane.astype(int) - (200, 0, 0)).max() < 4


def test_the_command_leaves_a_picture_and_nothing_else(tmp_path: Path) -> None:
    arguments = smoke(tmp_path, "toy-copy_paste", "augment.copy_paste.p=1")
    done = bgaug("samples", "--limit", "3", "--out", "a/b.png", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "3 samples: a/b.png" in done.stdout
    assert cv2.imread(str(tmp_path / "a" / "b.png")).shape[0] == CELL + CAPTION
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a", "toy"]


def test_a_mistake_is_one_sentence(tmp_path: Path) -> None:
    done = bgaug("samples", "benchmark=toy", "arm=copypaste", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("arm=copypaste does not exist; did you mean copy_paste")
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
