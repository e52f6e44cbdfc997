"""Measure this machine: engine, loader, hit path and cache; prints Markdown, writes JSON.

What is compared runs in one process and in turns, and medians are given, so that other work on the
machine hits all sides of a comparison alike. `--model sd21_base` and `--model sd2_inpainting` are
the full shapes of Stable Diffusion with random weights, for a GPU; nothing is downloaded.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import random
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
import yaml
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, DatasetMapper
from matplotlib.figure import Figure

from bgaug_d2.cache import CacheEntry, VariantCache
from bgaug_d2.cache_files import folder_of, picture_name, sidecar_path
from bgaug_d2.config import CPU_ROWS, GPU_ROWS, PICTURE_FORMATS, BgAugConfig, RecipeConfig
from bgaug_d2.data.errors import DatasetError
from bgaug_d2.data.register import check_dataset, register_dataset
from bgaug_d2.experiment_config import (
    DatasetConfig,
    DetectorConfig,
    ExperimentConfig,
    ScheduleConfig,
    ToyConfig,
)
from bgaug_d2.images import encode_picture, read_image
from bgaug_d2.inpaint.benchmark import (
    Effort,
    measure_engine,
    measure_ladder,
    occupancy_trace,
)
from bgaug_d2.inpaint.errors import ModelError
from bgaug_d2.inpaint.full_size import write_full_size_model
from bgaug_d2.inpaint.identity import TINY_MODEL
from bgaug_d2.inpaint.models import compiled, load_model
from bgaug_d2.jobs import InpaintJob, ModelIdentity, Recipe
from bgaug_d2.loader_benchmark import Pace, measure_loader
from bgaug_d2.mapper import BackgroundAugMapper
from bgaug_d2.painting import SkipImage, job_sidecar, prepare
from bgaug_d2.planner import JobPlanner
from bgaug_d2.results import machine, versions
from bgaug_d2.training_benchmark import measure_training

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
PARTS = ("engine", "loader", "training", "cache", "mapper", "scale")
FULL_SIZE = {"sd21_base": 4, "sd2_inpainting": 9}  # model -> channels of its UNet
# Of the pictures that are measured, where the command line does not say otherwise.
SMALL = Effort(images=16, resolution=128, steps=10, guidance_scale=3.0, rows=CPU_ROWS)
LARGE = Effort(rows=GPU_ROWS)
IDENTITY = ModelIdentity("benchmark", "", "0" * 64, "unknown")


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)} [all]")
    parser.add_argument(
        "--model", default="tiny", help=f"tiny, {', '.join(FULL_SIZE)}, or a folder [%(default)s]"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="[bfloat16 on a GPU]")
    parser.add_argument("--compile", action="store_true", help="measure torch.compile as well")
    parser.add_argument("--coco", help="a COCO folder for the mapper [toy pictures of 640 px]")
    for field in fields(Effort):
        kind = type(field.default)
        small, large = getattr(SMALL, field.name), getattr(LARGE, field.name)
        text = f"[{small}]" if small == large else f"[{small} with tiny, else {large}]"
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=kind, help=text)
    parser.add_argument(
        "--iterations", type=int, default=40, help="of each loader in part training [%(default)s]"
    )
    parser.add_argument(
        "--entries",
        type=int,
        nargs="+",
        default=[1_000, 10_000, 100_000],
        help="sizes of the cache in part scale, rising [%(default)s]",
    )
    parser.add_argument("--out", default="output/benchmark.json", help="JSON file [%(default)s]")
    arguments = parser.parse_args(argv)
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    return arguments


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(argv)
    parts = arguments.parts or PARTS
    report: dict[str, Any] = {
        "machine": machine(),
        "device": device_name(arguments.device),
        "threads": torch.get_num_threads(),
        "date": datetime.date.today().isoformat(),
        "arguments": vars(arguments),
        "versions": versions(),
    }
    try:
        with tempfile.TemporaryDirectory(prefix="bgaug-benchmark-") as folder:
            if "engine" in parts:
                report["engine"] = engine_report(arguments, Path(folder))
            if "loader" in parts:
                report["loader"] = loader_report(Path(folder))
            if "training" in parts:
                report["training"] = training_report(arguments, Path(folder))
            if "scale" in parts:
                report["scale"] = measure_scale(Path(folder) / "scale", arguments.entries)
            if {"cache", "mapper"} & set(parts):
                report |= hit_path(arguments, parts, Path(folder))
    except (DatasetError, ModelError) as error:
        sys.exit(str(error))
    out = Path(arguments.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=2) + "\n")
    print(to_markdown(report))
    print(f"written to {out}")


def engine_report(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    defaults = SMALL if arguments.model == "tiny" else LARGE
    given = {field.name: getattr(arguments, field.name) for field in fields(Effort)}
    effort = Effort(**asdict(defaults) | {k: v for k, v in given.items() if v is not None})
    path = Path(arguments.model)
    if arguments.model == "tiny":
        path = TINY_MODEL
    elif arguments.model in FULL_SIZE:
        path = folder / arguments.model
        write_full_size_model(path, FULL_SIZE[arguments.model])
    on_gpu = arguments.device.startswith("cuda")
    dtype = arguments.dtype or ("bfloat16" if on_gpu else "float32")
    model = load_model(path, arguments.device, dtype, IDENTITY)
    found = measure_engine(model, path, effort)
    staggered = [2 * number for number in range(effort.images)]
    found["trace"] = occupancy_trace(model, effort, staggered)
    plot_trace(found["trace"], effort.rows, Path(arguments.out).with_suffix(".png"))
    found["ladder"] = measure_ladder(model, effort, compiled if arguments.compile else None)
    return found | {"model": arguments.model, "dtype": dtype, "shape": asdict(effort)}


def plot_trace(trace: Sequence[tuple[int, int]], rows: int, path: Path) -> None:
    """Rows in use over UNet calls, for requests of which one comes every second call."""
    figure = Figure(figsize=(9, 3), layout="constrained")
    axes = figure.add_subplot()
    axes.step(range(len(trace)), [used for used, _ in trace], where="post", label="rows in use")
    axes.step(range(len(trace)), [waiting for _, waiting in trace], where="post", label="waiting")
    axes.axhline(rows, linestyle="--", color="grey", label="rows of a call")
    axes.set(xlabel="UNet call", ylabel="rows, requests", ylim=(0, None))
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


def loader_report(folder: Path) -> dict[str, Any]:
    toy = ToyConfig(image_size=320, num_train=48, num_val=1, num_test=1)
    handle = register_dataset(DatasetConfig(root=str(folder / "loader"), toy=toy))
    return {"pace": asdict(Pace()), "situations": measure_loader(handle, Pace())}


def training_report(arguments: argparse.Namespace, folder: Path) -> dict[str, float]:
    """The toy detector on the toy world."""
    detector = yaml.safe_load((CONFIGS / "detector" / "toy_mask_rcnn.yaml").read_text())
    experiment = ExperimentConfig(
        dataset=DatasetConfig(root=str(folder / "training"), toy=ToyConfig(num_train=64)),
        detector=DetectorConfig(detector["config_file"], "", detector["opts"]),
        schedule=ScheduleConfig(images_per_batch=8, optimizer="adamw", base_lr=1e-4, num_workers=0),
    )
    device = "cuda" if arguments.device.startswith("cuda") else "cpu"
    return measure_training(experiment, device, arguments.iterations, folder)


def measure_scale(folder: Path, sizes: Sequence[int]) -> list[dict[str, float]]:
    """Look-up, start-up and memory of a cache as it grows; most entries are links to one."""
    rng = random.Random(0)
    cache = VariantCache(str(folder))
    asked = [rng.randbytes(32).hex() for _ in range(200)]
    for key in asked:
        cache.put(key, rng.randbytes(300_000), {})
    found, count = [], len(asked)
    for size in sizes:
        for number in range(max(size - count, 0)):
            if number % 30_000 == 0:  # a file system allows so many links to a file, about
                template = rng.randbytes(32).hex()
                cache.put(template, b"filler", {})
            link_entry(cache, template, rng.randbytes(32).hex())
        count = max(size, count)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        began = time.perf_counter()
        opened = VariantCache(str(folder))
        start_ms = 1e3 * (time.perf_counter() - began)
        get = in_turns({"get_ms": opened.get}, asked, 5)
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        found.append({"entries": count, "start_ms": start_ms, **get, "grown_kb": after - before})
    return found


def link_entry(cache: VariantCache, template: str, key: str) -> None:
    """Files of the right names for ``key``; nobody looks into them."""
    record = cache.get(template, verify=False)
    if not isinstance(record, CacheEntry):
        raise RuntimeError(f"the entry {template} is gone")
    target = folder_of(cache.root, key)
    os.makedirs(target, exist_ok=True)
    os.link(sidecar_path(cache.root, template), sidecar_path(cache.root, key))
    os.link(record.path, os.path.join(target, picture_name(key, "0" * 64, ".png")))


def hit_path(arguments: argparse.Namespace, parts: Sequence[str], folder: Path) -> dict[str, Any]:
    """Times, in ms, of the cache and of Detectron2's mapper on originals and on hits."""
    planner, draws = prepare_jobs(arguments, folder)
    jobs = [planner.job(each, 1) for each in draws]
    caches = {each: VariantCache(str(folder / f"cache_{each}")) for each in PICTURE_FORMATS}
    repeats = arguments.repeats or SMALL.repeats
    measured = {
        name: measure_cache(cache, jobs, planner.image_root, name, repeats)
        for name, cache in caches.items()
    }
    found: dict[str, Any] = {"cache": measured["png"]}
    if "mapper" in parts:
        found["mapper"] = measure_mapper(caches, planner, draws, repeats)
    return found


