"""Damaged files: a picture, or an ``ImageError``, and never a part of a picture."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bgaug_d2.errors import ImageError
from bgaug_d2.pixels.encode import encode_picture
from bgaug_d2.pixels.read import decode_image
from tests.helpers.factories import noise

KINDS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "PPM")


def encoded(kind: str) -> bytes:
    buffer = BytesIO()
    Image.fromarray(noise(12, 17)).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", KINDS)
def test_a_cut_file_is_whole_or_refused(kind: str) -> None:
    """A cut that takes nothing but the end mark may pass: then every pixel is there."""
    content = encoded(kind)
    whole = decode_image(content, "whole")
    refused = 0
    for length in range(len(content)):
        try:
            image = decode_image(content[:length], "cut")
        except ImageError:
            refused += 1
            continue
        np.testing.assert_array_equal(image, whole)
    assert refused > len(content) - 25


@given(
    st.sampled_from(KINDS),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=6),
)
def test_damage_gives_a_picture_or_an_image_error(
    kind: str, damage: list[tuple[float, int]]
) -> None:
    content = bytearray(encoded(kind))
    for place, value in damage:
        content[int(place * len(content))] = value
    try:
        image = decode_image(bytes(content), "damaged", max_pixels=1_000_000)
    except ImageError:
        return
    assert image.dtype == np.uint8
    assert image.shape[2] == 3


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused(content: bytes) -> None:
    with pytest.raises(ImageError, match="^bytes: "):
        decode_image(content, "bytes")


@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 999))
def test_png_is_lossless(height: int, width: int, seed: int) -> None:
    rgb = noise(height, width, seed)
    np.testing.assert_array_equal(decode_image(encode_picture(rgb, "png"), "png"), rgb)
