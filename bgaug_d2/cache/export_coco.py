"""Writes the pictures of a cache as a plain COCO data set, for trainers other than Detectron2.

A painted picture has the size and the objects of its source, so its annotations are the source's
under new ids. Its image record keeps the source's own fields (``license`` and URLs included). Its
field ``bgaug`` says where it comes from: key, source image, prompt, steps, model and its licence.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path, PurePosixPath
from typing import Any

from bgaug_d2.cache.files import write_atomically
from bgaug_d2.cache.store import CacheEntry, Rejection, VariantCache
from bgaug_d2.errors import ExportError
from bgaug_d2.jobs.digests import digest_file
from bgaug_d2.pixels.paths import resolve_inside

INSTANCES = "instances.json"
IMAGES = "images"

_PROVENANCE = (
    *("key", "variant", "prompt", "T_hat", "seed", "object_passes"),
    *("background_ratio", "model", "created"),
)

_GONE = "damaged or evicted"

Json = dict[str, Any]
Place = Callable[[str | Path, str | Path], object]
Progress = Callable[[Sequence[Json]], Iterable[Json]]


@dataclass
class ExportReport:
    """What was written; ``skipped`` counts by reason the pictures that were not."""

    originals: int = 0
    painted: int = 0
    annotations: int = 0
    skipped: Counter[str] = field(default_factory=Counter)


def export_coco(
    cache: VariantCache,
    instances: Path,
    image_root: Path,
    out: Path,
    originals: bool = False,
    where: Mapping[str, str] | None = None,
    hard_links: bool = False,
    progress: Progress = iter,
) -> ExportReport:
    """Write ``out/images/`` and then ``out/instances.json``.

    Args:
        cache: Pictures; each is verified before it is copied.
        instances: The COCO annotation file of the sources.
        image_root: Folder that the ``file_name`` of its images is relative to.
        out: Folder to write, missing or empty.
        originals: Whether the sources are in the export too, under their own ids.
        where: Only pictures whose sidecar has these values, by dotted path, for example
            ``{"recipe.settings.prompt": "clean"}``; values other than text are compared as JSON.
        hard_links: Link files instead of copying them, where the file system can.
        progress: Wraps the list of source images, for example ``tqdm``.

    Raises:
        ExportError: An input is missing or malformed, ``out`` is not empty, or no picture fits.
        ImageError: A ``file_name`` leads out of ``image_root``.
        OSError: A file cannot be copied.
    """
    coco = _read_instances(instances)
    _check_empty(out)
    report = ExportReport()
    keys = _keys_by_image(cache, where or {}, report)
    if keys.keys().isdisjoint(str(image["id"]) for image in coco["images"]):
        chosen = f" with {dict(where)}" if where else ""
        raise ExportError(f"cache {cache.root} has no picture{chosen} of an image in {instances}")
    writer = _Writer(coco, out, _link_or_copy if hard_links else shutil.copyfile, report)
    for image in progress(coco["images"]):
        candidates = sorted(keys.pop(str(image["id"]), []))
        if not (candidates or originals):
            continue
        source = _source_file(image_root, image)
        if originals:
            writer.add_original(image, source)
        sha256 = digest_file(source) if candidates else ""
        for _, key in candidates:
            writer.add_painted(image, sha256, cache.get(key))
    report.skipped["not in the annotation file"] += sum(map(len, keys.values()))
    _check_painted(report, cache.root)
    writer.finish()
    return report


def _check_empty(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ExportError(f"{out} is not empty; give a new folder")


def _check_painted(report: ExportReport, root: str) -> None:
    if not report.painted:
        reasons = ", ".join(f"{number} {reason}" for reason, number in (+report.skipped).items())
        raise ExportError(f"no picture of cache {root} can be exported: {reasons}")


def _read_instances(path: Path) -> Json:
    try:
        coco = json.loads(path.read_bytes(), parse_constant=_refuse_constant)
        ids = {image["id"] for image in coco["images"] if image["file_name"]}
        if len(ids) != len(coco["images"]):
            raise ValueError("two images have one id, or one has no file name")
        for annotation in coco["annotations"]:
            if annotation["image_id"] not in ids:
                raise ValueError(f"annotation {annotation['id']} belongs to no image")
        if not isinstance(coco["categories"], list):
            raise TypeError("categories is no list")
    except OSError as error:
        raise ExportError(f"{path} cannot be read: {error.strerror}") from error
    except (KeyError, TypeError, ValueError) as error:
        fault = f"{type(error).__name__}: {error}"
        raise ExportError(f"{path} is no COCO instances file ({fault})") from error
    return coco


def _refuse_constant(name: str) -> None:
    raise ValueError(f"it holds the number {name}")


def _keys_by_image(
    cache: VariantCache, where: Mapping[str, str], report: ExportReport
) -> dict[str, list[tuple[int, str]]]:
    """``(variant, key)`` of the pictures that ``where`` lets through, by the source's image id."""
    found: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for record in cache.entries():
        if not isinstance(record, CacheEntry):
            report.skipped["rejected when painted"] += 1
        elif any(_text(record.sidecar, path) != value for path, value in where.items()):
            report.skipped["left out by the filter"] += 1
        else:
            image_id = _text(record.sidecar, "source.image_id")
            found[image_id].append((int(record.sidecar.get("variant", 0)), record.key))
    return found