def prepare_jobs(
    arguments: argparse.Namespace, folder: Path
) -> tuple[JobPlanner, list[dict[str, Any]]]:
    """A planner that shows variant 1 on every draw, and draws of images that can be painted."""
    images = arguments.images or SMALL.images
    toy = ToyConfig(image_size=640, num_train=2 * images, num_val=1, num_test=1)
    dataset = DatasetConfig(root=str(folder / "toy"), toy=toy)
    if arguments.coco:
        dataset = DatasetConfig(kind="coco", root=arguments.coco)
    check_dataset(dataset)
    handle = register_dataset(dataset)
    recipe_config = RecipeConfig()
    recipe = Recipe(recipe_config, IDENTITY, "float32")
    settings = BgAugConfig(mode="replace", p=1.0, variants=1, recipe=recipe_config)
    planner = JobPlanner(settings, recipe, handle.image_root, 0, handle.class_names)
    draws = []
    for each in DatasetCatalog.get(handle.train[0]):
        draw = {**each, "bgaug_visit": 0}
        if planner.plan(draw).key and _can_be_painted(planner.job(draw, 1), handle.image_root):
            draws.append(draw)
    return planner, draws[:images]


def measure_cache(
    cache: VariantCache,
    jobs: list[InpaintJob],
    image_root: str,
    picture_format: str,
    repeats: int,
) -> dict[str, float]:
    """Writing and looking up one picture of its source's size (here: inverted colours)."""
    items = []
    for job in jobs:
        picture = 255 - read_image(Path(image_root) / job.source.file_name)
        items.append((job.key, encode_picture(picture, picture_format), job_sidecar(job, 0, "")))
    put = in_turns({"put_ms": lambda item: cache.put(*item)}, items, repeats)
    return put | in_turns({"get_ms": lambda item: cache.get(item[0])}, items, repeats)


