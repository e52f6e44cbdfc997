"""Objects of the toy world: eight shapes with random pose, colour and texture.

An object is drawn larger than needed and shrunk, which gives soft edges, and returned as a patch.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from bgaug_d2.data.toy.backgrounds import FloatImage, Rng, fractal_noise

SHAPES = ("ball", "box", "triangle", "star", "cross", "heart", "moon", "arrow")
TEXTURES = ("plain", "shaded", "striped", "dotted", "checked", "marbled")
_HUES = {
    "red": 0.0,
    "orange": 0.075,
    "yellow": 0.145,
    "green": 0.36,
    "turquoise": 0.48,
    "blue": 0.61,
    "purple": 0.76,
    "pink": 0.91,
}
_OVERSAMPLING = 2


@dataclass(frozen=True, eq=False)
class Sprite:
    """A drawn object.

    Attributes:
        colour: float32 (h, w, 3) RGB, 0..255.
        alpha: float32 (h, w), 0..1, the share of each pixel that the object covers.
        words: For captions: colour, texture and shape.
    """

    colour: FloatImage
    alpha: FloatImage
    words: str


def draw_sprite(rng: Rng, shape: str, diameter: float) -> Sprite:
    """One object of a shape of ``SHAPES``, about ``diameter`` pixels across."""
    texture = TEXTURES[int(rng.integers(len(TEXTURES)))]
    hue_name = list(_HUES)[int(rng.integers(len(_HUES)))]
    outline = _posed(rng, _unit_outline(shape)) * diameter / 2
    # A margin, so that soft edges are not cut off.
    low, high = outline.min(axis=0) - 1.5, outline.max(axis=0) + 1.5
    width, height = (int(side) for side in np.ceil(high - low))
    scale = _OVERSAMPLING
    big = np.zeros((height * scale, width * scale), dtype=np.uint8)
    # shift=4: corners in sixteenths of a pixel. Pixel i covers [i, i + 1).
    corners = np.round(((outline - low) * scale - 0.5) * 16).astype(np.int32)
    cv2.fillPoly(big, [corners], 255, cv2.LINE_AA, shift=4)
    colour = _fill(rng, big, hue_name, texture, diameter * scale)
    size = width, height
    alpha = _shrink((big / 255).astype(np.float32), size)
    shrunk = _shrink(colour, size)
    adjective = "" if texture in ("plain", "shaded") else f"{texture} "
    return Sprite(shrunk, alpha, f"{adjective}{hue_name} {shape}")


def _shrink(picture: FloatImage, size: tuple[int, int]) -> FloatImage:
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), dtype=np.float32)


def _unit_outline(shape: str) -> npt.NDArray[np.float64]:
    """Outline of a shape, (N, 2) x, y, within about a unit circle, y downwards."""
    turn = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    circle = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    if shape == "ball":
        return 0.92 * circle
    if shape == "box":
        return np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * 0.8
    if shape == "triangle":
        return np.array([[0, -1], [0.95, 0.75], [-0.95, 0.75]])
    if shape == "star":
        tips = np.linspace(0, 2 * np.pi, 10, endpoint=False) - np.pi / 2
        radius = np.where(np.arange(10) % 2 == 0, 1.08, 0.46)
        return np.stack([np.cos(tips), np.sin(tips)], axis=1) * radius[:, None]
    if shape == "cross":
        a, b = 0.34, 1.0
        right = [[a, -b], [a, -a], [b, -a], [b, a], [a, a], [a, b]]
        left = [[-a, b], [-a, a], [-b, a], [-b, -a], [-a, -a], [-a, -b]]
        return np.array(right + left)
    if shape == "heart":
        x = 16 * np.sin(turn) ** 3
        y = 13 * np.cos(turn) - 5 * np.cos(2 * turn) - 2 * np.cos(3 * turn) - np.cos(4 * turn)
        return np.stack([x, -y - 2.5], axis=1) / 15.5
    if shape == "moon":
        bite, shift = 0.8, 0.5  # radius and centre of the circle that is cut from the unit circle
        tip = np.arccos((1 - bite**2 + shift**2) / (2 * shift))
        inner_tip = np.arctan2(np.sin(tip), np.cos(tip) - shift)
        outer = np.linspace(tip, 2 * np.pi - tip, 40)
        inner = np.linspace(2 * np.pi - inner_tip, inner_tip, 32)
        back = np.stack([shift + bite * np.cos(inner), bite * np.sin(inner)], axis=1)
        front = np.stack([np.cos(outer), np.sin(outer)], axis=1)
        return np.concatenate([front, back]) + (0.2, 0)
    if shape == "arrow":
        return np.array(
            [[1.05, 0], [0.2, 0.8], [0.2, 0.33], [-1, 0.33], [-1, -0.33], [0.2, -0.33], [0.2, -0.8]]
        )
    raise ValueError(f"shape={shape!r} is not one of {', '.join(SHAPES)}")


def _posed(rng: Rng, outline: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The outline turned, squeezed and sheared a little."""
    angle = rng.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    squeeze = rng.uniform(0.78, 1.0)
    stretch = np.array([[1.0, rng.uniform(-0.18, 0.18)], [0.0, squeeze]])
    return outline @ stretch.T @ turn.T


