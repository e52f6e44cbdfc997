"""Reading as Detectron2 reads, names that stay inside the root, PNG without loss."""

from __future__ import annotations

import os
import struct
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from bgaug_d2.errors import ImageError
from bgaug_d2.painting.source import read_bytes
from bgaug_d2.pixels.encode import encode_picture
from bgaug_d2.pixels.paths import relative_name, resolve_inside
from bgaug_d2.pixels.read import decode_image, read_image
from tests.helpers.factories import noise, tiny_coco


def picture() -> Image.Image:
    """Smooth, so that no codec makes noise of it, and different under every turn and flip."""
    rows, columns = np.mgrid[0:33, 0:50]
    return Image.fromarray(np.stack([rows * 7, columns * 5, rows + columns], -1).astype(np.uint8))


def exif(orientation: Any) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def rational_orientation() -> bytes:
    """EXIF that gives the orientation as the fraction 6 / 1 instead of an integer."""
    header, value_at = b"MM\0*" + struct.pack(">I", 8), 8 + 2 + 12 + 4
    directory = struct.pack(">HHHIII", 1, 0x0112, 5, 1, value_at, 0)
    return b"Exif\0\0" + header + directory + struct.pack(">II", 6, 1)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def animation() -> bytes:
    frames = [picture(), picture().transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
    return encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])


def colour_of_16_bits() -> bytes:
    wide = np.random.default_rng(0).integers(0, 2**16, (20, 30, 3), dtype=np.uint16)
    return cv2.imencode(".png", wide)[1].tobytes()


READABLE: dict[str, bytes] = {
    "JPEG": encoded(picture(), "JPEG"),
    "JPEG, progressive": encoded(picture(), "JPEG", progressive=True),
    "JPEG, grey": encoded(picture().convert("L"), "JPEG"),
    "JPEG, CMYK": encoded(picture().convert("CMYK"), "JPEG"),
    "PNG": encoded(picture(), "PNG"),
    "PNG, alpha": encoded(picture().convert("RGBA"), "PNG"),
    "PNG, grey": encoded(picture().convert("L"), "PNG"),
    "PNG, grey with alpha": encoded(picture().convert("LA"), "PNG"),
    "PNG, bilevel": encoded(picture().convert("1"), "PNG"),
    "PNG, palette": encoded(picture().quantize(16), "PNG"),
    "PNG, palette with transparency": encoded(picture().quantize(16), "PNG", transparency=3),
    "PNG, EXIF": encoded(picture(), "PNG", exif=exif(6)),
    "PNG, colour of 16 bits": colour_of_16_bits(),
    "TIFF, CMYK": encoded(picture().convert("CMYK"), "TIFF"),
    "TIFF, EXIF": encoded(picture(), "TIFF", exif=exif(8)),
    "GIF, animated": animation(),
    "BMP": encoded(picture(), "BMP"),
    "PPM": encoded(picture(), "PPM"),
    "WebP": encoded(picture(), "WEBP", lossless=True),
    "JPEG, EXIF of a wrong type": encoded(picture(), "JPEG", exif=rational_orientation()),
    "JPEG, EXIF of garbage": encoded(picture(), "JPEG", exif=b"Exif\0\0garbage"),
} | {f"JPEG, EXIF {n}": encoded(picture(), "JPEG", exif=exif(n)) for n in range(10)}


@pytest.mark.parametrize("name", READABLE)
def test_reads_bit_for_bit_as_detectron2(name: str, tmp_path: Path) -> None:
    detection_utils = pytest.importorskip("detectron2.data.detection_utils")
    path = tmp_path / "image"
    path.write_bytes(READABLE[name])
    image = read_image(path)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, detection_utils.read_image(str(path), "RGB"))
    np.testing.assert_array_equal(image, decode_image(READABLE[name], "image"))


def test_reads_real_images_as_detectron2(tiny_coco_root: Path) -> None:
    detection_utils = pytest.importorskip("detectron2.data.detection_utils")
    for record, _, path in tiny_coco(tiny_coco_root):
        image = read_image(path)
        assert image.shape == (record["height"], record["width"], 3)
        np.testing.assert_array_equal(image, detection_utils.read_image(str(path), "RGB"))


def test_orientation_is_applied(tmp_path: Path) -> None:
    """The comparison above would hold as well if both readers ignored EXIF."""
    plain = decode_image(encoded(picture(), "PNG"), "plain")
    turned = decode_image(READABLE["PNG, EXIF"], "turned")
    np.testing.assert_array_equal(turned, np.rot90(plain, -1))


def test_what_is_read_can_be_written(tmp_path: Path) -> None:
    image = decode_image(READABLE["JPEG"], "image")
    image[0, 0] = 0  # no read-only view of a Pillow buffer
    assert image.flags.c_contiguous


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 7, 3), (33, 50, 3), (480, 640, 3)])
def test_png_is_lossless(shape: tuple[int, int, int], tmp_path: Path) -> None:
    rgb = noise(*shape[:2])
    (tmp_path / "1.png").write_bytes(encode_picture(rgb, "png"))
    np.testing.assert_array_equal(read_image(tmp_path / "1.png"), rgb)


