"""One job before and after the model: what the worker's CPU threads do.

A picture goes through the model once for its background, once for each object, or both, as
``recipe.target`` says: its passes. ``prepare`` reads and checks the image and plans them; for each,
``Prepared.request`` is what the engine gets and ``finish`` brings the painted square back to the
image's size and restores all that the pass was not to paint; ``Prepared.following`` is the picture
before its next pass.

Each object is painted on the result of the passes before it, in the order of the annotations, so of
two that overlap the later one has the pixels. Pixels of a crowd region always stay, also where an
object overlaps it. Objects take all ``T`` steps: the paper adapts steps to the background only.

Shapes: H, W the image; S the side of the square that the model paints (see ``masks``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np

from bgaug_d2.config.recipe import RecipeConfig
from bgaug_d2.jobs import steps
from bgaug_d2.jobs.job import InpaintJob, JobObject
from bgaug_d2.painting import quality
from bgaug_d2.painting.engine_interface import PaintRequest
from bgaug_d2.painting.source import read_source
from bgaug_d2.pixels import masks
from bgaug_d2.pixels.encode import resize
from bgaug_d2.pixels.masks import BoolMask, Picture, erode_background, square_object_mask
from bgaug_d2.pixels.object_masks import ObjectMasks, object_masks

SKIP_REASONS = ("no_objects", "small_background", "crowd")


class SkipImage(Exception):  # noqa: N818 - not an error: a rule says that this image is not augmented
    """An image is not augmented by rule; ``reason`` is one of ``SKIP_REASONS``."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason


@dataclass(eq=False)
class Prepared:
    """A job that is ready for its next pass.

    Attributes:
        job: The job.
        source: uint8 RGB (H, W, 3).
        masks: The objects' pixels, at image size.
        background_ratio: Share of un-eroded background, 0..1.
        T_hat: Denoising steps of the first pass.
        background_mask: bool (S, S), eroded; nowhere True if the background is not painted.
        crowd_mask: bool (H, W), pixels of crowd regions.
        passes: What each pass paints: the place of an object in ``job.objects``, or None for the
            background.
        canvas: uint8 RGB (H, W, 3), what the next pass paints on: the source, or the result of the
            passes before.
        attempts: Of each pass before, which seed succeeded.
        qc: Figures of the passes before.
    """

    job: InpaintJob
    source: Picture
    masks: ObjectMasks
    background_ratio: float
    T_hat: int
    background_mask: BoolMask
    crowd_mask: BoolMask
    passes: tuple[int | None, ...]
    canvas: Picture
    attempts: tuple[int, ...] = ()
    qc: dict[str, float] = field(default_factory=dict)

    @property
    def number(self) -> int:
        """Of the next pass, from 0."""
        return len(self.attempts)

    @property
    def painted_object(self) -> int | None:
        """The place in ``job.objects`` of what the next pass paints; None is the background."""
        return self.passes[self.number]

    def request(self, attempt: int = 0) -> PaintRequest:
        """The next pass for the engine; each ``attempt`` (from 0) has its own seed."""
        job, settings, index = self.job, self.job.recipe.settings, self.painted_object
        S = settings.resolution
        if index is None:
            painted_mask, prompt, T_hat = self.background_mask, job.prompt, self.T_hat
        else:
            painted_mask = masks.square_object_mask(self.own_mask(index), S)
            prompt, T_hat = job.object_prompts[index], settings.num_inference_steps
        return PaintRequest(
            request_id=f"{job.key}/{self.number}/{attempt}",
            image=resize(self.canvas, S, S, cv2.INTER_LINEAR),
            painted_mask=painted_mask,
            T_hat=T_hat,
            seed=job.seed(attempt, self.number),
            prompt=prompt,
            negative_prompt=settings.negative_prompt,
            guidance_scale=settings.guidance_scale,
            guidance_interval=(settings.guidance_interval[0], settings.guidance_interval[1]),
            solver_order=settings.solver_order,
            whole_every=settings.whole_every,
            num_inference_steps=settings.num_inference_steps,
            timestep_spacing=settings.timestep_spacing,
            touched_cells=index is not None,
        )

    def own_mask(self, index: int) -> BoolMask:
        """The pixels, bool (H, W), that the pass of one object paints.

        Made when it is needed: the masks of a crowded image together could fill the memory.
        """
        return _own_mask(self.job, index) & ~self.crowd_mask

    def following(self, finished: Finished, attempt: int) -> Prepared | None:
        """The job before the pass after this one; None if this was the last.

        Args:
            finished: The result of this pass.
            attempt: Which seed it had.
        """
        if self.number + 1 == len(self.passes):
            return None
        return replace(
            self,
            canvas=finished.image,
            attempts=(*self.attempts, attempt),
            qc=self.qc | finished.qc,
        )


