"""RandAugment for detection, as one of Detectron2's augmentations."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
from detectron2.data.transforms import Augmentation, ColorTransform, Transform, TransformList
from PIL import Image, ImageEnhance, ImageOps

from bgaug_d2.augment.affine import AffineTransform, FloatArray
from bgaug_d2.config.comparison import GEOMETRIC_OPS, PHOTOMETRIC_OPS
from bgaug_d2.pixels.masks import Picture

# The largest that `RandAugmentConfig` allows.
_MAX_MAGNITUDE = 10.0
_ENHANCERS = {
    "color": ImageEnhance.Color,
    "contrast": ImageEnhance.Contrast,
    "brightness": ImageEnhance.Brightness,
    "sharpness": ImageEnhance.Sharpness,
}


class RandAugment(Augmentation):
    """Applies operations drawn with replacement, all at one magnitude.

    The scheme is that of RandAugment (Cubuk et al. 2020, arXiv 1909.13719). Its use for detection
    follows STAC (Sohn et al. 2020, arXiv 2005.04757), without STAC's operations on single boxes.
    With s = magnitude / 10, in 0..1, and a random sign where there is a +-:

        autocontrast, equalize            in full, whatever the magnitude
        solarize                          inverts values from 256 (1 - s) on; none at s = 0
        posterize                         keeps 8 - 4 s bits, rounded
        color, contrast, brightness,
        sharpness                         PIL's factor 1 +- 0.9 s
        translate_x, translate_y          +- 0.1 s of width or height, as in STAC
        rotate                            +- 30 s degrees about the centre
        shear_x, shear_y                  +- 0.3 s, about the centre

    At magnitude 0 only ``autocontrast`` and ``equalize`` change a picture. Pixels that come from
    outside it are grey (128).

    Args:
        num_ops: Number of operations on an image.
        magnitude: Strength of all operations, 0..10.
        ops: Names to draw from, out of ``PHOTOMETRIC_OPS`` and ``GEOMETRIC_OPS``.
        image_format: ``RGB`` or ``BGR``, the order of the channels.
    """

    def __init__(
        self, num_ops: int, magnitude: float, ops: Sequence[str], image_format: str = "BGR"
    ) -> None:
        super().__init__()
        self.num_ops = num_ops
        self.magnitude = magnitude
        self.ops = list(ops)
        self.image_format = image_format

    def get_transform(self, image: Picture) -> Transform:
        """Draw operations for an image, uint8 (H, W, 3), with NumPy's global generator."""
        height, width = image.shape[:2]
        transforms = []
        for index in np.random.randint(len(self.ops), size=self.num_ops):
            # Drawn even where the sign has no use: later draws do not depend on the operation.
            strength = self.magnitude / _MAX_MAGNITUDE * np.random.choice((-1.0, 1.0))
            op = self.ops[index]
            if op in GEOMETRIC_OPS:
                matrix = affine_matrix(op, strength, height, width)
                transforms.append(AffineTransform(matrix, height, width))
            else:
                # `partial` keeps this round's values; a lambda would see the last round's.
                apply = functools.partial(
                    photometric, op=op, strength=strength, image_format=self.image_format
                )
                transforms.append(ColorTransform(apply))
        return TransformList(transforms)


def photometric(image: Picture, op: str, strength: float, image_format: str) -> Picture:
    """Change the colours of a picture.

    Args:
        image: uint8 (H, W, 3).
        op: One of ``PHOTOMETRIC_OPS``.
        strength: -1..1; the sign matters for PIL's factors only.
        image_format: ``RGB`` or ``BGR``.

    Returns:
        A new picture, uint8 (H, W, 3), in the same format.
    """
    order = slice(None, None, -1 if image_format == "BGR" else 1)
    # Pillow takes RGB: its grey, which colour and contrast use, weighs the channels differently.
    source = Image.fromarray(np.ascontiguousarray(image[:, :, order]))
    share = abs(strength)
    if op == "autocontrast":
        changed = ImageOps.autocontrast(source)
    elif op == "equalize":
        changed = ImageOps.equalize(source)
    elif op == "solarize":
        changed = ImageOps.solarize(source, round(256 * (1 - share)))
    elif op == "posterize":
        changed = ImageOps.posterize(source, 8 - round(4 * share))
    elif op in _ENHANCERS:
        changed = _ENHANCERS[op](source).enhance(1 + 0.9 * strength)
    else:
        raise ValueError(f"op={op!r} must be one of {', '.join(PHOTOMETRIC_OPS)}")
    # Reversed channels are a view of negative stride, which torch refuses.
    return np.ascontiguousarray(np.asarray(changed)[:, :, order])


def affine_matrix(op: str, strength: float, height: int, width: int) -> FloatArray:
    """The matrix of an operation for ``AffineTransform``, float (2, 3).

    Args:
        op: One of ``GEOMETRIC_OPS``.
        strength: -1..1.
        height: Height of the image, in pixels.
        width: Width of the image, in pixels.
    """
    linear, shift = np.eye(2), np.zeros(2)
    if op == "translate_x":
        shift[0] = 0.1 * strength * width
    elif op == "translate_y":
        shift[1] = 0.1 * strength * height
    elif op == "rotate":
        angle = math.radians(30 * strength)
        cos, sin = math.cos(angle), math.sin(angle)
        linear[:] = (cos, sin), (-sin, cos)
    elif op == "shear_x":
        linear[0, 1] = 0.3 * strength
    elif op == "shear_y":
        linear[1, 0] = 0.3 * strength
    else:
        raise ValueError(f"op={op!r} must be one of {', '.join(GEOMETRIC_OPS)}")
    # Rotation and shear keep the centre of the image where it is.
    centre = np.array([width, height]) / 2
    return np.column_stack([linear, centre - linear @ centre + shift])
