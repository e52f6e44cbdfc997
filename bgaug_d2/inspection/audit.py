"""Audits the painted pictures of caches, recipe by recipe, against their originals."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from bgaug_d2.cache.store import CacheEntry, open_existing
from bgaug_d2.errors import AuditError
from bgaug_d2.inspection.annotations import Annotations
from bgaug_d2.inspection.audit_summary import Audit, Pair, aggregate
from bgaug_d2.inspection.faults import Detections, Labels, Measured, Thresholds, measure
from bgaug_d2.inspection.recipes import RecipeKey, differing, recipe_key
from bgaug_d2.jobs.digests import digest_file
from bgaug_d2.pixels.masks import Picture, mask_from_rle
from bgaug_d2.pixels.paths import resolve_inside
from bgaug_d2.pixels.read import read_image

Detect = Callable[[Sequence[Picture]], list[Detections]]
Progress = Callable[["Sequence[AuditItem]"], "Iterable[AuditItem]"]

# The table shows these settings always, all others only where the recipes differ.
SHOWN = ("prompt", "erosion_kernel", "step_policy", "D", "paste_back")
# The annotations may differ from the objects that painting protected in this share of the pixels:
# rasterising polygons again moves a few pixels at their rims.
MAX_DIFFERENCE = 0.01


@dataclass(frozen=True)
class AuditItem:
    """One picture that the detector sees.

    Attributes:
        file_name: Name of the original.
        entry: The painted picture; None for the original itself.
        recipe: Recipe of the painted picture; empty for the original.
    """

    file_name: str
    entry: CacheEntry | None = None
    recipe: RecipeKey = ()


def read_entries(folders: Iterable[str]) -> dict[RecipeKey, list[CacheEntry]]:
    """Painted pictures by recipe, each once, in the order of their keys.

    Args:
        folders: Caches; a picture that several of them hold counts once.

    Raises:
        AuditError: There is no picture.
        CacheError: A folder is no cache.
    """
    by_key: dict[str, CacheEntry] = {}
    for folder in folders:
        for entry in open_existing(folder).entries():
            if isinstance(entry, CacheEntry):
                by_key.setdefault(entry.key, entry)
    if not by_key:
        raise AuditError(
            f"no picture in {', '.join(folders)}; `bgaug paint` paints some into a cache"
        )
    groups: dict[RecipeKey, list[CacheEntry]] = defaultdict(list)
    # Sorted, because the order of a folder's listing differs between file systems.
    for _, entry in sorted(by_key.items()):
        groups[recipe_key(entry.sidecar)].append(entry)
    return dict(sorted(groups.items()))


def limited(
    groups: Mapping[RecipeKey, list[CacheEntry]], limit: int, seed: int
) -> dict[RecipeKey, list[CacheEntry]]:
    """At most ``limit`` pictures of each recipe; 0 keeps all.

    All recipes keep the same images and variants where they have them, so their audits compare
    recipes and not images.
    """
    places = sorted({_place(entry) for entries in groups.values() for entry in entries})
    # One random order of all places serves every recipe.
    order = np.random.default_rng(seed).permutation(len(places))
    rank = dict(zip(places, order.tolist(), strict=True))
    return {
        recipe: sorted(entries, key=lambda entry: rank[_place(entry)])[: limit or None]
        for recipe, entries in groups.items()
    }


def _place(entry: CacheEntry) -> tuple[str, int]:
    return entry.sidecar["source"]["file_name"], entry.sidecar["variant"]


def audit_cache(
    groups: Mapping[RecipeKey, Sequence[CacheEntry]],
    annotations: Annotations,
    image_root: str,
    detect: Detect,
    thresholds: Thresholds,
    batch: int = 8,
    seed: int = 0,
    progress: Progress = iter,
) -> dict[RecipeKey, Audit]:
    """Audit each recipe. The detector sees an original once, however many recipes have it.

    Args:
        groups: Painted pictures by recipe.
        annotations: Labels of the originals.
        image_root: Folder that the cache's file names are relative to.
        detect: Takes pictures of one size, uint8 RGB (H, W, 3), and returns their detections.
        thresholds: What counts as a detection, an extra object and a match.
        batch: Number of pictures that ``detect`` gets at once.
        seed: Seed of the bootstrap.
        progress: Wraps the list of pictures, for example ``tqdm``.

    Raises:
        AuditError, ImageError, AnnotationError: A picture or its annotations are unusable.
    """
    # An original comes before its painted pictures: its labels and its measures serve them all.
    items = _audit_items(groups)
    pictures = (_read(each, image_root) for each in items)
    found = chain.from_iterable(map(detect, batches(pictures, batch)))
    pairs: dict[RecipeKey, list[Pair]] = defaultdict(list)
    labels: Labels
    original: Measured
    for item, detections in zip(progress(items), found, strict=True):
        if item.entry is None:
            labels = annotations.labels(item.file_name)
            # Masks of another size could not be compared with the labels pixel by pixel.
            _check_size(item.file_name, detections, labels)
            original = measure(detections, labels, thresholds)
            continue
        _check_size(item.file_name, detections, labels)
        _check_objects(item.entry, labels)
        painted = measure(detections, labels, thresholds)
        pairs[item.recipe].append(Pair(item.file_name, painted, original))
    return {recipe: aggregate(pairs[recipe], seed) for recipe in groups}


def _audit_items(groups: Mapping[RecipeKey, Sequence[CacheEntry]]) -> list[AuditItem]:
    """Each original with all its painted pictures after it; originals of one size together."""
    by_image: dict[tuple[int, int, str], list[AuditItem]] = defaultdict(list)
    for recipe, entries in groups.items():
        for entry in entries:
            source = entry.sidecar["source"]
            name = source["file_name"]
            # Neighbours of one size share a batch without padding, so the size comes first.
            key = source["height"], source["width"], name
            by_image[key].append(AuditItem(name, entry, recipe))
    items: list[AuditItem] = []
    for key in sorted(by_image):
        items += [AuditItem(key[2]), *by_image[key]]
    return items


def _read(item: AuditItem, image_root: str) -> Picture:
    return read_image(item.entry.path if item.entry else resolve_inside(image_root, item.file_name))


def _check_size(file_name: str, detections: Detections, labels: Labels) -> None:
    if detections.masks.shape[1:] != labels.object_mask.shape:
        raise AuditError(
            f"{file_name}: the picture is {detections.masks.shape[1:]} (height, width), "
            f"its annotations are for {labels.object_mask.shape}"
        )


def _check_objects(entry: CacheEntry, labels: Labels) -> None:
    """Raise unless the annotations are those that the picture was painted with.

    Names and sizes do not show it: a cache of another split may have images of the same name.
    """
    source = entry.sidecar["source"]
    differ = (mask_from_rle(entry.sidecar["object_mask"]) != labels.object_mask).mean()
    if differ > MAX_DIFFERENCE:
        raise AuditError(
            f"{source['file_name']}: the annotations differ from the objects that were protected "
            f"when it was painted, in {100 * differ:.1f} % of the pixels; "
            "give the annotation file that it was painted with"
        )


def batches(pictures: Iterable[Picture], most: int) -> Iterator[list[Picture]]:
    """Groups of neighbours of one size, ``most`` at a time, so that no picture is padded."""
    held: list[Picture] = []
    for picture in pictures:
        if held and (len(held) == most or held[0].shape != picture.shape):
            yield held
            held = []
        held.append(picture)
    if held:
        yield held


def check_originals(groups: Mapping[RecipeKey, Sequence[CacheEntry]], image_root: str) -> None:
    """Compare the originals with the digests that painting recorded.

    Raises:
        AuditError: An original is missing or has changed.
        ImageError: A name leads out of ``image_root``.
    """
    sources = [entry.sidecar["source"] for entries in groups.values() for entry in entries]
    for name, sha256 in sorted({(each["file_name"], each["sha256"]) for each in sources}):
        path = resolve_inside(image_root, name)
        if not path.is_file():
            raise AuditError(f"{path} is missing; give the folder of the originals as --image-root")
        if digest_file(path) != sha256:
            raise AuditError(f"{path} is not the file that was painted; it has changed since")


def shown(audits: Mapping[RecipeKey, Audit]) -> list[tuple[dict[str, str], Audit]]:
    """The audits as rows of a table, with the settings that tell the recipes apart."""
    recipes = [dict(recipe) for recipe in audits]
    # Settings that all recipes share would only widen the table.
    columns = [*SHOWN, *(name for name in differing(audits) if name not in SHOWN)]
    return [
        ({name: recipe.get(name, "") for name in columns}, audit)
        for recipe, audit in zip(recipes, audits.values(), strict=True)
    ]
