"""Broken inputs of a data set, and two ways to read them; as a program it feeds them one by one.

    python -m tests.helpers.bad_inputs checked|naive FOLDER CASE...

prints ``start CASE`` and then, unless the process died of it, a line of JSON with the outcome:
``refused`` (one of the package's errors), ``raised`` (another exception) or ``accepted``.
``checked`` is the package, ``naive`` hands the same input to pycocotools and Pillow as it is.
"""

from __future__ import annotations

import json
import os
import resource
import struct
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from bgaug_d2.errors import AnnotationError, ImageError
from bgaug_d2.jobs.parse import objects_from_annotations
from bgaug_d2.pixels.object_masks import object_masks
from bgaug_d2.pixels.paths import resolve_inside
from bgaug_d2.pixels.read import read_image
from tests.helpers.factories import noise

HEIGHT, WIDTH = 48, 64
MEMORY = 4 << 30  # address space of the process; a bomb that goes off runs into it


@dataclass(frozen=True)
class Annotation:
    """JSON text of an annotation, as a file would hold it, and what the refusal must say."""

    text: str
    says: str


@dataclass(frozen=True)
class File:
    """An image file ``name`` that ``write`` puts under the root, and what the refusal must say."""

    name: str
    write: Callable[[Path], None]
    says: str


def polygon(*numbers: Any) -> str:
    return f'{{"id": 77, "bbox": [1, 1, 9, 9], "segmentation": [[{", ".join(map(str, numbers))}]]}}'


def encoded(counts: Any, height: int = HEIGHT, width: int = WIDTH) -> str:
    segmentation = json.dumps({"size": [height, width], "counts": counts})
    return f'{{"id": 77, "bbox": [1, 1, 9, 9], "segmentation": {segmentation}, "iscrowd": 1}}'


def box(*numbers: Any) -> str:
    return f'{{"id": 77, "bbox": [{", ".join(map(str, numbers))}]}}'


ANNOTATIONS: dict[str, Annotation] = {
    "polygon, NaN": Annotation(polygon(1, 1, "NaN", 9, 9, 9), "finite"),
    "polygon, infinite": Annotation(polygon(1, 1, "Infinity", 9, 9, 9), "finite"),
    "polygon, minus infinite": Annotation(polygon(1, 1, 9, "-Infinity", 9, 9), "finite"),
    "polygon, overflows to infinite": Annotation(polygon(1, 1, "1e999", 9, 9, 9), "finite"),
    "polygon, 1e8": Annotation(polygon(1, 1, "1e8", 9, 9, 9), "not a usable number"),
    "polygon, -1e300": Annotation(polygon(1, 1, "-1e300", 9, 9, 9), "not a usable number"),
    "polygon, an integer of 400 digits": Annotation(
        polygon(1, 1, "9" * 400, 9, 9, 9), "OverflowError"
    ),
    "polygon, 1e7": Annotation(polygon(1, 1, "1e7", 9, 9, 9), "far outside the image"),
    "polygon, odd": Annotation(polygon(1, 1, 5, 9, 9, 9, 3), "even count"),
    "polygon, four numbers": Annotation(polygon(1, 1, 5, 9), "at least 6"),
    "polygon, empty": Annotation(polygon(), "at least 6"),
    "polygon, text": Annotation(polygon(1, 1, '"a"', 9, 9, 9), "ValueError"),
    "polygon, null": Annotation(polygon(1, 1, "null", 9, 9, 9), "TypeError"),
    "polygon, outside": Annotation(polygon(80, 1, 90, 1, 90, 9), "outside the image"),
    "polygon, endless outline": Annotation(
        polygon(*[-60, -60, 120, 100] * 30_000), "outline is .* pixels long"
    ),
    "box, NaN": Annotation(box(1, 1, "NaN", 5), "finite"),
    "box, huge": Annotation(box(1, 1, "1e9", 5), "not a usable number"),
    "box, no width": Annotation(box(1, 1, 0, 5), "is empty"),
    "box, negative": Annotation(box(9, 9, -5, -5), "is empty"),
    "box, outside": Annotation(box(-9, 1, 5, 5), "outside the image"),
    "box, three numbers": Annotation(box(1, 1, 5), "ValueError"),
    "RLE, short": Annotation(encoded([10, 5]), "add up to 15"),
    "RLE, long": Annotation(encoded([10, 5, 10**9]), "add up to"),
    "RLE, negative run": Annotation(encoded([10, -5, HEIGHT * WIDTH - 5]), "the run -5"),
    "RLE, empty": Annotation(encoded([]), "add up to 0"),
    "RLE, more runs than pixels": Annotation(encoded([1] * 10_000), "add up to 10000"),
    "RLE, of another size": Annotation(encoded([99 * 99], 99, 99), "is for 99 x 99"),
    "RLE, transposed": Annotation(encoded([HEIGHT * WIDTH], WIDTH, HEIGHT), "is for 64 x 48"),
    "RLE, gigantic": Annotation(encoded([10**10], 10**5, 10**5), "is for 100000 x 100000"),
    "compressed RLE, short": Annotation(encoded("61X1"), "add up to"),
    "compressed RLE, long": Annotation(encoded("n" * 5 + "N" + "61X13mN000`0" * 9), "RLE"),
    "compressed RLE, huge runs": Annotation(encoded("oooo?" * 50), "RLE"),
    "compressed RLE, negative run": Annotation(encoded("O"), "negative run"),
    "compressed RLE, unfinished": Annotation(encoded("61X13mN000`"), "inside a number"),
    "compressed RLE, endless number": Annotation(encoded("o" * 5000), "too long a number"),
    "compressed RLE, other characters": Annotation(encoded("\x01\x7f !"), "at position 0"),
    "compressed RLE, not ASCII": Annotation(encoded("\u2603"), "not ASCII"),
    "compressed RLE, empty": Annotation(encoded(""), "add up to 0"),
}


