"""A job is everything that decides the pixels of one painted picture; its digest is the cache key.

Canonical form: JSON with sorted keys, no spaces, ASCII, no NaN; every coordinate a float. So the
same input gives the same key in every process, on every host and under every ``PYTHONHASHSEED``.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from bgaug_d2.config import QualityConfig, RecipeConfig

SCHEMA = 3
SCHEDULER = "dpmsolver++2m"

# detectron2.structures.BoxMode, which the core does not import.
_XYXY_ABS, _XYWH_ABS = 0, 1


class AnnotationError(ValueError):
    """An annotation cannot be used; the message names image id, annotation id and the fault."""


class JobError(ValueError):
    """A job that came over the wire is malformed."""


@dataclass(frozen=True)
class ModelIdentity:
    """Which weights paint.

    Attributes:
        id: Hub id, folder name or ``tiny``.
        revision: Hub commit; empty for a folder.
        sha256: Digest over the names and contents of all weight and configuration files.
        license: Recorded with each picture; decides no pixel.
    """

    id: str
    revision: str
    sha256: str
    license: str


@dataclass(frozen=True)
class Recipe:
    """A recipe with all that decides pixels beside it: model, number format, picture format."""

    settings: RecipeConfig
    model: ModelIdentity
    dtype: str
    scheduler: str = SCHEDULER
    picture_format: str = "png"

    @cached_property
    def digest(self) -> str:
        """SHA-256 (64 hex digits) of all that decides pixels."""
        content = asdict(self)
        del content["model"]["license"]
        return _sha256(content)


@dataclass(frozen=True)
class SourceImage:
    """The image that is painted anew.

    Attributes:
        file_name: Path relative to the data set's root, with ``/``.
        sha256: Digest of the file's bytes.
        num_bytes: Size of the file.
        height, width: Pixels, as Detectron2's ``read_image`` returns the picture.
        image_id: For messages and provenance; decides no pixel.
    """

    file_name: str
    sha256: str
    num_bytes: int
    height: int
    width: int
    image_id: int | str


@dataclass(frozen=True)
class Rle:
    """COCO run-length encoding; ``counts`` is a compressed string or a tuple of run lengths."""

    height: int
    width: int
    counts: str | tuple[int, ...]


@dataclass(frozen=True)
class JobObject:
    """One object, crowd regions included.

    Attributes:
        bbox: ``(x, y, w, h)`` in pixels.
        segmentation: Polygons as flat ``x, y, ...`` tuples, an ``Rle``, or None where only the box
            exists.
        iscrowd: COCO's crowd flag.
        annotation_id: For messages; decides no pixel.
    """

    bbox: tuple[float, float, float, float]
    segmentation: tuple[tuple[float, ...], ...] | Rle | None
    iscrowd: bool
    annotation_id: int | str | None


@dataclass(frozen=True)
class InpaintJob:
    """One picture to paint.

    Attributes:
        source: The image.
        objects: All of it, in the order of the annotations.
        prompt: Of the background; empty where the recipe does not paint it.
        recipe: How it is painted.
        variant: Number of the variant, from 1.
        object_prompts: One for each of ``objects``, of a crowd region an empty one; none at all
            where the recipe paints no objects, so that the key depends on no class name then.
    """

    source: SourceImage
    objects: tuple[JobObject, ...]
    prompt: str
    recipe: Recipe
    variant: int
    object_prompts: tuple[str, ...] = ()

    @cached_property
    def key(self) -> str:
        """The cache key, 64 hex digits; see ``job_key``."""
        return job_key(
            self.source,
            objects_digest(self.objects),
            self.prompt,
            self.recipe.digest,
            self.variant,
            self.object_prompts,
        )

    def seed(self, attempt: int = 0, number: int = 0) -> int:
        """Seed in [0, 2**63) of the noise.

        Args:
            attempt: Each retry of a pass, from 0, has its own.
            number: Each pass through the engine, from 0, has its own.
        """
        digest = hashlib.sha256(f"{self.key}/{number}/{attempt}".encode()).digest()
        return int.from_bytes(digest[:8], "big") >> 1

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; ``from_dict`` reads them back."""
        return {
            "schema": SCHEMA,
            "source": asdict(self.source),
            "objects": [_object_to_dict(each) for each in self.objects],
            "prompt": self.prompt,
            "recipe": asdict(self.recipe),
            "variant": self.variant,
            "object_prompts": list(self.object_prompts),
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> InpaintJob:
        """Rebuild a job that came as JSON.

        Raises:
            JobError: A field is missing, unknown or of the wrong kind.
        """
        try:
            return _job_from_dict(content)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise JobError(f"malformed job: {type(error).__name__}: {error}") from error


def job_key(
    source: SourceImage,
    objects_sha256: str,
    prompt: str,
    recipe_sha256: str,
    variant: int,
    object_prompts: Sequence[str] = (),
) -> str:
    """The cache key, 64 hex digits, from parts that a reader can keep per image.

    A hit needs the key but not the job, so the mapper computes ``objects_digest`` once per image.
    """
    content = {
        "schema": SCHEMA,
        "source": [source.file_name, source.sha256, source.num_bytes, source.height, source.width],
        "objects": objects_sha256,
        "prompt": prompt,
        "recipe": recipe_sha256,
        "variant": variant,
        "object_prompts": list(object_prompts),
    }
    return _sha256(content)


def objects_digest(objects: Sequence[JobObject]) -> str:
    """SHA-256 (64 hex digits) of the objects, in their order, without their annotation ids."""
    content = [_object_to_dict(each) for each in objects]
    for each in content:
        del each["annotation_id"]
    return _sha256(content)


def canonical_json(content: Any) -> bytes:
    """The one byte string of a JSON value. Raises ValueError on NaN and infinity."""
    return json.dumps(
        content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    ).encode("ascii")


def digest_file(path: str | Path) -> str:
    """SHA-256 (64 hex digits) of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _sha256(content: Any) -> str:
    return hashlib.sha256(canonical_json(content)).hexdigest()


def objects_from_annotations(
    annotations: Sequence[Mapping[str, Any]], image_id: int | str
) -> tuple[JobObject, ...]:
    """The objects of a Detectron2 dataset dict.

    Only types are brought into canonical form here; ``masks`` checks values against the image.

    Args:
        annotations: Detectron2's ``annotations``: ``bbox``, ``bbox_mode``, ``segmentation``,
            ``iscrowd``.
        image_id: For messages.

    Raises:
        AnnotationError: A box mode other than XYXY_ABS / XYWH_ABS, or a value that is no number.
    """
    return tuple(_job_object(each, image_id) for each in annotations)


def _job_object(annotation: Mapping[str, Any], image_id: int | str) -> JobObject:
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
    mode = int(annotation.get("bbox_mode", _XYWH_ABS))
    if mode == _XYXY_ABS:
        return x, y, third - x, fourth - y
    if mode == _XYWH_ABS:
        return x, y, third, fourth
    raise ValueError(f"bbox_mode {mode} is not supported; use XYXY_ABS (0) or XYWH_ABS (1)")


def _segmentation(value: Any) -> tuple[tuple[float, ...], ...] | Rle | None:
    if value is None or (not isinstance(value, Mapping) and len(value) == 0):
        return None
    if not isinstance(value, Mapping):
        return tuple(_floats(polygon) for polygon in value)
    height, width = (int(side) for side in value["size"])
    counts = value["counts"]
    if isinstance(counts, bytes):
        counts = counts.decode("ascii")
    return Rle(height, width, counts if isinstance(counts, str) else tuple(map(int, counts)))


def _floats(values: Sequence[Any]) -> tuple[float, ...]:
    numbers = tuple(float(value) for value in values)
    if not all(map(math.isfinite, numbers)):
        raise ValueError(f"coordinates must be finite, got {numbers[:8]}")
    return numbers


def _job_from_dict(content: Mapping[str, Any]) -> InpaintJob:
    if content["schema"] != SCHEMA:
        raise ValueError(f"schema {content['schema']!r}, this version reads {SCHEMA}")
    recipe = dict(content["recipe"])
    settings = dict(recipe.pop("settings"))
    quality = QualityConfig(**settings.pop("quality"))
    job = InpaintJob(
        source=_source_from_dict(content["source"]),
        objects=tuple(_object_from_dict(each) for each in content["objects"]),
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


def _source_from_dict(content: Mapping[str, Any]) -> SourceImage:
    source = SourceImage(**content)
    texts = source.file_name, source.sha256
    counts = source.num_bytes, source.height, source.width
    if not all(isinstance(text, str) for text in texts) or not all(map(_is_count, counts)):
        raise ValueError(f"source {dict(content)!r}")
    return source


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _object_to_dict(item: JobObject) -> dict[str, Any]:
    segmentation: Any = item.segmentation
    if isinstance(segmentation, Rle):
        segmentation = asdict(segmentation)
    elif segmentation is not None:
        segmentation = [list(map(float, polygon)) for polygon in segmentation]
    return {
        "bbox": list(map(float, item.bbox)),
        "segmentation": segmentation,
        "iscrowd": item.iscrowd,
        "annotation_id": item.annotation_id,
    }


def _object_from_dict(content: Mapping[str, Any]) -> JobObject:
    segmentation = content["segmentation"]
    if isinstance(segmentation, Mapping):
        counts = segmentation["counts"]
        counts = counts if isinstance(counts, str) else tuple(map(int, counts))
        segmentation = Rle(int(segmentation["height"]), int(segmentation["width"]), counts)
    elif segmentation is not None:
        segmentation = tuple(_floats(polygon) for polygon in segmentation)
    x, y, w, h = _floats(content["bbox"])
    return JobObject((x, y, w, h), segmentation, bool(content["iscrowd"]), content["annotation_id"])