@dataclass(eq=False)
class Finished:
    """The result of a pass at the image's size.

    Attributes:
        image: uint8 RGB (H, W, 3).
        qc: Of a background the figures of ``quality.judge_background``; of the last object
            ``object_changed_share`` (0..1), over the pixels of all painted objects.
        rejected: Why it must not be used, one of ``quality.REJECT_REASONS``, or None.
    """

    image: Picture
    qc: dict[str, float]
    rejected: str | None


def prepare(job: InpaintJob, image_root: str | Path) -> Prepared:
    """Read a job's image, check it, build its masks and plan its passes.

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
    image = read_source(source, image_root)
    found = _masks_of(job, job.objects)
    ratio = masks.background_ratio(found.object_mask)
    background_mask = np.zeros((settings.resolution,) * 2, dtype=bool)
    T_hat = settings.num_inference_steps
    passes: list[int | None] = []
    if settings.paints_background:
        background_mask = _background_mask(job, found, ratio)
        T_hat = steps.T_hat(settings, ratio)
        passes.append(None)
    crowd_mask = _masks_of(job, [each for each in job.objects if each.iscrowd]).object_mask
    if settings.paints_objects:
        passes += _paintable(job, crowd_mask)
    if not passes:
        raise SkipImage("no_objects", f"image {source.image_id} has nothing but crowd regions")
    return Prepared(
        job, image, found, ratio, T_hat, background_mask, crowd_mask, tuple(passes), image
    )


def finish(prepared: Prepared, painted: Picture) -> Finished:
    """Bring the painted square of a pass, uint8 RGB (S, S, 3), back to the image's size.

    All that an object's pass was not to paint is put back bit for bit; a background is judged, and
    the objects are put back with ``paste_back``.

    Raises:
        ValueError: ``painted`` has another shape or dtype.
    """
    S = prepared.job.recipe.settings.resolution
    if painted.shape != (S, S, 3) or painted.dtype != np.uint8:
        raise ValueError(f"painted is {painted.dtype} {painted.shape}, not uint8 {(S, S, 3)}")
    height, width = prepared.source.shape[:2]
    image = resize(painted, height, width, cv2.INTER_CUBIC)
    index = prepared.painted_object
    if index is None:
        return _finish_background(prepared, image)
    image = masks.composite(image, prepared.canvas, ~prepared.own_mask(index))
    is_last = prepared.number + 1 == len(prepared.passes)
    return Finished(image, _object_figures(prepared, image) if is_last else {}, None)


def _masks_of(job: InpaintJob, objects: Sequence[JobObject]) -> ObjectMasks:
    source = job.source
    return object_masks(objects, source.height, source.width, source.image_id)


def _own_mask(job: InpaintJob, index: int) -> BoolMask:
    return _masks_of(job, [job.objects[index]]).object_mask


def _background_mask(job: InpaintJob, found: ObjectMasks, ratio: float) -> BoolMask:
    """The eroded background, bool (S, S); SkipImage if it is too small."""
    settings, image_id = job.recipe.settings, job.source.image_id
    if ratio < settings.min_background:
        raise SkipImage(
            "small_background",
            f"image {image_id} has {ratio:.4f} background, under {settings.min_background}",
        )
    background_mask = inpaint_masks(found.object_mask, settings)
    if not background_mask.any():
        raise SkipImage("small_background", f"image {image_id}: erosion leaves nothing")
    return background_mask


def _paintable(job: InpaintJob, crowd_mask: BoolMask) -> list[int]:
    """Places of the objects that are not, or not wholly within, crowd regions."""
    return [
        index
        for index, item in enumerate(job.objects)
        if not item.iscrowd and (_own_mask(job, index) & ~crowd_mask).any()
    ]


def _finish_background(prepared: Prepared, image: Picture) -> Finished:
    settings, source = prepared.job.recipe.settings, prepared.source
    object_mask = prepared.masks.object_mask
    eroded = cv2.resize(
        prepared.background_mask.astype(np.uint8),
        source.shape[1::-1],
        interpolation=cv2.INTER_NEAREST,
    )
    painted_mask = eroded.astype(bool) & ~object_mask
    qc, rejected = quality.judge_background(
        image, source, painted_mask, object_mask, settings.quality
    )
    if settings.paste_back:
        image = masks.composite(image, source, object_mask)
    return Finished(image, qc, rejected)


def _object_figures(prepared: Prepared, image: Picture) -> dict[str, float]:
    painted_mask = prepared.masks.object_mask & ~prepared.crowd_mask
    threshold = prepared.job.recipe.settings.quality.changed_threshold
    share = quality.changed_share(image, prepared.source, painted_mask, threshold)
    return {"object_changed_share": share}


def inpaint_masks(object_mask: BoolMask, settings: RecipeConfig) -> BoolMask:
    """The eroded background mask that is painted, bool (S, S).

    ``erosion_resolution`` says whether ``k`` counts pixels of the square or of the image.
    """
    S, kernel = settings.resolution, settings.erosion_kernel
    if settings.erosion_resolution == "image":
        return ~square_object_mask(~erode_background(~object_mask, kernel), S)
    return erode_background(~square_object_mask(object_mask, S), kernel)
