"""The built-in toy world: a small data set in COCO's format, drawn by the machine that reads it.

It shows in minutes what the method is for; ``scene`` says how.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from bgaug_d2.config.experiment import ToyConfig
from bgaug_d2.data.toy.scene import Placed, draw_scene, scene_captions
from bgaug_d2.data.toy.shapes import SHAPES
from bgaug_d2.errors import DatasetError
from bgaug_d2.pixels.polygons import mask_to_polygons

logger = logging.getLogger(__name__)

SPLITS = ("train", "val", "test")

_MARKER = "toy_world.json"
_VERSION = 3  # grows whenever the same settings give other pictures


def generate_toy(root: str | Path, config: ToyConfig) -> None:
    """Draw the toy world into ``root``, in the layout of COCO.

    ``annotations/{instances,captions}_SPLIT.json`` and ``SPLIT/`` (PNG) for each of ``SPLITS``.
    Only the training split is biased, and only it depends on the seed, so that all seeds are
    measured with the same pictures. The same settings give the same pictures; a world that is there
    already is left alone, one of other settings is replaced. Several processes may call this at
    once.

    Args:
        root: Folder to write; its parent is created.
        config: Sizes, seed and bias. ``image_size`` is the longer side, in pixels.

    Raises:
        DatasetError: ``root`` holds something else, or cannot be written.
    """
    write_in_place(
        Path(root),
        toy_marker(config),
        lambda folder: _is_whole(folder, config),
        lambda folder: write_world(folder, config),
    )


def write_in_place(
    root: Path,
    marker: Mapping[str, Any],
    is_whole: Callable[[Path], bool],
    write: Callable[[Path], None],
) -> None:
    """Have a folder written unless it is there; several processes may do so at once.

    The folder is built beside ``root`` and renamed, so nobody sees half of it.

    Args:
        root: The folder; its parent is created.
        marker: What decides the content. It is kept in the folder, as JSON.
        is_whole: Whether a folder with the right marker misses nothing.
        write: Fills a new folder.

    Raises:
        DatasetError: ``root`` holds something else, or cannot be written.
    """
    root = root.resolve()  # a link stays, what it points to is written

    def is_complete() -> bool:
        try:
            return json.loads((root / _MARKER).read_bytes()) == marker and is_whole(root)
        except (OSError, ValueError):
            return False

    if is_complete():
        return
    try:
        _refuse_foreign(root)
        root.parent.mkdir(parents=True, exist_ok=True)
        # Beside the root, because a rename works within one file system only.
        building = Path(tempfile.mkdtemp(prefix=f".{root.name}.", dir=root.parent))
        try:
            # `mkdtemp` makes folders that only their owner can read.
            building.chmod(0o755)
            write(building)
            (building / _MARKER).write_text(json.dumps(marker, indent=2), encoding="ascii")
            _put_in_place(building, root, is_complete)
        finally:
            shutil.rmtree(building, ignore_errors=True)
    except OSError as error:
        raise DatasetError(f"cannot write the toy world to {root}: {error.strerror}") from error


def size_limits(image_size: int) -> tuple[float, float]:
    """Largest area, in pixels, of a small and of a medium object.

    Set so that about 41, 34 and 24 % of the objects are small, medium and large, as in COCO.
    """
    return (0.126 * image_size) ** 2, (0.209 * image_size) ** 2


def toy_marker(config: ToyConfig) -> dict[str, Any]:
    """What decides the pictures of a toy world."""
    return {"version": _VERSION, **asdict(config)}


def _counts(config: ToyConfig) -> dict[str, int]:
    return dict(zip(SPLITS, (config.num_train, config.num_val, config.num_test), strict=True))


def _is_whole(root: Path, config: ToyConfig) -> bool:
    counts = [len(os.listdir(root / split)) for split in SPLITS]
    return counts == list(_counts(config).values())


def _refuse_foreign(root: Path) -> None:
    """Anything but a toy world, whole or damaged, is not ours to replace."""
    if not root.exists() or (root / _MARKER).is_file():
        return
    if not root.is_dir() or any(root.iterdir()):
        raise DatasetError(
            f"dataset.root={str(root)!r} exists and is no toy world; "
            "choose an empty or new folder for the toy world"
        )


def _put_in_place(building: Path, root: Path, is_complete: Callable[[], bool]) -> None:
    while True:
        try:
            os.replace(building, root)  # works where root is missing or empty
            return
        except OSError as error:
            if is_complete():  # another process was faster
                return
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        old = tempfile.mkdtemp(prefix=f".{root.name}.old.", dir=root.parent)
        try:
            with contextlib.suppress(FileNotFoundError):  # another process moved it away
                os.replace(root, old)
        finally:
            shutil.rmtree(old, ignore_errors=True)


def write_world(folder: Path, config: ToyConfig) -> None:
    """Draw all images and write the annotations into an empty folder."""
    (folder / "annotations").mkdir()
    for split, count in _counts(config).items():
        (folder / split).mkdir()
        instances, captions = _empty_annotations(), _empty_annotations()
        del captions["categories"]
        for index in range(count):
            _add_image(folder, split, index, config, instances, captions)
        for name, content in (("instances", instances), ("captions", captions)):
            path = folder / "annotations" / f"{name}_{split}.json"
            path.write_text(json.dumps(content), encoding="ascii")
    logger.info("Drew the toy world: %s images", " + ".join(map(str, _counts(config).values())))


def _empty_annotations() -> dict[str, Any]:
    categories = [{"id": number, "name": name} for number, name in enumerate(SHAPES, start=1)]
    return {"images": [], "annotations": [], "categories": categories}


def _add_image(
    folder: Path,
    split: str,
    index: int,
    config: ToyConfig,
    instances: dict[str, Any],
    captions: dict[str, Any],
) -> None:
    # An image has its own generator, so that it does not depend on how many come before it.
    seed, bias = (config.seed, config.bias) if split == "train" else (0, 0.0)
    rng = np.random.default_rng([seed, SPLITS.index(split), index])
    picture, placed, background = draw_scene(rng, index, config.image_size, bias)
    height, width = picture.shape[:2]
    image_id = index + 1
    file_name = f"{image_id:06d}.png"
    if not cv2.imwrite(str(folder / split / file_name), picture[:, :, ::-1]):  # OpenCV takes BGR
        raise DatasetError(f"cannot write {folder / split / file_name}")
    image = {"id": image_id, "file_name": file_name, "height": height, "width": width}
    for content in (instances, captions):
        content["images"].append(image)
    for item in placed:
        number = len(instances["annotations"]) + 1
        instances["annotations"].append({"id": number, "image_id": image_id, **_annotation(item)})
    for caption in scene_captions(placed, background):
        number = len(captions["annotations"]) + 1
        captions["annotations"].append({"id": number, "image_id": image_id, "caption": caption})


def _annotation(item: Placed) -> dict[str, Any]:
    """COCO's fields, from the pixels that can be seen."""
    rows, columns = np.nonzero(item.visible)
    x, y = int(columns.min()), int(rows.min())
    segmentation: Any = mask_to_polygons(item.visible)
    if item.iscrowd:
        segmentation = {"size": list(item.visible.shape), "counts": _run_lengths(item.visible)}
    return {
        "category_id": SHAPES.index(item.shape) + 1,
        "iscrowd": int(item.iscrowd),
        "area": len(rows),
        "bbox": [x, y, int(columns.max()) + 1 - x, int(rows.max()) + 1 - y],
        "segmentation": segmentation,
    }


def _run_lengths(mask: npt.NDArray[np.bool_]) -> list[int]:
    """COCO's uncompressed RLE: runs down the columns, background first."""
    values = np.concatenate([[False], mask.T.ravel()])
    changes = np.flatnonzero(values[1:] != values[:-1])
    return [int(run) for run in np.diff(changes, prepend=0, append=mask.size)]
