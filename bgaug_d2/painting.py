"""One job before and after the model: what the worker's CPU threads do.

``prepare`` reads and checks the image and builds the masks; ``finish`` brings the painted square
back to the image's size, judges it and puts the objects back.

Shapes: H, W the image; S the side of the square that the model paints (see ``masks``).
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from bgaug_d2 import masks, steps
from bgaug_d2.config import QualityConfig
from bgaug_d2.images import ImageError, decode_image, read_bytes, resolve_inside
from bgaug_d2.jobs import SCHEMA, InpaintJob, SourceImage
from bgaug_d2.masks import BoolMask, ObjectMasks, Picture

SKIP_REASONS = ("no_objects", "small_background", "crowd")
REJECT_REASONS = ("flat", "unchanged")


class SkipImage(Exception):  # noqa: N818 - not an error: a rule says that this image is not augmented
    """An image is not augmented by rule; ``reason`` is one of ``SKIP_REASONS``."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason


@dataclass(eq=False)
class PaintRequest:
    """What the engine needs to paint one picture.

    Attributes:
        request_id: ``key/attempt``.
        image: uint8 RGB (S, S, 3), the squashed source.
        background_mask: bool (S, S), eroded; True is painted.
        T_hat: Denoising steps, 1..num_inference_steps.
        seed: Of the noise, in [0, 2**63).
        prompt, negative_prompt: Texts of the two guidance branches.
        guidance_scale: 1 means no guidance.
        guidance_interval: Shares of the full schedule, 0..1, between which guidance is on.
        num_inference_steps: ``T``, the length of the full schedule.
        timestep_spacing: ``linspace`` or ``trailing``.
    """

    request_id: str
    image: Picture
    background_mask: BoolMask
    T_hat: int
    seed: int
    prompt: str
    negative_prompt: str
    guidance_scale: float
    guidance_interval: tuple[float, float]
    num_inference_steps: int
    timestep_spacing: str


@dataclass(eq=False)
class PaintResult:
    """What the engine gives back: a picture, uint8 RGB (S, S, 3), or an error, never both."""

    request_id: str
    image: Picture | None
    error: str | None


@dataclass(eq=False)
class Prepared:
    """A job that is ready to be painted.

    Attributes:
        job: The job.
        source: uint8 RGB (H, W, 3).
        masks: The objects' pixels, at image size.
        background_ratio: Share of un-eroded background, 0..1.
        T_hat: Denoising steps.
        background_mask: bool (S, S), eroded.
    """

    job: InpaintJob
    source: Picture
    masks: ObjectMasks
    background_ratio: float
    T_hat: int
    background_mask: BoolMask

    def request(self, attempt: int = 0) -> PaintRequest:
        """The request for the engine; each ``attempt`` (from 0) has its own seed."""
        settings = self.job.recipe.settings
        return PaintRequest(
            request_id=f"{self.job.key}/{attempt}",
            image=_resize(self.source, settings.resolution, settings.resolution, cv2.INTER_LINEAR),
            background_mask=self.background_mask,
            T_hat=self.T_hat,
            seed=self.job.seed(attempt),
            prompt=self.job.prompt,
            negative_prompt=settings.negative_prompt,
            guidance_scale=settings.guidance_scale,
            guidance_interval=(settings.guidance_interval[0], settings.guidance_interval[1]),
            num_inference_steps=settings.num_inference_steps,
            timestep_spacing=settings.timestep_spacing,
        )


@dataclass(eq=False)
class Finished:
    """A painted picture at the image's size.

    Attributes:
        image: uint8 RGB (H, W, 3).
        qc: ``background_std`` (grey levels), ``changed_share`` (0..1), ``object_drift`` (grey
            levels); see ``finish``.
        rejected: Why it must not be used, one of ``REJECT_REASONS``, or None.
    """

    image: Picture
    qc: dict[str, float | int | str]
    rejected: str | None


def prepare(job: InpaintJob, image_root: str | Path) -> Prepared:
    """Read a job's image, check it, build its masks and decide how many steps it gets.

    Raises:
        SkipImage: By rule this image is not augmented.
        ImageError: The file is unusable or not the one that the job was made for.
        AnnotationError: An annotation is unusable.
    """
    settings, source = job.recipe.settings, job.source
    if not job.objects:
        raise SkipImage("no_objects", f"image {source.image_id} has no object")
    if settings.crowd == "skip_image" and any(item.iscrowd for item in job.objects):
        raise SkipImage("crowd", f"image {source.image_id} has a crowd region")
    image = _read_source(source, image_root)
    found = masks.object_masks(job.objects, source.height, source.width, source.image_id)
    ratio = masks.background_ratio(found.object_mask)
    if ratio < settings.min_background:
        raise SkipImage(
            "small_background",
            f"image {source.image_id} has {ratio:.4f} background, under {settings.min_background}",
        )
    background_mask = masks.inpaint_masks(found.object_mask, settings)
    if not background_mask.any():
        raise SkipImage("small_background", f"image {source.image_id}: erosion leaves nothing")
    return Prepared(job, image, found, ratio, steps.T_hat(settings, ratio), background_mask)


