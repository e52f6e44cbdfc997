"""A job is everything that decides the pixels of one painted picture; its digest is the cache key.

Canonical form: JSON with sorted keys, no spaces, ASCII, no NaN; every coordinate a float. So the
same input gives the same key in every process, on every host and under every ``PYTHONHASHSEED``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from bgaug_d2.config.recipe import RecipeConfig
from bgaug_d2.jobs.digests import digest_json

# In every key. A change of what a key covers raises it, so that old pictures are misses.
SCHEMA = 3
SCHEDULER = "dpmsolver++2m"  # in the key as well: another solver would paint other pixels
# Names in the key belong to the schema, not to the code: a setting that has another name today
# keeps the name that it had when schema 3 was made, so that caches from before stay valid.
NAMES_IN_KEY = {"step_policy": "steps", "deepcache_interval": "whole_every"}


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
    """A recipe and the rest that decides pixels: model, number format, picture format."""

    settings: RecipeConfig
    model: ModelIdentity
    dtype: str
    scheduler: str = SCHEDULER
    picture_format: str = "png"

    @cached_property
    def digest(self) -> str:
        """SHA-256 (64 hex digits) of all that decides pixels."""
        content = asdict(self)
        # A license that is corrected must not make the cache worthless.
        del content["model"]["license"]
        settings = content["settings"]
        content["settings"] = {NAMES_IN_KEY.get(name, name): settings[name] for name in settings}
        return digest_json(content)


@dataclass(frozen=True)
class SourceImage:
    """The image whose background or objects are painted.

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
        objects: All objects of the image, in the order of the annotations.
        prompt: Prompt of the background; empty where the recipe does not paint it.
        recipe: How it is painted.
        variant: Number of the variant, from 1.
        object_prompts: One for each of ``objects``, empty for a crowd region. There are none where
            the recipe paints no objects: the key then depends on no class name.
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
        # From the key: variants get other noise, and the same job gets the same noise again.
        digest = hashlib.sha256(f"{self.key}/{number}/{attempt}".encode()).digest()
        return int.from_bytes(digest[:8], "big") >> 1

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; ``parse.job_from_dict`` reads them back."""
        return {
            "schema": SCHEMA,
            "source": asdict(self.source),
            "objects": [_object_to_dict(each) for each in self.objects],
            "prompt": self.prompt,
            "recipe": asdict(self.recipe),
            "variant": self.variant,
            "object_prompts": list(self.object_prompts),
        }


def job_key(
    source: SourceImage,
    objects_sha256: str,
    prompt: str,
    recipe_sha256: str,
    variant: int,
    object_prompts: Sequence[str] = (),
) -> str:
    """The cache key, 64 hex digits, from parts that a reader has without the job.

    A hit needs the key but not the job, so the dataset dicts carry ``objects_digest``
    (``cache.source_digests``).
    """
    # The image's id is left out: under another id the same file has the same pictures.
    content = {
        "schema": SCHEMA,
        "source": [source.file_name, source.sha256, source.num_bytes, source.height, source.width],
        "objects": objects_sha256,
        "prompt": prompt,
        "recipe": recipe_sha256,
        "variant": variant,
        "object_prompts": list(object_prompts),
    }
    return digest_json(content)


def objects_digest(objects: Sequence[JobObject]) -> str:
    """SHA-256 (64 hex digits) of the objects, in their order, without their annotation ids."""
    content = [_object_to_dict(each) for each in objects]
    for each in content:
        del each["annotation_id"]
    return digest_json(content)


def _object_to_dict(item: JobObject) -> dict[str, Any]:
    segmentation: Any = item.segmentation
    if isinstance(segmentation, Rle):
        segmentation = asdict(segmentation)
    elif segmentation is not None:
        # 1 and 1.0 are different JSON, so every number has to become a float.
        segmentation = [list(map(float, polygon)) for polygon in segmentation]
    return {
        "bbox": list(map(float, item.bbox)),
        "segmentation": segmentation,
        "iscrowd": item.iscrowd,
        "annotation_id": item.annotation_id,
    }
