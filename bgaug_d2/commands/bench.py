"""Measure this machine: engine, loader, hit path and cache; prints Markdown, writes JSON.

What is compared runs in one process and in turns, and medians are given, so that other work on the
machine hits all sides of a comparison alike. `--model sd21_base` and `--model sd2_inpainting` are
the full shapes of Stable Diffusion with random weights, for a GPU; nothing is downloaded.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
import yaml
from matplotlib.figure import Figure

from bgaug_d2.benchmarks.baselines import Effort
from bgaug_d2.benchmarks.engine import measure_engine, measure_ladder, occupancy_trace
from bgaug_d2.benchmarks.full_size_model import write_full_size_model
from bgaug_d2.benchmarks.markdown import to_markdown
from bgaug_d2.config.bgaug import CPU_ROWS, GPU_ROWS
from bgaug_d2.config.experiment import (
    DatasetConfig,
    DetectorConfig,
    ExperimentConfig,
    ScheduleConfig,
    ToyConfig,
)
from bgaug_d2.errors import BgAugError
from bgaug_d2.inpaint.model.identity import TINY_MODEL
from bgaug_d2.inpaint.model.load import load_model
from bgaug_d2.jobs.job import ModelIdentity
from bgaug_d2.runs.environment import machine, versions
from bgaug_d2.runs.hydra_app import config_dir

PARTS = ("engine", "loader", "training", "hits", "scale")
FULL_SIZE = {"sd21_base": 4, "sd2_inpainting": 9}  # model -> channels of its UNet
# Of the pictures that are measured, where the command line does not say otherwise.
SMALL = Effort(images=16, resolution=128, steps=10, guidance_scale=3.0, rows=CPU_ROWS)
LARGE = Effort(rows=GPU_ROWS)
IDENTITY = ModelIdentity("benchmark", "", "0" * 64, "unknown")


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line; a mistake ends the process with status 2."""
    parser = argparse.ArgumentParser(prog="bgaug bench", description=__doc__)
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
        "--num-workers",
        type=int,
        default=0,
        help="loader processes of each loader in part training [%(default)s]",
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
    """Run ``bgaug bench``."""
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
            if "hits" in parts:  # first: a wrong --coco is told at once
                report |= hits_report(arguments, Path(folder))
            if "engine" in parts:
                report["engine"] = engine_report(arguments, Path(folder))
            if "loader" in parts:
                report["loader"] = loader_report(Path(folder))
            if "training" in parts:
                report["training"] = training_report(arguments, Path(folder))
            if "scale" in parts:
                report["scale"] = scale_report(arguments, Path(folder))
    except BgAugError as error:
        sys.exit(str(error))
    out = Path(arguments.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=2) + "\n")
    print(to_markdown(report))
    print(f"written to {out}")


def engine_report(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The engine against diffusers' pipeline."""
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
    staggered = range(effort.images)  # one request per call
    found["trace"] = occupancy_trace(model, effort, staggered)
    plot_trace(found["trace"], effort.rows, Path(arguments.out).with_suffix(".png"))
    found["ladder"] = measure_ladder(model, effort, arguments.compile)
    return found | {"model": arguments.model, "dtype": dtype, "shape": asdict(effort)}


def plot_trace(trace: Sequence[tuple[int, int]], rows: int, path: Path) -> None:
    """Rows in use over UNet calls, for requests of which one comes before each call."""
    figure = Figure(figsize=(9, 3), layout="constrained")
    axes = figure.add_subplot()
    axes.step(range(len(trace)), [used for used, _ in trace], where="post", label="rows in use")
    axes.step(range(len(trace)), [waiting for _, waiting in trace], where="post", label="waiting")
    axes.axhline(rows, linestyle="--", color="grey", label="rows of a call")
    axes.set(xlabel="UNet call", ylabel="rows, requests", ylim=(0, None))
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


# The following import late: the engine can be measured where there is no Detectron2.
def loader_report(folder: Path) -> dict[str, Any]:
    """How long training waits for its loader."""
    from bgaug_d2.benchmarks.loader import Pace, measure_loader
    from bgaug_d2.data.register import register_dataset

    toy = ToyConfig(image_size=320, num_train=48, num_val=1, num_test=1)
    handle = register_dataset(DatasetConfig(root=str(folder / "loader"), toy=toy))
    return {"pace": asdict(Pace()), "situations": measure_loader(handle, Pace())}


def scale_report(arguments: argparse.Namespace, folder: Path) -> list[dict[str, float]]:
    """A cache that grows."""
    from bgaug_d2.benchmarks.hits import measure_scale

    return measure_scale(folder / "scale", arguments.entries)


def training_report(arguments: argparse.Namespace, folder: Path) -> dict[str, float]:
    """The toy detector on the toy world."""
    from bgaug_d2.benchmarks.training import measure_training

    detector = yaml.safe_load((config_dir() / "detector" / "toy_mask_rcnn.yaml").read_text())
    experiment = ExperimentConfig(
        dataset=DatasetConfig(root=str(folder / "training"), toy=ToyConfig(num_train=64)),
        detector=DetectorConfig(detector["config_file"], "", detector["opts"]),
        schedule=ScheduleConfig(
            images_per_batch=8,
            optimizer="adamw",
            base_lr=1e-4,
            num_workers=arguments.num_workers,
        ),
    )
    device = "cuda" if arguments.device.startswith("cuda") else "cpu"
    return measure_training(experiment, device, arguments.iterations, folder)


def hits_report(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """What a hit costs."""
    from bgaug_d2.benchmarks.hits import measure_hits
    from bgaug_d2.data.register import check_dataset, register_dataset

    images = arguments.images or SMALL.images
    toy = ToyConfig(image_size=640, num_train=2 * images, num_val=1, num_test=1)
    dataset = DatasetConfig(root=str(folder / "hits"), toy=toy)
    if arguments.coco:
        dataset = DatasetConfig(kind="coco", root=arguments.coco)
    check_dataset(dataset)
    handle = register_dataset(dataset)
    return measure_hits(handle, folder, images, arguments.repeats or SMALL.repeats)


def device_name(device: str) -> str:
    """The device in words."""
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device


if __name__ == "__main__":
    main()