def test_png_takes_views() -> None:
    rgb = noise(20, 30)[::2, ::-1]
    np.testing.assert_array_equal(decode_image(encode_picture(rgb, "png"), "view"), rgb)


def test_jpeg_is_nearly_the_picture_with_its_colours_at_full_resolution() -> None:
    y, x = np.mgrid[:120, :160]
    rgb = np.stack([128 + 60 * np.sin(x / 9), 128 + 60 * np.cos(y / 7), x + 0 * y], axis=2)
    rgb = rgb.astype(np.uint8)
    rgb[40:80, 60:100] = (200, 30, 40)  # an edge of colour, which subsampling would smear
    written = encode_picture(rgb, "jpeg")
    error = np.abs(decode_image(written, "jpeg").astype(int) - rgb)
    assert error.mean() < 1.0
    assert np.percentile(error, 99.9) <= 12
    assert len(written) < len(encode_picture(rgb, "png"))


def test_an_unknown_format_is_told() -> None:
    with pytest.raises(ValueError, match="picture_format='webp' is none of png, jpeg"):
        encode_picture(noise(4, 4), "webp")


@pytest.mark.parametrize(
    "wrong",
    [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((0, 4, 3), np.uint8)],
)
def test_png_takes_only_pictures(wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"must be uint8 \(H, W, 3\)"):
        encode_picture(wrong, "png")


def test_read_bytes(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    assert read_bytes(tmp_path / "file", 5) == b"12345"
    with pytest.raises(ImageError, match="has 5 bytes, not 6"):
        read_bytes(tmp_path / "file", 6)
    with pytest.raises(ImageError, match="No such file"):
        read_bytes(tmp_path / "none", 6)


def test_names_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "data" / "train 2017" / "ä.jpg"
    path.parent.mkdir(parents=True)
    path.touch()
    name = relative_name(path, tmp_path / "data")
    assert name == "train 2017/ä.jpg"
    assert resolve_inside(tmp_path / "data", name) == path


def test_names_relative_to_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert relative_name("data/./train/1.jpg", "data") == "train/1.jpg"
    assert relative_name(tmp_path / "data" / "1.jpg", "data/") == "1.jpg"
    assert resolve_inside("data", "1.jpg") == tmp_path / "data" / "1.jpg"


def test_a_root_may_be_a_symbolic_link(tmp_path: Path) -> None:
    (tmp_path / "disk" / "train").mkdir(parents=True)
    (tmp_path / "data").symlink_to(tmp_path / "disk")
    real = tmp_path / "disk" / "train" / "1.jpg"
    assert relative_name(tmp_path / "data" / "train" / "1.jpg", tmp_path / "data") == "train/1.jpg"
    assert relative_name(real, tmp_path / "data") == "train/1.jpg"
    assert resolve_inside(tmp_path / "data", "train/1.jpg") == real


def test_a_link_inside_the_root_is_allowed(tmp_path: Path) -> None:
    (tmp_path / "images" / "all").mkdir(parents=True)
    (tmp_path / "train").symlink_to("images/all")
    assert relative_name(tmp_path / "train" / "1.jpg", tmp_path) == "train/1.jpg"
    assert resolve_inside(tmp_path, "train/1.jpg") == tmp_path / "images" / "all" / "1.jpg"


def test_no_name_for_what_lies_outside(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "database").mkdir()
    for outside in ("database/1.jpg", "data/../1.jpg", "1.jpg"):
        with pytest.raises(ImageError, match="outside the data set's root"):
            relative_name(tmp_path / outside, tmp_path / "data")
    (tmp_path / "data" / "out").symlink_to(tmp_path / "database")
    with pytest.raises(ImageError, match="outside the data set's root"):
        relative_name(tmp_path / "data" / "out" / "1.jpg", tmp_path / "data")


def test_a_large_picture_is_refused_by_the_callers_limit(tmp_path: Path) -> None:
    content = encode_picture(noise(20, 30), "png")
    assert decode_image(content, "image", max_pixels=600).shape == (20, 30, 3)
    with pytest.raises(ImageError, match="image: has 30 x 20 pixels, more than the 599 allowed"):
        decode_image(content, "image", max_pixels=599)


def test_files_are_closed(tmp_path: Path) -> None:
    path = tmp_path / "1.png"
    path.write_bytes(encode_picture(noise(20, 30), "png"))
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        read_image(path)
    path.write_bytes(b"no image")
    for _ in range(20):
        with pytest.raises(ImageError):
            read_image(path)
    assert len(os.listdir("/proc/self/fd")) <= before