def content(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A tiny file that claims to be a large bilevel picture and holds the data of a part of it."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((width // 8 + 1) * min(height, 10_000)), 9)
    end = chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + end


def cut(share: float, kind: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        whole = content(Image.fromarray(noise(HEIGHT, WIDTH)), kind)
        path.write_bytes(whole[: int(len(whole) * share)])

    return write


def grey(dtype: Any, kind: str) -> Callable[[Path], None]:
    values = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH).astype(dtype) * 13
    return bytes_of(content(Image.fromarray(values), kind))


def link_outside(path: Path) -> None:
    outside = path.parents[1] / "outside.png"
    Image.fromarray(noise(4, 4)).save(outside)
    path.symlink_to(outside)


def bytes_of(data: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(data)

    return write


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"

FILES: dict[str, File] = {
    "file, missing": File("none.png", lambda path: None, "No such file"),
    "file, a folder": File("folder", lambda path: path.mkdir(), "not a regular file"),
    "file, a pipe": File("pipe", lambda path: os.mkfifo(path), "not a regular file"),
    "file, empty": File("empty.jpg", bytes_of(b""), "no image in a format"),
    "file, text": File("text.jpg", bytes_of(b"not an image\n" * 99), "no image in a format"),
    "file, PostScript": File("program.eps", bytes_of(EPS), "no image in a format"),
    "JPEG, cut at half": File("half.jpg", cut(0.5, "JPEG"), "truncated"),
    "JPEG, cut at the end": File("end.jpg", cut(0.99, "JPEG"), "truncated"),
    "PNG, cut at half": File("half.png", cut(0.5, "PNG"), "truncated"),
    "PNG, header only": File("header.png", cut(0.003, "PNG"), "cannot be decoded"),
    "GIF, cut at half": File("half.gif", cut(0.5, "GIF"), "truncated"),
    "TIFF, cut at half": File("half.tif", cut(0.5, "TIFF"), "cannot be decoded"),
    "WebP, cut at half": File("half.webp", cut(0.5, "WEBP"), "cannot be decoded"),
    "bomb of 144 million pixels": File("b.png", bytes_of(png_header(12_000, 12_000)), "bomb"),
    "bomb of 900 million pixels": File("c.png", bytes_of(png_header(30_000, 30_000)), "bomb"),
    "grey of 16 bits, PNG": File("16.png", grey(np.uint16, "PNG"), "mode I;16 is not supported"),
    "grey of 16 bits, TIFF": File("16.tif", grey(np.uint16, "TIFF"), "mode I;16"),
    "grey of 32 bits": File("32.tif", grey(np.int32, "TIFF"), "mode I is not supported"),
    "grey of floats": File("float.tif", grey(np.float32, "TIFF"), "mode F is not supported"),
    "name, absolute": File("/etc/hostname", lambda path: None, "must be relative"),
    "name, parent": File("../outside.png", lambda path: None, "without '..'"),
    "name, hidden parent": File("train/../../outside.png", lambda path: None, "without '..'"),
    "name, link outside": File("link.png", link_outside, "outside the data set's root"),
    "name, link to itself": File("loop.png", lambda path: path.symlink_to(path), "loop.png"),
    "name, NUL": File("a\0b.png", lambda path: None, "not a path"),
    "name, empty": File("", lambda path: None, "not a path"),
    "name, of 5000 letters": File("a" * 5000, lambda path: None, "cannot be re"),
}


def prepare_file(case: File, root: Path) -> None:
    """Write the file, unless the name itself is the fault."""
    root.mkdir(exist_ok=True)
    Image.fromarray(noise(4, 4)).save(root.parent / "outside.png")
    if case.name and "/" not in case.name and "\0" not in case.name:
        case.write(root / case.name)


def feed_checked(case: Annotation | File, root: Path) -> None:
    if isinstance(case, File):
        read_image(resolve_inside(root, case.name))
    else:
        objects = objects_from_annotations([json.loads(case.text)], 9)
        object_masks(objects, HEIGHT, WIDTH, 9)


def feed_naive(case: Annotation | File, root: Path) -> None:
    if isinstance(case, File):
        np.asarray(Image.open(root / case.name).convert("RGB"))
        return
    segmentation = json.loads(case.text).get("segmentation")
    if isinstance(segmentation, list):
        segmentation = coco_mask.merge(coco_mask.frPyObjects(segmentation, HEIGHT, WIDTH))
    elif isinstance(segmentation["counts"], list):
        segmentation = coco_mask.frPyObjects(segmentation, HEIGHT, WIDTH)
    coco_mask.decode(coco_mask.merge([segmentation, segmentation]))


def peak_memory() -> int:
    """Bytes. Not ``ru_maxrss``, which starts with the peak of the process that started this one."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def main(how: str, folder: str, names: list[str]) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    feed = {"checked": feed_checked, "naive": feed_naive}[how]
    cases: dict[str, Annotation | File] = {**ANNOTATIONS, **FILES}
    for number, name in enumerate(names):
        root = Path(folder) / str(number) / "root"
        root.parent.mkdir()
        case = cases[name]
        if isinstance(case, File):
            prepare_file(case, root)
        sys.stdout.write(f"start {name}\n")
        sys.stdout.flush()
        outcome, message = "accepted", ""
        try:
            feed(case, root)
        except (ImageError, AnnotationError) as error:
            outcome, message = "refused", str(error)
        except Exception as error:  # noqa: BLE001 - the parent tells it from a refusal
            outcome, message = "raised", f"{type(error).__name__}: {error}"
        result = {"outcome": outcome, "message": message, "peak": peak_memory()}
        sys.stdout.write(json.dumps(result) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
