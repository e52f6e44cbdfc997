"""The background share of every image, computed once and kept beside the cache."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from bgaug_d2.cache.files import BACKGROUND_RATIOS, open_cache_folder, write_atomically
from bgaug_d2.cache.source_digests import OBJECTS_KEY, objects_sha256
from bgaug_d2.jobs.digests import canonical_json
from bgaug_d2.jobs.parse import objects_from_annotations
from bgaug_d2.pixels.masks import background_ratio
from bgaug_d2.pixels.object_masks import object_masks

logger = logging.getLogger(__name__)

# Part of the digest: with a new number, older files are not found.
SCHEMA = 1

DatasetDict = Mapping[str, Any]
# Called with the dataset dicts, returns them for iteration: ``tqdm`` for a bar, ``iter`` for none.
Progress = Callable[[Sequence[DatasetDict]], Iterable[DatasetDict]]


def background_ratios(
    dataset_dicts: Sequence[DatasetDict], cache_dir: str | None, progress: Progress = iter
) -> list[float]:
    """The share of un-eroded background, 0..1, of every image: the paper's ``sum(m_b) / (W * H)``.

    Takes a millisecond or two per image, so the result is kept in the cache's folder, in a file
    named after a digest of all sizes and objects.

    Args:
        dataset_dicts: Detectron2's format; no image file is read.
        cache_dir: Folder of the cache; None keeps nothing.
        progress: Shows the progress.

    Raises:
        AnnotationError: An annotation is not usable.
        CacheError: ``cache_dir`` holds something else than a cache.
    """
    if cache_dir is None:
        return [_ratio(each) for each in progress(dataset_dicts)]
    open_cache_folder(cache_dir)
    digest = _digest(dataset_dicts)
    path = os.path.join(cache_dir, BACKGROUND_RATIOS, f"{digest}.json")
    ratios = _load(path, digest, len(dataset_dicts))
    if ratios is None:
        ratios = [_ratio(each) for each in progress(dataset_dicts)]
        _save(path, digest, ratios)
    return ratios


def _ratio(dataset_dict: DatasetDict) -> float:
    image_id = dataset_dict["image_id"]
    objects = objects_from_annotations(dataset_dict.get("annotations", ()), image_id)
    found = object_masks(objects, dataset_dict["height"], dataset_dict["width"], image_id)
    return background_ratio(found.object_mask)


def _digest(dataset_dicts: Sequence[DatasetDict]) -> str:
    """SHA-256 (64 hex digits) of all that decides the ratios, in order."""
    digest = hashlib.sha256(canonical_json(["background_ratios", SCHEMA]))
    for each in dataset_dicts:
        # A digest that `with_digests` left there spares writing the polygons as JSON.
        objects = each.get(OBJECTS_KEY) or objects_sha256(each)
        digest.update(canonical_json([each["height"], each["width"], objects]))
    return digest.hexdigest()


def _load(path: str, digest: str, num_images: int) -> list[float] | None:
    """The kept ratios, or None where there are none that can be used."""
    try:
        with open(path, "rb") as file:
            content = json.load(file)
        ratios = [float(ratio) for ratio in content["ratios"]]
        # The digest in the name covers the inputs only; `ratios_sha256` covers the numbers.
        sound = (
            content["digest"] == digest
            and content["ratios_sha256"] == hashlib.sha256(canonical_json(ratios)).hexdigest()
            and len(ratios) == num_images
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.warning("%s cannot be used (%s); computed again", path, error)
        return None
    if not sound:
        logger.warning("%s is damaged; computed again", path)
        return None
    return ratios


def _save(path: str, digest: str, ratios: Sequence[float]) -> None:
    content = {
        "schema": SCHEMA,
        "digest": digest,
        "ratios_sha256": hashlib.sha256(canonical_json(ratios)).hexdigest(),
        "ratios": ratios,
    }
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        write_atomically({path: canonical_json(content)})
    except OSError as error:  # a full or read-only cache costs the time again, no more
        logger.warning("%s cannot be written (%s)", path, error.strerror)