def finish(prepared: Prepared, painted: Picture) -> Finished:
    """Bring a painted square, uint8 RGB (S, S, 3), back to the image's size and judge it.

    All is measured before the objects are put back. ``background_std`` is the standard deviation
    over the painted pixels, averaged over the channels, in grey levels. ``changed_share`` is the
    share of painted pixels that differ from the source by more than ``quality.changed_threshold``
    in some channel. Both leave out the eroded rim, which the model keeps. ``object_drift`` is the
    mean absolute difference inside the objects, in grey levels: what the model's autoencoder would
    have done to them.

    Raises:
        ValueError: ``painted`` has another shape or dtype.
    """
    settings, source = prepared.job.recipe.settings, prepared.source
    S = settings.resolution
    if painted.shape != (S, S, 3) or painted.dtype != np.uint8:
        raise ValueError(f"painted is {painted.dtype} {painted.shape}, not uint8 {(S, S, 3)}")
    height, width = source.shape[:2]
    image = _resize(painted, height, width, cv2.INTER_CUBIC)
    object_mask = prepared.masks.object_mask
    eroded = cv2.resize(
        prepared.background_mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST
    )
    painted_mask = eroded.astype(bool) & ~object_mask
    qc, rejected = _judge(image, source, painted_mask, object_mask, settings.quality)
    if settings.paste_back:
        image = masks.composite(image, source, object_mask)
    return Finished(image, qc, rejected)


def sidecar(prepared: Prepared, finished: Finished, attempt: int, created: str) -> dict[str, Any]:
    """The record beside a picture; the cache adds ``sha256``, ``file`` and ``digest``."""
    return job_sidecar(prepared.job, attempt, created) | {
        "objects": dict(prepared.masks.sources),
        "object_mask": masks.mask_to_rle(prepared.masks.object_mask),
        "T_hat": prepared.T_hat,
        "background_ratio": prepared.background_ratio,
        "qc": dict(finished.qc),
    }


def job_sidecar(job: InpaintJob, attempt: int, created: str) -> dict[str, Any]:
    """The part of the record that is known without painting (all there is for a skipped image).

    Args:
        job: The job.
        attempt: Which seed, from 0.
        created: Time of painting, ISO 8601, UTC.
    """
    recipe = asdict(job.recipe)
    source = asdict(job.source)
    del source["num_bytes"]
    return {
        "schema": SCHEMA,
        "key": job.key,
        "source": source,
        "model": recipe.pop("model"),
        "recipe": recipe,
        "prompt": job.prompt,
        "variant": job.variant,
        "seed": job.seed(attempt),
        "created": created,
    }


def _read_source(source: SourceImage, image_root: str | Path) -> Picture:
    """Read a job's image, uint8 RGB (H, W, 3), and check that it is the one asked for.

    The bytes that are hashed are those that are decoded, so a file that changes meanwhile cannot
    end up under the key of its predecessor.
    """
    path = resolve_inside(image_root, source.file_name)
    content = read_bytes(path, source.num_bytes)
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 != source.sha256:
        raise ImageError(
            f"{path}: has SHA-256 {sha256[:12]}..., the job expects {source.sha256[:12]}...; "
            "the file has changed"
        )
    image = decode_image(content, path)
    if image.shape[:2] != (source.height, source.width):
        raise ImageError(
            f"{path}: is {image.shape[1]} x {image.shape[0]} pixels, "
            f"the data set says {source.width} x {source.height}"
        )
    return image


def _resize(image: Picture, height: int, width: int, enlarge: int) -> Picture:
    """Resize (H, W, 3): axes that shrink are averaged over areas, others use ``enlarge``."""
    rows, columns = min(image.shape[0], height), min(image.shape[1], width)
    if image.shape[:2] != (rows, columns):
        image = np.asarray(
            cv2.resize(image, (columns, rows), interpolation=cv2.INTER_AREA), dtype=np.uint8
        )
    if image.shape[:2] != (height, width):
        image = np.asarray(cv2.resize(image, (width, height), interpolation=enlarge), np.uint8)
    return image


def _judge(
    image: Picture,
    source: Picture,
    painted_mask: BoolMask,
    object_mask: BoolMask,
    quality: QualityConfig,
) -> tuple[dict[str, float | int | str], str | None]:
    difference = cv2.absdiff(image, source)
    alike = cv2.inRange(difference, (0, 0, 0), (quality.changed_threshold,) * 3)  # 0 or 255
    changed = (alike == 0) & painted_mask
    background_std = float(cv2.meanStdDev(image, mask=painted_mask.astype(np.uint8))[1].mean())
    painted_count = max(int(np.count_nonzero(painted_mask)), 1)
    changed_share = int(np.count_nonzero(changed)) / painted_count
    object_drift = float(np.mean(cv2.mean(difference, mask=object_mask.astype(np.uint8))[:3]))
    qc: dict[str, float | int | str] = {
        "background_std": background_std,
        "changed_share": changed_share,
        "object_drift": object_drift,
    }
    if background_std < quality.min_std:
        return qc, "flat"
    if changed_share < quality.min_changed:
        return qc, "unchanged"
    return qc, None
