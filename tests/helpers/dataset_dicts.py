"""Small data sets in Detectron2's format, and a stand-in for the client, for loading tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bgaug_d2.cache.store import VariantCache
from bgaug_d2.config.bgaug import BgAugConfig
from bgaug_d2.jobs.job import InpaintJob
from bgaug_d2.painting.sidecar import job_sidecar
from bgaug_d2.pixels.encode import encode_picture
from bgaug_d2.pixels.read import read_image
from bgaug_d2.sampling.planner import JobPlanner
from bgaug_d2.worker.protocol import Reply
from tests.helpers.factories import make_recipe, noise

XYWH_ABS = 1


def annotation(annotation_id: int = 1, **fields: Any) -> dict[str, Any]:
    defaults: dict[str, Any] = {
        "id": annotation_id,
        "bbox": [4.0, 4.0, 12.0, 10.0],
        "bbox_mode": XYWH_ABS,
        "segmentation": [[4.0, 4.0, 16.0, 4.0, 16.0, 14.0, 4.0, 14.0]],
        "category_id": 0,
        "iscrowd": 0,
    }
    return defaults | fields


def make_dict(root: Path, image_id: int, height: int = 24, width: int = 32) -> dict[str, Any]:
    """Write ``train/<image_id>.png`` with noise and describe it, one object included."""
    path = root / "train" / f"{image_id}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise(height, width, image_id)).save(path)
    return {
        "file_name": str(path),
        "image_id": image_id,
        "height": height,
        "width": width,
        "annotations": [annotation(image_id)],
    }


def make_dicts(root: Path, count: int) -> list[dict[str, Any]]:
    """``count`` images, every third of them higher than wide."""
    sizes = [(32, 24) if index % 3 == 2 else (24, 32) for index in range(count)]
    return [make_dict(root, index, *size) for index, size in enumerate(sizes)]


def bare_dicts(count: int) -> list[dict[str, Any]]:
    """Dataset dicts without image files, every third of them higher than wide."""
    sizes = [(32, 24) if index % 3 == 2 else (24, 32) for index in range(count)]
    return [
        {"image_id": index, "height": height, "width": width, "file_name": f"{index}.png"}
        for index, (height, width) in enumerate(sizes)
    ]


REPLACE: dict[str, Any] = {"mode": "replace", "p": 1.0, "variants": 2}


def make_planner(root: Path, seed: int = 0, **settings: Any) -> JobPlanner:
    """A planner of mode replace in which each draw shows one of two variants."""
    recipe = make_recipe(**settings.pop("recipe", {}))
    defaults: dict[str, Any] = {} if "mode" in settings else REPLACE
    config = BgAugConfig(**defaults | settings, recipe=recipe.settings)
    return JobPlanner(config, recipe, str(root), seed, ["cat", "dog"])


def recoloured(job: InpaintJob, root: Path) -> np.ndarray:
    """A stand-in for a painted picture: the source with inverted colours, uint8 (H, W, 3)."""
    picture: np.ndarray = 255 - read_image(root / job.source.file_name)
    return picture


def paint(cache: VariantCache, job: InpaintJob, root: Path) -> None:
    """Put a recoloured picture under the key of a job."""
    sidecar = job_sidecar(job, 0, "2024-01-01T00:00:00Z")
    assert cache.put(job.key, encode_picture(recoloured(job, root), "png"), sidecar)


class FakeClient:
    """Answers every job alike, and keeps the jobs; ``paints`` runs before a request is answered."""

    def __init__(self, status: str = "queued", reason: str = "", paints: Any = None) -> None:
        self.reply = Reply(status, reason)
        self.paints = paints
        self.enqueued: list[InpaintJob] = []
        self.requested: list[tuple[InpaintJob, float | None]] = []

    def enqueue(self, job: InpaintJob) -> Reply:
        self.enqueued.append(job)
        return self.reply

    def request(self, job: InpaintJob, deadline_s: float | None = None) -> Reply:
        self.requested.append((job, deadline_s))
        if self.paints is not None:
            self.paints(job)
        return self.reply


def reading_mapper(dataset_dict: dict[str, Any]) -> dict[str, Any]:
    """The least a mapper does: read the file that ``file_name`` names."""
    return {**dataset_dict, "image": read_image(dataset_dict["file_name"])}


def coco_dicts(root: Path, split: str = "train2017") -> list[dict[str, Any]]:
    """Tiny COCO in Detectron2's format, images without annotations left out."""
    content = json.loads((root / "annotations" / f"instances_{split}.json").read_text())
    classes = {each["id"]: index for index, each in enumerate(content["categories"])}
    found: dict[int, list[dict[str, Any]]] = {}
    for each in content["annotations"]:
        found.setdefault(each["image_id"], []).append(
            {
                "id": each["id"],
                "bbox": each["bbox"],
                "bbox_mode": XYWH_ABS,
                "segmentation": each["segmentation"],
                "category_id": classes[each["category_id"]],
                "iscrowd": each["iscrowd"],
            }
        )
    return [
        {
            "file_name": str(root / split / record["file_name"]),
            "image_id": record["id"],
            "height": record["height"],
            "width": record["width"],
            "annotations": found[record["id"]],
        }
        for record in content["images"]
        if record["id"] in found
    ]
