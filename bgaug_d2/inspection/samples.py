"""A contact sheet of training samples, exactly as the detector gets them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from detectron2.data.detection_utils import convert_image_to_rgb
from detectron2.utils.visualizer import Visualizer

CELL, CAPTION, COLUMNS = 320, 16, 4  # px, side of a cell and the line below it; cells in a row


def write_sample_sheet(
    samples: Sequence[dict[str, Any]], class_names: Sequence[str], image_format: str, path: Path
) -> None:
    """Write a PNG with the boxes, class names and masks of samples.

    Args:
        samples: Samples of a training loader, with ``image`` uint8 (3, H, W) and ``instances``; at
            least one.
        class_names: Names by class number.
        image_format: Order of the channels, as Detectron2 names it.
        path: The PNG; its folder is created.
    """
    cells = [_cell(each, class_names, image_format) for each in samples]
    blank = np.full((CELL + CAPTION, CELL, 3), 255, np.uint8)
    cells += [blank] * (-len(cells) % COLUMNS)  # the last row is as wide as the others
    rows = [np.hstack(cells[start : start + COLUMNS]) for start in range(0, len(cells), COLUMNS)]
    encoded = cv2.imencode(".png", np.vstack(rows)[:, :, ::-1])[1]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded.tobytes())


def draw_sample(
    sample: dict[str, Any], class_names: Sequence[str], image_format: str, side: int
) -> np.ndarray:
    """One sample with its annotations, uint8 (H, W, 3) RGB, its longer side ``side`` pixels."""
    image = convert_image_to_rgb(sample["image"].permute(1, 2, 0), image_format)
    instances = sample["instances"]
    drawn = Visualizer(image, scale=side / max(image.shape[:2])).overlay_instances(
        boxes=instances.gt_boxes,
        labels=[class_names[each] for each in instances.gt_classes],
        masks=instances.gt_masks if instances.has("gt_masks") else None,
        alpha=0.25,  # the pixels below stay visible
    )
    picture: np.ndarray = drawn.get_image()
    return picture


def _cell(sample: dict[str, Any], class_names: Sequence[str], image_format: str) -> np.ndarray:
    # Detectron2's canvas may be a pixel larger than asked for.
    drawn = draw_sample(sample, class_names, image_format, CELL - 4)[: CELL - 2, : CELL - 2]
    cell = np.full((CELL + CAPTION, CELL, 3), 255, np.uint8)
    cell[2 : 2 + drawn.shape[0], 2 : 2 + drawn.shape[1]] = drawn
    objects = len(sample["instances"])
    caption = f"{sample['image_id']}: {sample.get('bgaug', 'original')}, {objects} objects"
    place = (4, CELL + CAPTION - 5)
    return cv2.putText(
        cell, caption, place, cv2.FONT_HERSHEY_SIMPLEX, 0.38, (60, 60, 60), 1, cv2.LINE_AA
    )
