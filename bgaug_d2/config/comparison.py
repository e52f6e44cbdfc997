"""Settings of the augmentations that background augmentation is compared and combined with.

Standard library only, like ``config``.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from bgaug_d2.config.checks import check_between, check_choice
from bgaug_d2.errors import ConfigError

SAMPLERS = ("uniform", "repeat_factor")
# They change colours only, so boxes and masks stay as they are.
PHOTOMETRIC_OPS = (
    "autocontrast",
    "equalize",
    "solarize",
    "posterize",
    "color",
    "contrast",
    "brightness",
    "sharpness",
)
GEOMETRIC_OPS = ("translate_x", "translate_y", "rotate", "shear_x", "shear_y")


@dataclass
class RandAugmentConfig:
    """RandAugment (Cubuk et al. 2020, arXiv 1909.13719) for detection, before flip and resize.

    Attributes:
        num_ops: Operations an image goes through, drawn with replacement; 0 switches it off.
        magnitude: Their strength, 0..10; ``bgaug_d2.augment.rand_augment`` has the ranges.
        ops: The operations to draw from; geometric ones move boxes and masks too.
    """

    num_ops: int = 0
    magnitude: float = 5.0
    ops: list[str] = field(default_factory=lambda: [*PHOTOMETRIC_OPS, *GEOMETRIC_OPS])

    def __post_init__(self) -> None:
        self.magnitude = float(self.magnitude)
        check_between("augment.rand_augment.num_ops", self.num_ops, 0, 20)
        check_between("augment.rand_augment.magnitude", self.magnitude, 0, 10)
        if not self.ops:
            raise ConfigError("augment.rand_augment.ops is empty; num_ops=0 switches it off")
        for op in self.ops:
            check_choice("augment.rand_augment.ops", op, PHOTOMETRIC_OPS + GEOMETRIC_OPS)


@dataclass
class CopyPasteConfig:
    """Simple Copy-Paste (Ghiasi et al. 2021, arXiv 2012.07177), before flip and resize.

    Attributes:
        p: Probability that objects of another image are pasted onto an image, 0..1; 0 switches it
            off.
        scale: Smallest and largest factor by which the other image is resized before.
        max_objects: At most this many of its objects are pasted (a random subset, at least one).
        min_visible: An object under the pasted ones is dropped if less than this share of it, 0..1,
            is left; so is a pasted one that the image's border cuts to less.
    """

    p: float = 0.0
    scale: list[float] = field(default_factory=lambda: [0.5, 1.5])
    max_objects: int = 20
    min_visible: float = 0.1

    def __post_init__(self) -> None:
        self.p, self.min_visible = float(self.p), float(self.min_visible)
        self.scale = [float(factor) for factor in self.scale]
        check_between("augment.copy_paste.p", self.p, 0, 1)
        check_between("augment.copy_paste.max_objects", self.max_objects, 1)
        check_between("augment.copy_paste.min_visible", self.min_visible, 0, 1)
        if len(self.scale) != 2 or not 0.05 <= self.scale[0] <= self.scale[1] <= 20:
            raise ConfigError(
                f"augment.copy_paste.scale={self.scale!r} is not allowed; give two factors in "
                "0.05..20, the smaller first"
            )


@dataclass
class AugmentConfig:
    """Augmentations that background augmentation is compared and combined with.

    Attributes:
        rand_augment: Photometric and geometric operations at random.
        copy_paste: Objects of other images.
        sampler: ``uniform``, or ``repeat_factor``: images with rare classes are drawn more often
            (Gupta et al. 2019, arXiv 1908.03195).
        repeat_threshold: Share of images, 0..1, that a class must be in not to count as rare.
    """

    rand_augment: RandAugmentConfig = field(default_factory=RandAugmentConfig)
    copy_paste: CopyPasteConfig = field(default_factory=CopyPasteConfig)
    sampler: str = "uniform"
    # The threshold of Gupta et al.
    repeat_threshold: float = 0.001

    def __post_init__(self) -> None:
        self.repeat_threshold = float(self.repeat_threshold)
        check_choice("augment.sampler", self.sampler, SAMPLERS)
        check_between("augment.repeat_threshold", self.repeat_threshold, 0, 1)
