"""Measure this machine: engine, hit path and cache; prints a Markdown table, writes JSON.

Everything runs in one process and in turns, and medians are given, so that other work on the
machine hits all sides of a comparison alike. Without --coco the toy world is measured.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, DatasetMapper

from bgaug_d2.cache import VariantCache
from bgaug_d2.config import BgAugConfig, InpainterConfig, RecipeConfig
from bgaug_d2.data.errors import DatasetError
from bgaug_d2.data.register import check_dataset, register_dataset
from bgaug_d2.experiment_config import DatasetConfig, ToyConfig
from bgaug_d2.images import encode_png, read_image
from bgaug_d2.inpaint.build import build_engine
from bgaug_d2.inpaint.errors import ModelError
from bgaug_d2.inpaint.identity import identify, resolve_dtype
from bgaug_d2.jobs import InpaintJob, Recipe
from bgaug_d2.mapper import BackgroundAugMapper
from bgaug_d2.painting import SkipImage, job_sidecar, prepare
from bgaug_d2.planner import JobPlanner
from bgaug_d2.results import versions

Row = dict[str, Any]


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--coco", help="a COCO folder: annotations/, train2017/, val2017/")
    parser.add_argument("--model", default="tiny", help="as inpainter.model [%(default)s]")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--resolution", type=int, default=128, help="side in pixels [%(default)s]")
    parser.add_argument("--steps", type=int, default=10, help="T of the schedule [%(default)s]")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 8], help="batch sizes")
    parser.add_argument("--images", type=int, default=8, help="pictures [%(default)s]")
    parser.add_argument("--repeats", type=int, default=5, help="turns [%(default)s]")
    parser.add_argument("--out", default="output/benchmark.json", help="JSON file [%(default)s]")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(argv)
    try:
        with tempfile.TemporaryDirectory(prefix="bgaug-benchmark-") as folder:
            rows = measure(arguments, Path(folder))
    except (DatasetError, ModelError) as error:
        sys.exit(str(error))
    report = {
        "rows": rows,
        "arguments": vars(arguments),
        "machine": {"cpu": platform.processor(), "threads": torch.get_num_threads()},
        "versions": versions(),
    }
    out = Path(arguments.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=2) + "\n")
    print("| what | median | unit |\n| --- | --- | --- |")
    for row in rows:
        print(f"| {row['what']} | {row['median']:.4g} | {row['unit']} |")
    print(f"\nwritten to {out}")


def measure(arguments: argparse.Namespace, folder: Path) -> list[Row]:
    planner, draws = prepare_jobs(arguments, folder)
    jobs = [planner.job(each, 1) for each in draws]
    cache = VariantCache(str(folder / "cache"))
    return [
        *measure_cache(cache, jobs, planner.image_root, arguments.repeats),
        *measure_hits(cache, planner, draws, arguments.repeats),
        *measure_engine(arguments, jobs, planner.image_root),
    ]


def prepare_jobs(
    arguments: argparse.Namespace, folder: Path
) -> tuple[JobPlanner, list[dict[str, Any]]]:
    """A planner that shows variant 1 on every draw, and draws of images that can be painted."""
    toy = ToyConfig(image_size=640, num_train=2 * arguments.images, num_test=1)
    dataset = DatasetConfig(root=str(folder / "toy"), toy=toy)
    if arguments.coco:
        dataset = DatasetConfig(kind="coco", root=arguments.coco)
    check_dataset(dataset)
    handle = register_dataset(dataset)
    inpainter = InpainterConfig(model=arguments.model)
    identity, _ = identify(inpainter)
    recipe_config = RecipeConfig(
        resolution=arguments.resolution, num_inference_steps=arguments.steps
    )
    recipe = Recipe(recipe_config, identity, resolve_dtype(inpainter, arguments.device))
    settings = BgAugConfig(mode="replace", p=1.0, variants=1, recipe=recipe_config)
    planner = JobPlanner(settings, recipe, handle.image_root, 0, handle.class_names)
    draws = []
    for each in DatasetCatalog.get(handle.train[0]):
        draw = {**each, "bgaug_visit": 0}
        if planner.plan(draw).key and _can_be_painted(planner.job(draw, 1), handle.image_root):
            draws.append(draw)
    return planner, draws[: arguments.images]


def measure_cache(
    cache: VariantCache, jobs: list[InpaintJob], image_root: str, repeats: int
) -> list[Row]:
    """Writing and looking up one picture of its source's size (here: inverted colours)."""
    items = []
    for job in jobs:
        picture = 255 - read_image(Path(image_root) / job.source.file_name)
        items.append((job.key, encode_png(picture), job_sidecar(job, 0, "")))
    put = in_turns({"put": lambda item: cache.put(*item)}, items, repeats)
    get = in_turns({"get": lambda item: cache.get(item[0])}, items, repeats)
    return [
        row("cache: put", 1e3 * put["put"], "ms/picture"),
        row("cache: get, digest checked", 1e3 * get["get"], "ms/picture"),
    ]


def measure_hits(
    cache: VariantCache, planner: JobPlanner, draws: list[dict[str, Any]], repeats: int
) -> list[Row]:
    """Detectron2's own mapper on the originals and, wrapped, on pictures from the cache."""
    plain = DatasetMapper(get_cfg(), True)
    wrapped = BackgroundAugMapper(plain, planner, cache, None, "error", 1.0)
    times = in_turns({"plain": plain, "hit": wrapped}, draws, repeats)
    return [
        row("mapper: original", 1e3 * times["plain"], "ms/sample"),
        row("mapper: hit", 1e3 * times["hit"], "ms/sample"),
        row("mapper: hit against original", times["hit"] / times["plain"], "times"),
    ]


def measure_engine(
    arguments: argparse.Namespace, jobs: list[InpaintJob], image_root: str
) -> list[Row]:
    """Pictures a second of the engine alone: masks and images are prepared beforehand."""
    identity, path = identify(InpainterConfig(model=arguments.model))
    requests = [prepare(job, image_root).request() for job in jobs]
    options = {
        "model_path": str(path),
        "identity": vars(identity),
        "device": arguments.device,
        "dtype": jobs[0].recipe.dtype,
    }
    rows = []
    for batch_size in arguments.batches:
        engine = build_engine({**options, "batch_size": batch_size})
        seconds = []
        for _ in range(arguments.repeats + 1):  # the first one warms up
            began = time.perf_counter()
            for request in requests:
                engine.submit(request)
            results = []
            while engine.pending:
                results += engine.poll()
            seconds.append(time.perf_counter() - began)
            faults = {result.error for result in results if result.error}
            if faults:
                sys.exit(f"the engine could not paint: {', '.join(sorted(faults))}")
        rate = len(requests) / statistics.median(seconds[1:])
        rows.append(row(f"engine: {arguments.model}, batch {batch_size}", rate, "images/s"))
    return rows


def in_turns(
    functions: dict[str, Callable[[Any], Any]], items: list[Any], repeats: int
) -> dict[str, float]:
    """Median seconds of each function per item; the functions take turns on every item."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repeats):
        for item in items:
            for name, function in functions.items():
                began = time.perf_counter()
                function(item)
                seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in seconds.items()}


def row(what: str, median: float, unit: str) -> Row:
    return {"what": what, "median": median, "unit": unit}


def _can_be_painted(job: InpaintJob, image_root: str) -> bool:
    try:
        prepare(job, image_root)
    except SkipImage:
        return False
    return True


if __name__ == "__main__":
    main()
