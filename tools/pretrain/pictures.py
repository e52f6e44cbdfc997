"""What the tiny model learns from: squares of the toy world, with captions.

None of them is in a split of ``data.toy``: their generators have seeds of their own.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
import numpy.typing as npt

from bgaug_d2.config.recipe import RecipeConfig
from bgaug_d2.data.toy.backgrounds import BACKGROUNDS, paint_background
from bgaug_d2.data.toy.scene import draw_scene, image_shape, scene_captions

CLEAN_PROMPT = RecipeConfig().prompt_text
_SEED = 20240800350  # apart from the seeds of data sets, which are small numbers


@dataclass(frozen=True, eq=False)
class TrainingPicture:
    """One picture: uint8 (S, S, 3) RGB, the captions it may be shown with, and its background."""

    image: npt.NDArray[np.uint8]
    captions: list[str]
    kind: str


def draw_pictures(numbers: range, size: int, processes: int = 1) -> list[TrainingPicture]:
    """Pictures by number.

    Args:
        numbers: Even ones are empty backgrounds, odd ones full scenes.
        size: S, the side of the squares in pixels. As in inpainting, a picture of another format
            is squashed.
        processes: How many draw side by side.
    """
    draw = partial(draw_picture, size=size)
    if processes == 1:
        return [draw(number) for number in numbers]
    with ProcessPoolExecutor(processes) as pool:
        return list(pool.map(draw, numbers, chunksize=64))


def draw_picture(number: int, size: int) -> TrainingPicture:
    """Picture ``number``: an empty background if that is even, else a full scene."""
    rng = np.random.default_rng([_SEED, number])
    if number % 2:
        # Half of the number: even and odd numbers get the same picture formats in turn.
        picture, placed, kind = draw_scene(rng, number // 2, size, bias=0.0)
        return TrainingPicture(_square(picture, size), scene_captions(placed, kind), kind)
    kind = list(BACKGROUNDS)[int(rng.integers(len(BACKGROUNDS)))]
    floats = paint_background(kind, rng, *image_shape(number // 2, size))
    scene = BACKGROUNDS[kind][1]
    captions = [CLEAN_PROMPT, f"{CLEAN_PROMPT} of {scene}", f"A picture of {scene}."]
    return TrainingPicture(_square(np.round(floats).astype(np.uint8), size), captions, kind)


def _square(picture: npt.NDArray[np.uint8], size: int) -> npt.NDArray[np.uint8]:
    return np.asarray(cv2.resize(picture, (size, size), interpolation=cv2.INTER_LINEAR), np.uint8)
