"""Backgrounds of the toy world: eight kinds, each random in colour, scale and direction.

Every painter takes a random generator and the size H, W in pixels and returns float32 (H, W, 3)
RGB, 0..255. Colours are muted, so that the vivid objects stand out.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

FloatImage = npt.NDArray[np.float32]
Rng = np.random.Generator


def paint_background(kind: str, rng: Rng, height: int, width: int) -> FloatImage:
    """One background of a kind of ``BACKGROUNDS``, lit from one side, with some grain."""
    painter, _ = BACKGROUNDS[kind]
    picture = painter(rng, height, width)
    along, _ = _rotated_grid(rng, height, width)
    light = 1 + rng.uniform(0.05, 0.16) * along / max(height, width)
    grain = rng.normal(0, rng.uniform(1.5, 4.0), (height, width, 1))
    return np.clip(picture * light[:, :, None] + grain, 0, 255).astype(np.float32)


def muted_palette(rng: Rng, count: int) -> list[FloatImage]:
    """``count`` colours, float32 (3,), that go together: neighbouring hues, spread brightness."""
    hue, spread = rng.random(), rng.uniform(0.02, 0.16)
    values = rng.permutation(np.linspace(rng.uniform(0.28, 0.5), rng.uniform(0.68, 0.92), count))
    colours = []
    for value in values:
        this_hue = (hue + rng.uniform(-spread, spread)) % 1
        rgb = colorsys.hsv_to_rgb(this_hue, rng.uniform(0.12, 0.42), float(value))
        colours.append(np.array(rgb, dtype=np.float32) * 255)
    return colours


def fractal_noise(rng: Rng, height: int, width: int, cells: int) -> FloatImage:
    """Cloud-like noise, float32 (H, W), 0..1, in octaves from ``cells`` blobs along the image."""
    total = np.zeros((height, width), dtype=np.float32)
    weight = 1.0
    while cells < 2 * max(height, width):
        grid = rng.random((cells + 1, cells + 1), dtype=np.float32)
        total += weight * cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
        cells, weight = cells * 2, weight * 0.55
    # Not the extremes: a few of them would leave the rest without contrast.
    low, high = np.percentile(total, (1, 99))
    return np.clip((total - low) / max(high - low, 1e-6), 0, 1).astype(np.float32)


def _rotated_grid(rng: Rng, height: int, width: int) -> tuple[FloatImage, FloatImage]:
    """Pixel coordinates about the centre, turned by a random angle: two float32 (H, W)."""
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    x, y = x - width / 2, y - height / 2
    return (
        (x * np.cos(angle) + y * np.sin(angle)).astype(np.float32),
        (y * np.cos(angle) - x * np.sin(angle)).astype(np.float32),
    )


def _mix(share: npt.NDArray[np.floating], first: FloatImage, second: FloatImage) -> FloatImage:
    """Blend two colours by ``share`` (H, W), 0 (all first) to 1."""
    return (first + share[:, :, None] * (second - first)).astype(np.float32)


def _smooth_step(values: FloatImage, softness: float) -> FloatImage:
    """Negative to 0, positive to 1, with a ramp of about ``softness`` between."""
    return np.clip(values / softness + 0.5, 0, 1).astype(np.float32)


def _gradient(rng: Rng, height: int, width: int) -> FloatImage:
    first, second, third = muted_palette(rng, 3)
    along, across = _rotated_grid(rng, height, width)
    size = max(height, width)
    shift = rng.uniform(-0.4, 0.4, 2) * size
    glow = np.exp(-((along - shift[0]) ** 2 + (across - shift[1]) ** 2) / (0.35 * size) ** 2)
    return _mix(glow, _mix(np.clip(along / size + 0.5, 0, 1), first, second), third)


def _stripes(rng: Rng, height: int, width: int) -> FloatImage:
    colours = np.stack(muted_palette(rng, int(rng.integers(2, 5))))
    along, across = _rotated_grid(rng, height, width)
    size = max(height, width)
    period = size * rng.uniform(0.06, 0.16)
    wave = rng.uniform(0, 0.35) * np.sin(across / size * rng.uniform(4, 12))
    # 1000 keeps all places positive: `astype` cuts towards zero, not downwards.
    place = along / period + wave + 1000
    index = place.astype(np.int64)
    edge = _smooth_step((place - index - 0.5).astype(np.float32), 1.6 / period)
    # A pixel near the end of its stripe already has some of the next colour.
    return (
        colours[index % len(colours)] * (1 - edge[:, :, None])
        + colours[(index + 1) % len(colours)] * edge[:, :, None]
    ).astype(np.float32)


def _checks(rng: Rng, height: int, width: int) -> FloatImage:
    first, second = muted_palette(rng, 2)
    along, across = _rotated_grid(rng, height, width)
    size = max(height, width)
    frequency = np.pi / (size * rng.uniform(0.08, 0.2))
    tilt = 1 + rng.uniform(0, 0.45) * across / size  # perspective
    board = np.sin(along * frequency / tilt) * np.sin(across * frequency / tilt)
    tone = 0.18 * (fractal_noise(rng, height, width, 4) - 0.5)
    return _mix(_smooth_step(board.astype(np.float32), 2 * frequency) + tone, first, second)


def _clouds(rng: Rng, height: int, width: int) -> FloatImage:
    first, second, third = muted_palette(rng, 3)
    cells = int(rng.integers(2, 6))
    base = _mix(fractal_noise(rng, height, width, cells), first, second)
    return _mix(fractal_noise(rng, height, width, cells) ** 3, base, third)


def _cells(rng: Rng, height: int, width: int) -> FloatImage:
    colours = np.stack(muted_palette(rng, 5))
    count = int(rng.integers(16, 60))
    sites = rng.uniform(-0.1, 1.1, (count, 2)).astype(np.float32) * (width, height)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    # The second nearest too: a border lies where both are equally far.
    first, second = (np.full((height, width), np.inf, np.float32) for _ in range(2))
    nearest = np.zeros((height, width), dtype=np.int64)
    for number, (site_x, site_y) in enumerate(sites):
        distance = np.hypot(x - site_x, y - site_y)
        nearest[distance < first] = number
        second = np.minimum(second, np.maximum(first, distance))
        first = np.minimum(first, distance)
    tones = colours[rng.integers(0, 5, count)] * rng.uniform(0.85, 1.1, (count, 1))
    border = _smooth_step(second - first - rng.uniform(1, 3), 2)
    return (tones[nearest] * (0.55 + 0.45 * border[:, :, None])).astype(np.float32)


def _lines(rng: Rng, height: int, width: int) -> FloatImage:
    colours = muted_palette(rng, 6)
    ground = _mix(fractal_noise(rng, height, width, 3), colours[0], colours[0] * 0.8)
    picture = ground.astype(np.uint8)  # OpenCV draws soft lines on 8 bits only
    size = max(height, width)
    for _ in range(int(rng.integers(25, 70))):
        turns = np.cumsum(rng.normal(0, 0.5, 6)) + rng.uniform(0, 2 * np.pi)
        steps = np.stack([np.cos(turns), np.sin(turns)], axis=1) * size * rng.uniform(0.05, 0.2)
        points = rng.uniform(0, 1, 2) * (width, height) + np.cumsum(steps, axis=0)
        colour = tuple(float(value) for value in colours[int(rng.integers(1, 6))])
        thickness = max(1, round(size / 128 * rng.uniform(0.6, 3.2)))
        path = np.round(points * 16).astype(np.int32)  # shift=4: sixteenths of a pixel
        cv2.polylines(picture, [path], False, colour, thickness, cv2.LINE_AA, shift=4)
    return picture.astype(np.float32)


def _hills(rng: Rng, height: int, width: int) -> FloatImage:
    high, low, *layers = muted_palette(rng, 6)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    high, low = (colour * (215 / colour.max()) for colour in (high, low))  # a bright sky
    picture = _mix(np.clip(y / (0.7 * height), 0, 1), high, low)
    sun = np.hypot(x - rng.uniform(0.1, 0.9) * width, y - rng.uniform(0.1, 0.35) * height)
    glow = np.exp(-sun / (rng.uniform(0.08, 0.16) * max(height, width)))
    picture += 0.9 * glow[:, :, None] * (np.array([255, 246, 222], np.float32) - picture)
    horizon = rng.uniform(0.38, 0.5)
    columns = np.arange(width) / width
    for depth, colour in enumerate(layers):
        phases, waves = rng.uniform(0, 2 * np.pi, 4), rng.uniform(2, 14, 4)
        outline = sum(
            np.sin(columns * wave + phase) / wave for wave, phase in zip(waves, phases, strict=True)
        )
        top = height * (horizon + 0.13 * depth + 0.11 * outline)
        shaded = colour * (0.95 - 0.13 * depth)
        picture = _mix(_smooth_step((y - top).astype(np.float32), 1.5), picture, shaded)
    return picture


def _bricks(rng: Rng, height: int, width: int) -> FloatImage:
    mortar, brick, other = muted_palette(rng, 3)
    size = max(height, width)
    brick_height = size * rng.uniform(0.055, 0.11)
    brick_width = brick_height * rng.uniform(1.7, 2.6)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    down = y / brick_height + rng.random()
    row = np.floor(down).astype(np.int64)
    along = x / brick_width + 0.5 * (row % 2) + rng.random()
    column = np.floor(along).astype(np.int64)
    tones = rng.random((int(row.max()) + 1, int(column.max()) + 1), dtype=np.float32)
    picture = _mix(tones[row, column], brick, other)
    from_edge = np.minimum(
        (0.5 - np.abs(down % 1 - 0.5)) * brick_height, (0.5 - np.abs(along % 1 - 0.5)) * brick_width
    )
    joint = _smooth_step((from_edge - 0.09 * brick_height).astype(np.float32), 1.2)
    return _mix(joint, mortar, picture)


# Kind -> (painter, the words of a caption).
BACKGROUNDS: dict[str, tuple[Callable[[Rng, int, int], FloatImage], str]] = {
    "gradient": (_gradient, "a soft gradient"),
    "stripes": (_stripes, "a striped wall"),
    "checks": (_checks, "a checkered floor"),
    "clouds": (_clouds, "drifting clouds"),
    "cells": (_cells, "a stone mosaic"),
    "lines": (_lines, "a tangle of lines"),
    "hills": (_hills, "rolling hills under the sun"),
    "bricks": (_bricks, "a brick wall"),
}
