"""A job between two passes through the model, and the result of a pass.

A picture goes through the model once for its background, once for each object, or both, as
``recipe.target`` says: its passes. ``prepare.prepare`` plans them. For each pass,
``Prepared.request`` is what the engine gets, ``finish.finish`` makes a ``Finished`` of the painted
square, and ``Prepared.following`` is the job before its next pass.

Each object is painted on the result of the passes before it, in the order of the annotations, so of
two that overlap the later one has the pixels. Pixels of a crowd region always stay, also where an
object overlaps it. Objects take all ``T`` steps: the paper adapts steps to the background only.

Shapes: H, W the image; S the side of the square that the model paints (see ``pixels.masks``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import cv2

from bgaug_d2.jobs.job import InpaintJob, JobObject
from bgaug_d2.painting.engine_interface import PaintRequest
from bgaug_d2.pixels.encode import resize
from bgaug_d2.pixels.masks import BoolMask, Picture, square_object_mask
from bgaug_d2.pixels.object_masks import ObjectMasks, object_masks


@dataclass(eq=False)
class Finished:
    """The result of a pass at the image's size.

    Attributes:
        image: uint8 RGB (H, W, 3).
        qc: After the background, the figures of ``quality.judge_background``. After the last
            object, ``object_changed_share`` (0..1) over the pixels of all painted objects.
        rejected: Why the picture must not be used, one of ``quality.REJECT_REASONS``, or None.
    """

    image: Picture
    qc: dict[str, float]
    rejected: str | None


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
        passes: What each pass paints: the index of an object in ``job.objects``, or None for the
            background.
        canvas: uint8 RGB (H, W, 3), what the next pass paints on: the source, or the result of the
            passes before.
        attempts: For each pass before, which seed succeeded.
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
        """Number of the next pass, from 0."""
        return len(self.attempts)

    @property
    def is_last(self) -> bool:
        """Whether no pass follows the next one."""
        return self.number + 1 == len(self.passes)

    @property
    def painted_object(self) -> int | None:
        """Index in ``job.objects`` of what the next pass paints; None is the background."""
        return self.passes[self.number]

    def request(self, attempt: int = 0) -> PaintRequest:
        """The next pass for the engine; each ``attempt`` (from 0) has its own seed."""
        job, recipe, index = self.job, self.job.recipe.settings, self.painted_object
        S = recipe.resolution
        if index is None:
            painted_mask, prompt, T_hat = self.background_mask, job.prompt, self.T_hat
        else:
            painted_mask = square_object_mask(self.object_pixels(index), S)
            prompt, T_hat = job.object_prompts[index], recipe.num_inference_steps
        return PaintRequest(
            # Answers are matched by it, so passes and retries of one job need different ones.
            request_id=f"{job.key}/{self.number}/{attempt}",
            image=resize(self.canvas, S, S, cv2.INTER_LINEAR),
            painted_mask=painted_mask,
            T_hat=T_hat,
            seed=job.seed(attempt, self.number),
            prompt=prompt,
            settings=recipe.diffusion,
            # An object smaller than a latent cell would otherwise own no cell and not be painted.
            touched_cells=index is not None,
        )

    def object_pixels(self, index: int) -> BoolMask:
        """The pixels, bool (H, W), that the pass of one object paints.

        They are worked out on demand: the masks of a crowded image could together fill the memory.
        """
        return masks_of(self.job, [self.job.objects[index]]).object_mask & ~self.crowd_mask

    def following(self, finished: Finished, attempt: int) -> Prepared | None:
        """The job before the pass after this one; None if this was the last.

        Args:
            finished: The result of this pass.
            attempt: Which seed it had.
        """
        if self.is_last:
            return None
        # The canvas has the image's size: what stays would lose its pixels in the model's square.
        return replace(
            self,
            canvas=finished.image,
            attempts=(*self.attempts, attempt),
            qc=self.qc | finished.qc,
        )


def masks_of(job: InpaintJob, objects: Sequence[JobObject]) -> ObjectMasks:
    """Masks at image size of some of a job's objects."""
    source = job.source
    return object_masks(objects, source.height, source.width, source.image_id)