def measure_mapper(
    caches: Mapping[str, VariantCache],
    planner: JobPlanner,
    draws: list[dict[str, Any]],
    repeats: int,
) -> dict[str, float]:
    """Detectron2's own mapper on the originals and, wrapped, on pictures of each format."""
    plain = DatasetMapper(get_cfg(), True)
    mappers: dict[str, Callable[[Any], Any]] = {"original_ms": plain}
    for name, cache in caches.items():
        mappers[f"hit_{name}_ms"] = BackgroundAugMapper(plain, planner, cache, None, "error", 1.0)
    times = in_turns(mappers, draws, repeats)
    ratios = {
        f"hit_{name}_against_original": times[f"hit_{name}_ms"] / times["original_ms"]
        for name in caches
    }
    return times | ratios


def in_turns(
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


def to_markdown(report: dict[str, Any]) -> str:
    """Tables of what was measured."""
    lines = [
        f"{report['machine']}; {report['device']}; {report['date']}; commit "
        f"{str(report['versions']['git_commit'])[:7]}",
        "",
    ]
    if engine := report.get("engine"):
        lines += ["| engine | images/s | rows/s | TFLOP/s | of the matrix-product rate |"]
        lines += ["| --- | --- | --- | --- | --- |"]
        titles = {
            "stock_per_image": "diffusers, a call per picture",
            "stock_grouped": "diffusers, grouped by T_hat, batches of "
            f"{engine['stock_grouped']['batch_size']}",
            "ours": f"this engine, {engine['shape']['rows']} rows",
        }
        for name, title in titles.items():
            each = engine[name]
            lines.append(
                f"| {title} | {each['images_per_s']:.3g} | {each['rows_per_s']:.3g} | "
                f"{each['tflops']:.3g} | {100 * each['share']:.0f} % |"
            )
        speedup = engine["speedup"]
        lines += [
            "",
            f"{engine['model']}, {engine['dtype']}, {engine['shape']['resolution']} px, mean T_hat "
            f"{engine['T_hat']['mean']:.1f} of {engine['shape']['steps']}: "
            f"{speedup['per_image']:.2f} times a call per picture, {speedup['grouped']:.2f} times "
            f"grouped; solver's largest relative error {engine['solver_max_rel_error']:.1e}",
            "",
            "| ladder | images/s |",
            "| --- | --- |",
            *(f"| {name} | {rate:.3g} |" for name, rate in engine["ladder"].items()),
            "",
        ]
    if loader := report.get("loader"):
        lines += ["| on a miss | look-ahead | painting's speed | images/s | waiting | augmented |"]
        lines += ["| --- | --- | --- | --- | --- | --- |"]
        for each in loader["situations"]:
            ahead = {True: "on", False: "off"}.get(each.get("look_ahead"), "–")
            speed = f"{100 * each['speed']:.0f} % of need" if "speed" in each else "–"
            name = "no augmentation" if each["on_miss"] == "none" else each["on_miss"]
            lines.append(
                f"| {name} | {ahead} | {speed} | {each['images_per_s']:.3g} | "
                f"{100 * each['stall_share']:.1f} % | {100 * each['augmented_share']:.0f} % |"
            )
        lines.append("")
    if scale := report.get("scale"):
        lines += ["| entries | look-up, ms | start, ms | memory grown, kB |"]
        lines += ["| --- | --- | --- | --- |"]
        lines += [
            f"| {each['entries']:,} | {each['get_ms']:.3f} | {each['start_ms']:.3f} | "
            f"{each['grown_kb']} |"
            for each in scale
        ]
        lines.append("")
    rows = [
        (f"{part}: {name}", value)
        for part in ("training", "cache", "mapper")
        for name, value in report.get(part, {}).items()
    ]
    if rows:
        lines += ["| what | median |", "| --- | --- |"]
        lines += [f"| {name} | {value:.4g} |" for name, value in rows]
    return "\n".join(lines)


def device_name(device: str) -> str:
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device


def _can_be_painted(job: InpaintJob, image_root: str) -> bool:
    try:
        prepare(job, image_root)
    except SkipImage:
        return False
    return True


if __name__ == "__main__":
    main()
