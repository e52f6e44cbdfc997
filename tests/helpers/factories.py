"""Small valid values for tests; each takes what the test is about and fills in the rest."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bgaug_d2.config.recipe import RecipeConfig
from bgaug_d2.jobs.digests import digest_file
from bgaug_d2.jobs.job import InpaintJob, JobObject, ModelIdentity, Recipe, Rle, SourceImage
from bgaug_d2.jobs.parse import objects_from_annotations

MODEL = ModelIdentity(id="tiny", revision="", sha256="ab" * 32, license="Apache-2.0")


def make_recipe(**settings: Any) -> Recipe:
    kind = {"prompt": "scene"} if settings.get("scenes") else {}
    return Recipe(settings=RecipeConfig(**kind | settings), model=MODEL, dtype="float32")


def make_source(**fields: Any) -> SourceImage:
    defaults: dict[str, Any] = {
        "file_name": "train/1.png",
        "sha256": "cd" * 32,
        "num_bytes": 1234,
        "height": 48,
        "width": 64,
        "image_id": 1,
    }
    return SourceImage(**defaults | fields)


def make_object(
    bbox: Sequence[float] = (8.0, 8.0, 16.0, 12.0),
    segmentation: Sequence[Sequence[float]] | Rle | None = None,
    iscrowd: bool = False,
    annotation_id: int | str | None = 5,
) -> JobObject:
    x, y, w, h = bbox
    if segmentation is not None and not isinstance(segmentation, Rle):
        segmentation = tuple(tuple(polygon) for polygon in segmentation)
    return JobObject((x, y, w, h), segmentation, iscrowd, annotation_id)


def make_job(
    source: SourceImage | None = None,
    objects: Sequence[JobObject] | None = None,
    variant: int = 1,
    prompt: str = "Generate a clean background",
    object_prompts: Sequence[str] = (),
    **settings: Any,
) -> InpaintJob:
    return InpaintJob(
        source=source or make_source(),
        objects=(make_object(),) if objects is None else tuple(objects),
        prompt=prompt,
        recipe=make_recipe(**settings),
        variant=variant,
        object_prompts=tuple(object_prompts),
    )


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Random uint8 (H, W, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def source_of(path: Path, root: Path, image_id: int = 1) -> SourceImage:
    """The true description of an image file under ``root``."""
    with Image.open(path) as image:
        width, height = image.size
    return SourceImage(
        file_name=path.relative_to(root).as_posix(),
        sha256=digest_file(path),
        num_bytes=path.stat().st_size,
        height=height,
        width=width,
        image_id=image_id,
    )


def write_image(root: Path, height: int = 48, width: int = 64, seed: int = 0) -> SourceImage:
    """Write ``train/<seed>.png`` with noise and describe it."""
    path = root / "train" / f"{seed}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise(height, width, seed)).save(path)
    return source_of(path, root, image_id=seed)


def tiny_coco(root: Path) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]], Path]]:
    """All 100 images of tiny COCO: image record, annotations, path."""
    for split in ("train2017", "val2017"):
        content = json.loads((root / "annotations" / f"instances_{split}.json").read_text())
        for record in content["images"]:
            annotations = [a for a in content["annotations"] if a["image_id"] == record["id"]]
            yield record, annotations, root / split / record["file_name"]


def objects_of(annotations: Sequence[dict[str, Any]], image_id: int) -> tuple[JobObject, ...]:
    return objects_from_annotations(annotations, image_id)