def _text(sidecar: Mapping[str, Any], path: str) -> str:
    value: Any = sidecar
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value if isinstance(value, str) else json.dumps(value)


def _source_file(image_root: Path, image: Json) -> Path:
    path = resolve_inside(image_root, image["file_name"])
    if not path.is_file():
        raise ExportError(f"image {image['id']} is missing: {path}; check the image folder")
    return path


class _Writer:
    """Copies pictures and collects their records; new ids follow the largest of the source."""

    def __init__(self, coco: Json, out: Path, place: Place, report: ExportReport) -> None:
        self._coco, self._out, self._place, self._report = coco, out, place, report
        self._images: list[Json] = []
        self._annotations: list[Json] = []
        self._image_ids = _ids_after(coco["images"])
        self._annotation_ids = _ids_after(coco["annotations"])
        self._of_image: dict[Any, list[Json]] = defaultdict(list)
        for annotation in coco["annotations"]:
            self._of_image[annotation["image_id"]].append(annotation)

    def add_original(self, image: Json, source: Path) -> None:
        self._add_file(source, image["file_name"])
        self._images.append(image)
        self._annotations.extend(self._of_image[image["id"]])
        self._report.originals += 1

    def add_painted(self, image: Json, sha256: str, entry: CacheEntry | Rejection | None) -> None:
        """Add what the cache gave, unless it was painted from another file or other objects."""
        if not isinstance(entry, CacheEntry):
            self._report.skipped[_GONE] += 1
            return
        fault = _fault(entry.sidecar, image, sha256, len(self._of_image[image["id"]]))
        if fault is not None:
            self._report.skipped[fault] += 1
            return
        stem = PurePosixPath(image["file_name"]).with_suffix("")
        name = f"{stem}_bgaug_{entry.key[:16]}{Path(entry.path).suffix}"
        try:
            self._add_file(entry.path, name)
        except FileNotFoundError:
            self._report.skipped[_GONE] += 1
            return
        image_id = next(self._image_ids)
        provenance = {name: entry.sidecar.get(name) for name in _PROVENANCE}
        provenance |= {"source_image_id": image["id"], "source_file_name": image["file_name"]}
        self._images.append({**image, "id": image_id, "file_name": name, "bgaug": provenance})
        for annotation in self._of_image[image["id"]]:
            new_ids = {"id": next(self._annotation_ids), "image_id": image_id}
            self._annotations.append({**annotation, **new_ids})
        self._report.painted += 1

    def finish(self) -> None:
        self._report.annotations = len(self._annotations)
        content = {**self._coco, "images": self._images, "annotations": self._annotations}
        write_atomically({str(self._out / INSTANCES): json.dumps(content).encode()})

    def _add_file(self, source: str | Path, name: str) -> None:
        target = self._out / IMAGES / name
        target.parent.mkdir(parents=True, exist_ok=True)
        self._place(source, target)


def _ids_after(records: Sequence[Json]) -> Iterator[int]:
    return count(
        1 + max((each["id"] for each in records if isinstance(each["id"], int)), default=0)
    )


def _fault(sidecar: Json, image: Json, sha256: str, num_objects: int) -> str | None:
    # The cache's names may begin further up, at the data set's root.
    name = "/" + _text(sidecar, "source.file_name")
    if not name.endswith("/" + image["file_name"]):
        return "painted from another file"
    if _text(sidecar, "source.sha256") != sha256:
        return "painted from another file"
    # An object that was not protected then may be gone from the picture.
    if sum(sidecar.get("objects", {}).values()) != num_objects:
        return "painted with other annotations"
    return None


def _link_or_copy(source: str | Path, target: str | Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)
