"""Measures what a hit costs: in the cache, in Detectron2's mapper, and as the cache grows.

What is compared takes turns, and medians are given.
"""

from __future__ import annotations

import hashlib
import os
import random
import resource
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, DatasetMapper

from bgaug_d2.cache.files import folder_of, picture_name, sidecar_path
from bgaug_d2.cache.source_digests import with_digests
from bgaug_d2.cache.store import VariantCache
from bgaug_d2.config.bgaug import PICTURE_FORMATS, BgAugConfig
from bgaug_d2.config.recipe import RecipeConfig
from bgaug_d2.data.catalogue import DatasetHandle
from bgaug_d2.jobs.job import InpaintJob, ModelIdentity, Recipe
from bgaug_d2.painting.prepare import SkipImage, prepare
from bgaug_d2.painting.sidecar import job_sidecar
from bgaug_d2.pixels.encode import encode_picture
from bgaug_d2.pixels.read import read_image
from bgaug_d2.sampling.mapper import BackgroundAugMapper
from bgaug_d2.sampling.planner import JobPlanner

_LINKS = 30_000  # to one file; file systems allow at least this many
_FILLER = b"filler"
_DIGEST = hashlib.sha256(_FILLER).hexdigest()
_IDENTITY = ModelIdentity("benchmark", "", "0" * 64, "none")


def measure_hits(
    handle: DatasetHandle, folder: Path, images: int, repeats: int
) -> dict[str, dict[str, float]]:
    """Median milliseconds of the cache and of Detectron2's mapper on originals and on hits.

    Args:
        handle: A data set; its first images that can be painted are taken.
        folder: For caches.
        images: Number of images.
        repeats: Turns.

    Returns:
        ``cache`` (``put_ms``, ``get_ms``) and ``mapper`` (originals, hits of each picture format,
        and these against originals).
    """
    planner, draws = _prepare_jobs(handle, images, str(folder / "digests"))
    jobs = [planner.plan(each).job() for each in draws]
    caches = {each: VariantCache(str(folder / f"cache_{each}")) for each in PICTURE_FORMATS}
    measured = {
        name: _measure_cache(cache, jobs, planner.image_root, name, repeats)
        for name, cache in caches.items()
    }
    mapper = _measure_mapper(caches, planner, draws, repeats)
    return {"cache": measured["png"], "mapper": mapper}


def measure_scale(folder: Path, sizes: Sequence[int]) -> list[dict[str, float]]:
    """Look-up, start-up and memory of a cache as it grows; most entries are links to one.

    Args:
        folder: The cache.
        sizes: Numbers of entries, rising.

    Returns:
        For each size ``entries``, ``get_ms``, ``start_ms`` and ``grown_kb``, by how much the
        process grew while it opened the cache and looked up 200 entries five times.
    """
    rng = random.Random(0)
    cache = VariantCache(str(folder))
    asked = [rng.randbytes(32).hex() for _ in range(200)]
    for key in asked:
        # Large, because a look-up reads and hashes the whole file.
        cache.put(key, rng.randbytes(300_000), {})
    found, count = [], len(asked)
    for size in sizes:
        _fill(cache, max(size - count, 0), rng)
        count = max(size, count)
        # The largest size so far: it never falls, so a difference is growth.
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        began = time.perf_counter()
        opened = VariantCache(str(folder))
        start_ms = 1e3 * (time.perf_counter() - began)
        get = _in_turns({"get_ms": opened.get}, asked, 5)
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        found.append({"entries": count, "start_ms": start_ms, **get, "grown_kb": after - before})
    return found


def _fill(cache: VariantCache, count: int, rng: random.Random) -> None:
    """Add entries that have files of the right names; nobody reads their content."""
    for number in range(count):
        key = rng.randbytes(32).hex()
        if number % _LINKS == 0:
            cache.put(key, _FILLER, {})
            sidecar = sidecar_path(cache.root, key)
            picture = os.path.join(folder_of(cache.root, key), picture_name(key, _DIGEST, ".png"))
            continue
        folder = folder_of(cache.root, key)
        os.makedirs(folder, exist_ok=True)
        # A link has no content of its own, so a million of them are small and quick to make.
        os.link(sidecar, sidecar_path(cache.root, key))
        os.link(picture, os.path.join(folder, picture_name(key, _DIGEST, ".png")))


def _prepare_jobs(
    handle: DatasetHandle, images: int, cache_dir: str
) -> tuple[JobPlanner, list[dict[str, Any]]]:
    """A planner that shows variant 1 on every draw, and draws of images that can be painted."""
    recipe_config = RecipeConfig()
    recipe = Recipe(recipe_config, _IDENTITY, "float32")
    settings = BgAugConfig(mode="replace", p=1.0, variants=1, recipe=recipe_config)
    planner = JobPlanner(settings, recipe, handle.image_root, 0, handle.class_names)
    draws = []
    dicts = with_digests(DatasetCatalog.get(handle.train[0]), handle.image_root, cache_dir)
    for each in dicts:
        draw = {**each, "bgaug_visit": 0}
        plan = planner.plan(draw)
        if plan.key and _can_be_painted(plan.job(), handle.image_root):
            draws.append(draw)
    return planner, draws[:images]


def _measure_cache(
    cache: VariantCache,
    jobs: list[InpaintJob],
    image_root: str,
    picture_format: str,
    repeats: int,
) -> dict[str, float]:
    """Writing and looking up one picture of its source's size (here: inverted colours)."""
    items = []
    for job in jobs:
        # Any picture of that size will do, and inverting one needs no model.
        picture = 255 - read_image(Path(image_root) / job.source.file_name)
        items.append((job.key, encode_picture(picture, picture_format), job_sidecar(job, 0, "")))
    put = _in_turns({"put_ms": lambda item: cache.put(*item)}, items, repeats)
    return put | _in_turns({"get_ms": lambda item: cache.get(item[0])}, items, repeats)


def _measure_mapper(
    caches: Mapping[str, VariantCache],
    planner: JobPlanner,
    draws: list[dict[str, Any]],
    repeats: int,
) -> dict[str, float]:
    """Detectron2's own mapper on the originals and, wrapped, on pictures of each format."""
    plain = DatasetMapper(get_cfg(), True)
    mappers: dict[str, Callable[[Any], Any]] = {"original_ms": plain}
    for name, cache in caches.items():
        # A miss is an error: else it would be timed as a hit though it reads the original.
        mappers[f"hit_{name}_ms"] = BackgroundAugMapper(plain, planner, cache, None, "error", 1.0)
    times = _in_turns(mappers, draws, repeats)
    ratios = {
        f"hit_{name}_against_original": times[f"hit_{name}_ms"] / times["original_ms"]
        for name in caches
    }
    return times | ratios


def _in_turns(
    functions: dict[str, Callable[[Any], Any]], items: list[Any], repeats: int
) -> dict[str, float]:
    """Median milliseconds of each function per item; the functions take turns on every item."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repeats):
        for item in items:
            for name, function in functions.items():
                began = time.perf_counter()
                function(item)
                times[name].append(1e3 * (time.perf_counter() - began))
    return {name: statistics.median(values) for name, values in times.items()}


def _can_be_painted(job: InpaintJob, image_root: str) -> bool:
    try:
        prepare(job, image_root)
    except SkipImage:
        return False
    return True