def _fill(
    rng: Rng, mask: npt.NDArray[np.uint8], hue_name: str, texture: str, diameter: float
) -> FloatImage:
    """Colour of an object, float32 (H, W, 3), 0..255: two tones, texture, light and a dark rim."""
    # So little that the name of the colour, which captions have, stays right.
    hue = (_HUES[hue_name] + rng.uniform(-0.012, 0.012)) % 1
    # Vivid, to stand out from the muted backgrounds.
    base = _rgb(hue, rng.uniform(0.82, 1.0), rng.uniform(0.82, 1.0))
    darker = _rgb(hue, 1.0, rng.uniform(0.5, 0.62))
    paler = _rgb(hue, rng.uniform(0.15, 0.3), 1.0)
    second = (darker, paler)[int(rng.integers(2))]
    height, width = mask.shape
    share = _texture(rng, texture, height, width, diameter)
    colour = base + share[:, :, None] * (second - base)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    light = np.hypot(x - 0.32 * width, y - 0.28 * height) / diameter  # from the upper left
    colour *= np.clip(1.16 - 0.42 * light, 0.6, 1.2)[:, :, None]
    depth = cv2.distanceTransform((mask > 127).astype(np.uint8), cv2.DIST_L2, 3)
    rim = max(0.035 * diameter, 0.55 * _OVERSAMPLING)
    inside = np.clip((depth - rim) / (0.3 * _OVERSAMPLING) + 0.5, 0, 1)[:, :, None]
    return np.clip(colour * (0.3 + 0.7 * inside), 0, 255).astype(np.float32)


def _texture(rng: Rng, texture: str, height: int, width: int, diameter: float) -> FloatImage:
    """Share of the second tone, float32 (H, W), 0..1."""
    angle = rng.uniform(0, np.pi)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    along = (x * np.cos(angle) + y * np.sin(angle)) / diameter
    across = (y * np.cos(angle) - x * np.sin(angle)) / diameter
    repeats = rng.uniform(4, 7)
    if texture == "plain":
        return np.zeros((height, width), dtype=np.float32)
    if texture == "shaded":
        share = along - along.min()
        return (0.8 * share / share.max()).astype(np.float32)
    if texture == "striped":
        wave = np.sin(2 * np.pi * repeats * along)
    elif texture == "checked":
        wave = np.sin(np.pi * repeats * along) * np.sin(np.pi * repeats * across) * 2
    elif texture == "dotted":
        wave = np.sin(np.pi * repeats * along) ** 2 * np.sin(np.pi * repeats * across) ** 2 - 0.45
    elif texture == "marbled":
        wave = 2 * (fractal_noise(rng, height, width, 3) - 0.5)
    else:
        raise ValueError(f"texture={texture!r} is not one of {', '.join(TEXTURES)}")
    return np.clip(wave * 3 + 0.5, 0, 1).astype(np.float32)


def _rgb(hue: float, saturation: float, value: float) -> FloatImage:
    return np.array(colorsys.hsv_to_rgb(hue, saturation, value), dtype=np.float32) * 255
