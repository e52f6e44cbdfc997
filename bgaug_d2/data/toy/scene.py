"""One picture of the toy world: objects over a background, and the pixels of each object.

With a bias the backgrounds are few and go with the classes, a shortcut that a detector happily
learns; without one every kind of background occurs and goes with nothing. Painting new backgrounds
breaks the shortcut.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from bgaug_d2.data.toy.backgrounds import BACKGROUNDS, FloatImage, Rng, paint_background
from bgaug_d2.data.toy.shapes import SHAPES, Sprite, draw_sprite

# Backgrounds of a biased split, with the classes that go with each.
BIASED_BACKGROUNDS = {
    "bricks": ("ball", "star", "moon"),
    "stripes": ("box", "heart", "arrow"),
    "cells": ("triangle", "cross"),
}
CROWD_EVERY = 8  # every 8th image has a crowd region, beginning with the first of a split
_MIN_PIXELS = 20
_MIN_VISIBLE = 0.45  # share of an object that must not be hidden


@dataclass(eq=False)
class Placed:
    """An object in its image; ``full`` is bool (H, W), ``visible`` the part that nothing hides."""

    shape: str
    words: str
    iscrowd: bool
    full: npt.NDArray[np.bool_]
    visible: npt.NDArray[np.bool_]


def draw_scene(
    rng: Rng, index: int, image_size: int, bias: float
) -> tuple[npt.NDArray[np.uint8], list[Placed], str]:
    """One picture of the world.

    Args:
        rng: Decides everything that ``index`` does not.
        index: Number of the picture; it decides the format (square, wide, tall) and the crowd.
        image_size: Longer side, in pixels.
        bias: Probability, 0..1, that the background is one of ``BIASED_BACKGROUNDS``, and then,
            for each object, that its class goes with it.

    Returns:
        The picture, uint8 (H, W, 3) RGB; its objects, the farthest first; its kind of background.
    """
    height, width = image_shape(index, image_size)
    kinds = tuple(BIASED_BACKGROUNDS if rng.random() < bias else BACKGROUNDS)
    kind = kinds[int(rng.integers(len(kinds)))]
    picture = paint_background(kind, rng, height, width)
    placed: list[Placed] = []
    if index % CROWD_EVERY == 0:
        _place_crowd(rng, picture, placed, _choose_shape(rng, kind, bias), image_size)
    wanted = len(placed) + int(rng.integers(1, 7))
    for _ in range(40):  # attempts; a crowded image may end up with fewer objects
        if len(placed) == wanted:
            break
        shape = _choose_shape(rng, kind, bias)
        # Log-uniform: as many objects between 0.1 and 0.2 as between 0.2 and 0.4.
        diameter = image_size * float(np.exp(rng.uniform(np.log(0.1), np.log(0.5))))
        centre = rng.uniform(0.08, 0.92, 2) * (width, height)
        _place(picture, placed, [(draw_sprite(rng, shape, diameter), centre)], shape)
    return np.round(picture).astype(np.uint8), placed, kind


def image_shape(index: int, image_size: int) -> tuple[int, int]:
    """Height and width of a picture, in pixels: square, wide and tall in turn."""
    short = round(image_size * (1.0, 0.75, 0.75)[index % 3])
    return (short, image_size) if index % 3 < 2 else (image_size, short)


def _choose_shape(rng: Rng, kind: str, bias: float) -> str:
    going_with = BIASED_BACKGROUNDS.get(kind, SHAPES) if rng.random() < bias else SHAPES
    return going_with[int(rng.integers(len(going_with)))]


def _place_crowd(
    rng: Rng, picture: FloatImage, placed: list[Placed], shape: str, image_size: int
) -> None:
    """A heap of small objects that is annotated as one crowd region, as COCO does."""
    height, width = picture.shape[:2]
    middle = rng.uniform(0.25, 0.75, 2) * (width, height)
    sprites = []
    for _ in range(int(rng.integers(9, 18))):
        diameter = image_size * rng.uniform(0.07, 0.12)
        centre = middle + rng.normal(0, 0.1, 2) * (1.3 * image_size, 0.8 * image_size)
        sprites.append((draw_sprite(rng, shape, diameter), np.clip(centre, 0, (width, height))))
    _place(picture, placed, sprites, shape, iscrowd=True)


def _place(
    picture: FloatImage,
    placed: list[Placed],
    sprites: Sequence[tuple[Sprite, npt.NDArray[np.float64]]],
    shape: str,
    iscrowd: bool = False,
) -> None:
    """Draw one object (or a heap as one) over the picture, unless it hides another too much."""
    windows = [_window(sprite, centre, picture.shape[:2]) for sprite, centre in sprites]
    cover = np.zeros(picture.shape[:2], dtype=np.float32)
    for (sprite, _), (window, part) in zip(sprites, windows, strict=True):
        cover[window] = np.maximum(cover[window], sprite.alpha[part])
    full = cover >= 0.5
    if np.count_nonzero(full) < _MIN_PIXELS:
        return
    for other in placed:
        # All are checked before anything is drawn, so a refused object leaves no trace.
        left = np.count_nonzero(other.visible & ~full)
        if left < max(_MIN_PIXELS, _MIN_VISIBLE * np.count_nonzero(other.full)):
            return
    for other in placed:
        other.visible &= ~full
    picture *= 1 - _shadow(cover)[:, :, None]
    for sprite, centre in sprites:
        paste_sprite(picture, sprite, centre)
    placed.append(Placed(shape, sprites[0][0].words, iscrowd, full, full.copy()))


def paste_sprite(picture: FloatImage, sprite: Sprite, centre: npt.NDArray[np.float64]) -> None:
    """Draw one object, without a shadow, over a picture; ``centre`` is x, y in pixels."""
    window, part = _window(sprite, centre, picture.shape[:2])
    picture[window] += sprite.alpha[part][:, :, None] * (sprite.colour[part] - picture[window])


def _window(
    sprite: Sprite, centre: npt.NDArray[np.float64], size: tuple[int, ...]
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Rows and columns of an image (H, W) that a sprite covers, and those of the sprite."""
    in_image, in_sprite = [], []
    for middle, extent, limit in zip(centre[::-1], sprite.alpha.shape, size, strict=True):
        start = int(middle - extent / 2)
        first, end = max(start, 0), max(min(start + extent, limit), 0)
        in_image.append(slice(first, end))
        in_sprite.append(slice(first - start, end - start))
    return (in_image[0], in_image[1]), (in_sprite[0], in_sprite[1])


def _shadow(cover: FloatImage) -> FloatImage:
    """How much an object darkens what lies under it, float32 (H, W), 0..1."""
    height, width = cover.shape
    scale = 128 / max(height, width)  # a wide blur is slow, and soft enough to be drawn small
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(cover, size, interpolation=cv2.INTER_AREA)
    small = cv2.warpAffine(small, np.array([[1, 0, 1.5], [0, 1, 2.5]]), size)
    shadow = cv2.resize(cv2.GaussianBlur(small, (0, 0), 1.9), (width, height))
    return np.asarray(0.35 * shadow, dtype=np.float32)


def scene_captions(placed: Sequence[Placed], kind: str) -> list[str]:
    """Two captions: the objects with their background, and a short one."""
    scene = BACKGROUNDS[kind][1]
    things = [
        f"many {item.shape}s" if item.iscrowd else _with_article(item.words) for item in placed
    ]
    listed = " and ".join(", ".join(things).rsplit(", ", 1))
    return [
        f"A picture of {listed} in front of {scene}.",
        f"{scene.capitalize()} behind {len(placed)} colourful shape{'s' * (len(placed) != 1)}.",
    ]


def _with_article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"
