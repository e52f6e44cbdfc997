"""From a job to its first pass: read and check the image, build its masks, plan its passes.

Shapes: H, W the image; S the side of the square that the model paints (see ``pixels.masks``).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bgaug_d2.config.recipe import RecipeConfig
from bgaug_d2.jobs import steps
from bgaug_d2.jobs.job import InpaintJob
from bgaug_d2.painting.passes import Prepared, masks_of
from bgaug_d2.painting.source import read_source
from bgaug_d2.pixels.masks import BoolMask, background_ratio, erode_background, square_object_mask
from bgaug_d2.pixels.object_masks import ObjectMasks

SKIP_REASONS = ("no_objects", "small_background", "crowd")


class SkipImage(Exception):  # noqa: N818 - not an error: a rule says that this image is not augmented
    """An image is not augmented by rule; ``reason`` is one of ``SKIP_REASONS``."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason


def prepare(job: InpaintJob, image_root: str | Path) -> Prepared:
    """Read a job's image, check it, build its masks and plan its passes.

    Raises:
        SkipImage: By rule this image is not augmented.
        ImageError: The file is unusable or not the one that the job was made for.
        AnnotationError: An annotation is unusable.
    """
    # 1. Rules that need no pixel
    recipe, source = job.recipe.settings, job.source
    if not job.objects:
        raise SkipImage("no_objects", f"image {source.image_id} has no object")
    if recipe.crowd == "skip_image" and any(item.iscrowd for item in job.objects):
        raise SkipImage("crowd", f"image {source.image_id} has a crowd region")

    # 2. The image, and which of its pixels belong to objects
    image = read_source(source, image_root)
    masks = masks_of(job, job.objects)
    crowd_mask = masks_of(job, [each for each in job.objects if each.iscrowd]).object_mask
    ratio = background_ratio(masks.object_mask)

    # 3. The passes: the background first, so that objects are painted into the new one
    background_mask = np.zeros((recipe.resolution,) * 2, dtype=bool)
    T_hat = recipe.num_inference_steps
    passes: list[int | None] = []
    if recipe.paints_background:
        background_mask = _background_mask(job, masks, ratio)
        T_hat = steps.T_hat(recipe, ratio)
        passes.append(None)
    if recipe.paints_objects:
        passes += _paintable_objects(job, crowd_mask)
    if not passes:
        raise SkipImage("no_objects", f"image {source.image_id} has nothing but crowd regions")
    return Prepared(
        job=job,
        source=image,
        masks=masks,
        background_ratio=ratio,
        T_hat=T_hat,
        background_mask=background_mask,
        crowd_mask=crowd_mask,
        passes=tuple(passes),
        canvas=image,
    )


def eroded_background_mask(object_mask: BoolMask, recipe: RecipeConfig) -> BoolMask:
    """The eroded background mask that is painted, bool (S, S).

    Args:
        object_mask: bool (H, W), True on objects.
        recipe: ``erosion_resolution`` says whether ``erosion_kernel`` counts pixels of the square
            or of the image.
    """
    S, kernel = recipe.resolution, recipe.erosion_kernel
    if recipe.erosion_resolution == "image":
        return ~square_object_mask(~erode_background(~object_mask, kernel), S)
    return erode_background(~square_object_mask(object_mask, S), kernel)


def _background_mask(job: InpaintJob, masks: ObjectMasks, ratio: float) -> BoolMask:
    """The eroded background, bool (S, S); SkipImage if it is too small."""
    recipe, image_id = job.recipe.settings, job.source.image_id
    if ratio < recipe.min_background:
        raise SkipImage(
            "small_background",
            f"image {image_id} has {ratio:.4f} background, under {recipe.min_background}",
        )
    background_mask = eroded_background_mask(masks.object_mask, recipe)
    # Narrow gaps between objects pass the rule above, and erosion can close all of them.
    if not background_mask.any():
        raise SkipImage("small_background", f"image {image_id}: erosion leaves nothing")
    return background_mask


def _paintable_objects(job: InpaintJob, crowd_mask: BoolMask) -> list[int]:
    """Indices of the objects that have pixels outside of crowd regions, which always stay."""
    return [
        index
        for index, item in enumerate(job.objects)
        if not item.iscrowd and (masks_of(job, [item]).object_mask & ~crowd_mask).any()
    ]
