"""RandAugment: every operation runs, does what it says, and is drawn as often as it should."""

from __future__ import annotations

import pickle
from collections import Counter

import numpy as np
import pytest
from detectron2.data.transforms import AugInput, ColorTransform
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from bgaug_d2.augment.affine import AffineTransform
from bgaug_d2.augment.rand_augment import RandAugment, affine_matrix, photometric
from bgaug_d2.config.comparison import GEOMETRIC_OPS, PHOTOMETRIC_OPS
from tests.helpers.factories import noise

ALL_OPS = PHOTOMETRIC_OPS + GEOMETRIC_OPS


def augmented(augment: RandAugment, image: np.ndarray) -> np.ndarray:
    aug_input = AugInput(image)
    augment(aug_input)
    return np.asarray(aug_input.image)


@pytest.mark.parametrize("op", ALL_OPS)
@settings(max_examples=20)
@given(st.integers(1, 24), st.integers(1, 24), st.floats(0, 10), st.integers(0, 99))
def test_every_operation_gives_a_picture(
    op: str, height: int, width: int, magnitude: float, seed: int
) -> None:
    image = noise(height, width, seed)
    before = image.copy()
    np.random.seed(seed)
    picture = augmented(RandAugment(2, magnitude, [op]), image)
    assert picture.dtype == np.uint8
    assert picture.shape == image.shape
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize(
    "op", [each for each in ALL_OPS if each not in ("autocontrast", "equalize")]
)
def test_magnitude_decides_the_strength(op: str) -> None:
    slope = np.add.outer(np.arange(48), np.arange(64))[:, :, None] * (2, 1, 0.5)
    image = (slope + noise(48, 64) / 16).astype(np.uint8)
    for image_format in ("RGB", "BGR"):
        changes = []
        for magnitude in (0, 5, 10):
            np.random.seed(0)
            picture = augmented(RandAugment(1, magnitude, [op], image_format), image)
            changes.append(float(np.abs(picture.astype(int) - image).mean()))
        # PIL's blend with a factor of 1 may round, by one grey value at most.
        assert changes[0] < 0.6
        assert changes[0] < changes[1] < changes[2]


@pytest.mark.parametrize("op", GEOMETRIC_OPS)
def test_magnitude_0_moves_nothing(op: str) -> None:
    transform = RandAugment(1, 0, [op]).get_transform(noise(20, 30))
    np.testing.assert_array_equal(transform.apply_image(noise(20, 30)), noise(20, 30))
    corners = np.array([[0.0, 0], [30, 0], [30, 20], [0, 20]])
    np.testing.assert_allclose(transform.apply_coords(corners), corners, atol=1e-12)


@pytest.mark.parametrize("op", PHOTOMETRIC_OPS)
@pytest.mark.parametrize("strength", [-1.0, 0.5])
def test_colours_are_the_same_in_both_orders_of_channels(op: str, strength: float) -> None:
    image = (noise(16, 16) * (0.9, 0.5, 0.2)).astype(np.uint8)
    rgb = photometric(image, op, strength, "RGB")
    bgr = photometric(image[:, :, ::-1], op, strength, "BGR")
    np.testing.assert_array_equal(rgb, bgr[:, :, ::-1])


def test_colour_weighs_red_as_red() -> None:
    """Without colour red is 30 % grey and blue is 11 %: the wrong order would swap them."""
    red_in_bgr = np.full((4, 4, 3), (0, 0, 255), np.uint8)
    grey = np.asarray(ImageEnhance.Color(Image.new("RGB", (4, 4), (255, 0, 0))).enhance(0.1))
    np.testing.assert_array_equal(photometric(red_in_bgr, "color", -1.0, "BGR"), grey[:, :, ::-1])


@pytest.mark.parametrize(
    ("op", "point", "expected"),
    [
        ("translate_x", (20, 30), (30, 30)),
        ("translate_y", (20, 30), (20, 35)),
        ("rotate", (70, 25), (50 + 20 * 3**0.5 / 2, 25 - 10)),
        ("shear_x", (50, 45), (56, 45)),
        ("shear_y", (70, 25), (70, 31)),
    ],
)
def test_full_strength(op: str, point: tuple[float, float], expected: tuple[float, float]) -> None:
    """On a picture of 50 x 100: shifts of a tenth, 30 degrees, a slope of 0.3, about the centre."""
    transform = AffineTransform(affine_matrix(op, 1.0, 50, 100), 50, 100)
    np.testing.assert_allclose(transform.apply_coords(np.array([point])), [expected])


def test_operations_are_drawn_with_replacement() -> None:
    np.random.seed(0)
    augment = RandAugment(3, 5, ["color", "rotate"])
    lists = [augment.get_transform(noise(8, 8)).transforms for _ in range(200)]
    assert all(len(each) == 3 for each in lists)
    kinds = Counter(type(each) for drawn in lists for each in drawn)
    assert 240 < kinds[AffineTransform] < 360
    assert kinds[AffineTransform] + kinds[ColorTransform] == 600
    first_angles = {each[0].matrix[0, 1] > 0 for each in lists if type(each[0]) is AffineTransform}
    assert first_angles == {True, False}


def test_it_is_pickled_and_follows_the_seed() -> None:
    augment = RandAugment(2, 10, ALL_OPS)
    pictures = []
    for each in (augment, pickle.loads(pickle.dumps(augment))):
        np.random.seed(4)
        pictures.append(augmented(each, noise(24, 24)))
    np.testing.assert_array_equal(*pictures)
    assert not np.array_equal(pictures[0], augmented(augment, noise(24, 24)))


def test_an_unknown_operation_is_named() -> None:
    with pytest.raises(ValueError, match="'blur' must be one of autocontrast"):
        photometric(noise(4, 4), "blur", 1.0, "RGB")
    with pytest.raises(ValueError, match="'blur' must be one of translate_x"):
        affine_matrix("blur", 1.0, 4, 4)
