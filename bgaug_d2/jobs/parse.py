"""Objects and jobs from outside: Detectron2's annotations, and jobs that came over the wire."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from bgaug_d2.config.recipe import QualityConfig, RecipeConfig
from bgaug_d2.errors import AnnotationError
from bgaug_d2.jobs.job import SCHEMA, InpaintJob, JobObject, ModelIdentity, Recipe, Rle, SourceImage

# detectron2.structures.BoxMode, which the core does not import.
_XYXY_ABS, _XYWH_ABS = 0, 1


class JobError(ValueError):
    """A job that came over the wire is malformed."""


def job_from_dict(content: Mapping[str, Any]) -> InpaintJob:
    """Rebuild a job from ``InpaintJob.to_dict``'s JSON values.

    Raises:
        JobError: A field is missing, unknown or of the wrong kind.
    """
    try:
        return _job(content)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise JobError(f"malformed job: {type(error).__name__}: {error}") from error


def objects_from_annotations(
    annotations: Sequence[Mapping[str, Any]], image_id: int | str
) -> tuple[JobObject, ...]:
    """The objects of a Detectron2 dataset dict.

    Only types are brought into canonical form here. ``pixels.object_masks`` checks values against
    the image.

    Args:
        annotations: Detectron2's ``annotations``: ``bbox``, ``bbox_mode``, ``segmentation``,
            ``iscrowd``.
        image_id: For messages.

    Raises:
        AnnotationError: A box mode other than XYXY_ABS / XYWH_ABS, or a value that is no number.
    """
    return tuple(_annotated_object(each, image_id) for each in annotations)


def _annotated_object(annotation: Mapping[str, Any], image_id: int | str) -> JobObject:
    annotation_id = annotation.get("id")
    try:
        return JobObject(
            bbox=_xywh(annotation),
            segmentation=_segmentation(annotation.get("segmentation")),
            iscrowd=bool(annotation.get("iscrowd", 0)),
            annotation_id=annotation_id,
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise AnnotationError(
            f"image {image_id}, annotation {annotation_id}: {type(error).__name__}: {error}"
        ) from error


def _xywh(annotation: Mapping[str, Any]) -> tuple[float, float, float, float]:
    x, y, third, fourth = _floats(annotation["bbox"])
    # Without a mode it is COCO's own.
    mode = int(annotation.get("bbox_mode", _XYWH_ABS))
    if mode == _XYXY_ABS:
        return x, y, third - x, fourth - y
    if mode == _XYWH_ABS:
        return x, y, third, fourth
    raise ValueError(f"bbox_mode {mode} is not supported; use XYXY_ABS (0) or XYWH_ABS (1)")


def _segmentation(value: Any) -> tuple[tuple[float, ...], ...] | Rle | None:
    # An empty list says as much as none: there is only the box.
    if value is None or (not isinstance(value, Mapping) and len(value) == 0):
        return None
    if not isinstance(value, Mapping):
        return tuple(_floats(polygon) for polygon in value)
    height, width = (int(side) for side in value["size"])
    counts = value["counts"]
    if isinstance(counts, bytes):  # as pycocotools gives them; JSON files have text
        counts = counts.decode("ascii")
    return Rle(height, width, counts if isinstance(counts, str) else tuple(map(int, counts)))


def _floats(values: Sequence[Any]) -> tuple[float, ...]:
    numbers = tuple(float(value) for value in values)
    if not all(map(math.isfinite, numbers)):
        raise ValueError(f"coordinates must be finite, got {numbers[:8]}")
    return numbers


def _job(content: Mapping[str, Any]) -> InpaintJob:
    # Another version may mean something else by the same fields.
    if content["schema"] != SCHEMA:
        raise ValueError(f"schema {content['schema']!r}, this version reads {SCHEMA}")
    recipe = dict(content["recipe"])
    settings = dict(recipe.pop("settings"))
    quality = QualityConfig(**settings.pop("quality"))
    # The constructors refuse unknown fields, which could decide pixels without being in the key.
    job = InpaintJob(
        source=_source(content["source"]),
        objects=tuple(_object(each) for each in content["objects"]),
        prompt=content["prompt"],
        recipe=Recipe(
            settings=RecipeConfig(**settings, quality=quality),
            model=ModelIdentity(**recipe.pop("model")),
            **recipe,
        ),
        variant=content["variant"],
        object_prompts=tuple(content["object_prompts"]),
    )
    if not isinstance(job.prompt, str) or not _is_count(job.variant):
        raise ValueError(f"prompt {job.prompt!r} or variant {job.variant!r}")
    _check_object_prompts(job)
    source = job.source
    for side in (source.height, source.width):
        if not isinstance(side, int) or side < 1:
            raise ValueError(f"height {source.height!r} or width {source.width!r}")
    if not isinstance(source.file_name, str) or not isinstance(source.sha256, str):
        raise ValueError(f"file_name {source.file_name!r} or sha256 {source.sha256!r}")
    return job


def _check_object_prompts(job: InpaintJob) -> None:
    prompts = job.object_prompts
    wanted = len(job.objects) if job.recipe.settings.paints_objects else 0
    if len(prompts) != wanted or not all(isinstance(each, str) for each in prompts):
        raise ValueError(f"object_prompts {prompts!r} for {len(job.objects)} objects")


def _source(content: Mapping[str, Any]) -> SourceImage:
    source = SourceImage(**content)
    texts = source.file_name, source.sha256
    counts = source.num_bytes, source.height, source.width
    if not all(isinstance(text, str) for text in texts) or not all(map(_is_count, counts)):
        raise ValueError(f"source {dict(content)!r}")
    return source


def _is_count(value: Any) -> bool:
    # JSON's true becomes a bool, and a bool is an int in Python.
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _object(content: Mapping[str, Any]) -> JobObject:
    segmentation = content["segmentation"]
    if isinstance(segmentation, Mapping):
        counts = segmentation["counts"]
        counts = counts if isinstance(counts, str) else tuple(map(int, counts))
        segmentation = Rle(int(segmentation["height"]), int(segmentation["width"]), counts)
    elif segmentation is not None:
        segmentation = tuple(_floats(polygon) for polygon in segmentation)
    x, y, w, h = _floats(content["bbox"])
    return JobObject((x, y, w, h), segmentation, bool(content["iscrowd"]), content["annotation_id"])
