"""Audits pictures of caches by recipe: brings originals, annotations and detections together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from bgaug_d2.cache.store import CacheEntry, open_existing
from bgaug_d2.data.coco_check import check_annotations, check_categories, check_images, read_json
from bgaug_d2.errors import AuditError
from bgaug_d2.inspection.audit_summary import Audit, Pair, aggregate
from bgaug_d2.inspection.faults import Detections, Labels, Measured, Thresholds, measure
from bgaug_d2.inspection.recipes import Recipe, differing, recipe_of
from bgaug_d2.jobs.digests import digest_file
from bgaug_d2.jobs.parse import objects_from_annotations
from bgaug_d2.pixels.masks import Picture, mask_from_rle
from bgaug_d2.pixels.object_masks import object_masks
from bgaug_d2.pixels.paths import resolve_inside
from bgaug_d2.pixels.read import read_image

Detect = Callable[[Sequence[Picture]], list[Detections]]
Progress = Callable[["Sequence[Look]"], "Iterable[Look]"]

# Shown of every recipe; others where they differ.
SHOWN = ("prompt", "erosion_kernel", "step_policy", "D", "paste_back")
# Share of pixels in which the annotations may differ from the objects that painting protected.
MAX_DIFFERENCE = 0.01


@dataclass(frozen=True)
class Look:
    """One picture to look at: a painted one of a recipe, or an original (neither is given)."""

    file_name: str
    entry: CacheEntry | None = None
    recipe: Recipe = ()


class Annotations:
    """Labels by image from a COCO file.

    Args:
        path: Instances file; every annotation is checked.

    Raises:
        DatasetError, AnnotationError: The file is unusable.
    """

    def __init__(self, path: Path) -> None:
        content = read_json(path)
        images = check_images(content, path)
        check_annotations(content, images, check_categories(content, path), path, evaluated=False)
        self._path = path
        self._images = {image["file_name"]: image for image in images.values()}
        self._of_image: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for annotation in content["annotations"]:
            self._of_image[annotation["image_id"]].append(annotation)

    def labels(self, file_name: str) -> Labels:
        """Labels of an image; its name in the cache may have more folders than in the file.

        Crowd regions and boxes without a segmentation belong to the object mask only.
        """
        image = self._image(file_name)
        size = image["height"], image["width"]
        instances, union = [], np.zeros(size, dtype=bool)
        for each in map(_readable, self._of_image[image["id"]]):
            if each is None:
                continue
            (item,) = objects_from_annotations([each], image["id"])
            mask = object_masks([item], *size, image["id"]).object_mask
            union |= mask
            if item.segmentation and not item.iscrowd:
                instances.append(mask)
        return Labels(np.array(instances, dtype=bool).reshape(-1, *size), union)

    def _image(self, file_name: str) -> Mapping[str, Any]:
        parts = PurePosixPath(file_name).parts
        for start in range(len(parts)):
            image = self._images.get("/".join(parts[start:]))
            if image is not None:
                return image
        raise AuditError(
            f"image {file_name!r} of the cache is not in {self._path}; "
            "give the annotations of the data set that was painted"
        )


def _readable(annotation: Mapping[str, Any]) -> dict[str, Any] | None:
    """The annotation as Detectron2 loads it: without polygons of one or two points."""
    polygons = annotation.get("segmentation")
    if not isinstance(polygons, list) or not polygons:
        return dict(annotation)
    kept = [each for each in polygons if len(each) >= 6]
    return {**annotation, "segmentation": kept} if kept else None


def read_entries(folders: Iterable[str]) -> dict[Recipe, list[CacheEntry]]:
    """Painted pictures by recipe, each once, in the order of their keys."""
    by_key: dict[str, CacheEntry] = {}
    for folder in folders:
        for entry in open_existing(folder).entries():
            if isinstance(entry, CacheEntry):
                by_key.setdefault(entry.key, entry)
    if not by_key:
        raise AuditError(
            f"no picture in {', '.join(folders)}; tools/generate.py paints some into a cache"
        )
    groups: dict[Recipe, list[CacheEntry]] = defaultdict(list)
    for _, entry in sorted(by_key.items()):
        groups[recipe_of(entry.sidecar)].append(entry)
    return dict(sorted(groups.items()))


def limited(
    groups: Mapping[Recipe, list[CacheEntry]], limit: int, seed: int
) -> dict[Recipe, list[CacheEntry]]:
    """At most ``limit`` pictures of each recipe; of all recipes the same ones, as far as there."""
    places = sorted({_place(entry) for entries in groups.values() for entry in entries})
    order = np.random.default_rng(seed).permutation(len(places))
    rank = dict(zip(places, order.tolist(), strict=True))
    return {
        recipe: sorted(entries, key=lambda entry: rank[_place(entry)])[: limit or None]
        for recipe, entries in groups.items()
    }


def _place(entry: CacheEntry) -> tuple[str, int]:
    return entry.sidecar["source"]["file_name"], entry.sidecar["variant"]


def audit_cache(
    groups: Mapping[Recipe, Sequence[CacheEntry]],
    annotations: Annotations,
    image_root: str,
    detect: Detect,
    thresholds: Thresholds,
    batch: int = 8,
    seed: int = 0,
    progress: Progress = iter,
) -> dict[Recipe, Audit]:
    """Audit each recipe; an original is looked at once for all of them.

    Args:
        groups: Painted pictures by recipe.
        annotations: Of the originals.
        image_root: Folder that the cache's file names are relative to.
        detect: From pictures of one size, uint8 RGB (H, W, 3), to their detections.
        thresholds: What counts.
        batch: Pictures given to ``detect`` at once.
        seed: Of the bootstrap.
        progress: Wraps the list of pictures, for example ``tqdm``.

    Raises:
        AuditError, ImageError, AnnotationError: A picture or its annotations are unusable.
    """
    looks = _looks(groups)
    pictures = (_read(each, image_root) for each in looks)
    found = chain.from_iterable(map(detect, batches(pictures, batch)))
    pairs: dict[Recipe, list[Pair]] = defaultdict(list)
    labels: Labels
    original: Measured
    for look, detections in zip(progress(looks), found, strict=True):
        if look.entry is None:
            labels = annotations.labels(look.file_name)
            _check_size(look.file_name, detections, labels)
            original = measure(detections, labels, thresholds)
            continue
        _check_size(look.file_name, detections, labels)
        _check_objects(look.entry, labels)
        painted = measure(detections, labels, thresholds)
        pairs[look.recipe].append(Pair(look.file_name, painted, original))
    return {recipe: aggregate(pairs[recipe], seed) for recipe in groups}


def _looks(groups: Mapping[Recipe, Sequence[CacheEntry]]) -> list[Look]:
    """Each original with all its painted pictures after it; originals of one size together."""
    by_image: dict[tuple[int, int, str], list[Look]] = defaultdict(list)
    for recipe, entries in groups.items():
        for entry in entries:
            source = entry.sidecar["source"]
            name = source["file_name"]
            key = source["height"], source["width"], name
            by_image[key].append(Look(name, entry, recipe))
    looks: list[Look] = []
    for key in sorted(by_image):
        looks += [Look(key[2]), *by_image[key]]
    return looks


def _read(look: Look, image_root: str) -> Picture:
    return read_image(look.entry.path if look.entry else resolve_inside(image_root, look.file_name))


def _check_size(file_name: str, detections: Detections, labels: Labels) -> None:
    if detections.masks.shape[1:] != labels.object_mask.shape:
        raise AuditError(
            f"{file_name}: the picture is {detections.masks.shape[1:]} (height, width), "
            f"its annotations are for {labels.object_mask.shape}"
        )


def _check_objects(entry: CacheEntry, labels: Labels) -> None:
    """A cache of another split may have images of the same name and size."""
    source = entry.sidecar["source"]
    differ = (mask_from_rle(entry.sidecar["object_mask"]) != labels.object_mask).mean()
    if differ > MAX_DIFFERENCE:
        raise AuditError(
            f"{source['file_name']}: the annotations differ from the objects that were protected "
            f"when it was painted, in {100 * differ:.1f} % of the pixels; "
            "give the annotation file that it was painted with"
        )


def batches(pictures: Iterable[Picture], most: int) -> Iterator[list[Picture]]:
    """Neighbours of one size together, ``most`` at a time: no picture is padded for another."""
    held: list[Picture] = []
    for picture in pictures:
        if held and (len(held) == most or held[0].shape != picture.shape):
            yield held
            held = []
        held.append(picture)
    if held:
        yield held


def check_originals(groups: Mapping[Recipe, Sequence[CacheEntry]], image_root: str) -> None:
    """Raise AuditError or ImageError unless the originals are there and unchanged."""
    sources = [entry.sidecar["source"] for entries in groups.values() for entry in entries]
    for name, sha256 in sorted({(each["file_name"], each["sha256"]) for each in sources}):
        path = resolve_inside(image_root, name)
        if not path.is_file():
            raise AuditError(f"{path} is missing; give the folder of the originals as --image-root")
        if digest_file(path) != sha256:
            raise AuditError(f"{path} is not the file that was painted; it has changed since")


def shown(audits: Mapping[Recipe, Audit]) -> list[tuple[dict[str, str], Audit]]:
    """Audits with the settings that a reader needs to tell the recipes apart."""
    recipes = [dict(recipe) for recipe in audits]
    columns = [*SHOWN, *(name for name in differing(audits) if name not in SHOWN)]
    return [
        ({name: recipe.get(name, "") for name in columns}, audit)
        for recipe, audit in zip(recipes, audits.values(), strict=True)
    ]
