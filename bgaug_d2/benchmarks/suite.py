"""Runs the benchmarks of this folder and writes what they find: JSON, Markdown and a plot."""

from __future__ import annotations

import datetime
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from matplotlib.figure import Figure

from bgaug_d2.benchmarks.baselines import BenchmarkSize
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
from bgaug_d2.errors import ConfigError
from bgaug_d2.inpaint.model.identity import TINY, TINY_MODEL
from bgaug_d2.inpaint.model.load import load_model
from bgaug_d2.jobs.job import ModelIdentity
from bgaug_d2.runs.environment import machine, versions

PARTS = ("engine", "loader", "training", "hits", "scale")
FULL_SIZE = {"sd21_base": 4, "sd2_inpainting": 9}  # model -> channels of its UNet
# What is measured with the tiny model, and with any other.
SMALL = BenchmarkSize(
    images=16,
    resolution=128,
    num_inference_steps=10,
    guidance_scale=3.0,
    max_batch_rows=CPU_ROWS,
)
LARGE = BenchmarkSize(max_batch_rows=GPU_ROWS)
_IDENTITY = ModelIdentity("benchmark", "", "0" * 64, "unknown")


@dataclass(frozen=True)
class BenchmarkOptions:
    """What is measured, and on what.

    Attributes:
        configs: Folder with ``detector/toy_mask_rcnn.yaml``, for part ``training``.
        parts: Names from ``PARTS``.
        model: ``tiny``, a name of ``FULL_SIZE`` (random weights, nothing is downloaded), or a
            folder in diffusers' layout.
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        dtype: ``float32`` or ``bfloat16``; empty means bfloat16 on a GPU, float32 on a CPU.
        compile: Measure torch.compile as well.
        coco: A COCO folder for part ``hits``; empty draws toy pictures of 640 px.
        size: How much part ``engine`` paints; part ``hits`` takes ``images`` and ``repeats``.
        iterations: How many each loader gets in part ``training``.
        num_workers: Loader processes of each loader in part ``training``.
        entries: Sizes of the cache in part ``scale``, rising.
        out: JSON file; the plot gets the same name with ``.png``.
    """

    configs: Path
    parts: Sequence[str] = PARTS
    model: str = TINY
    device: str = "cpu"
    dtype: str = ""
    compile: bool = False
    coco: str = ""
    size: BenchmarkSize = field(default_factory=lambda: SMALL)
    iterations: int = 40
    num_workers: int = 0
    entries: Sequence[int] = (1_000, 10_000, 100_000)
    out: Path = Path("output/benchmark.json")


def default_size(model: str) -> BenchmarkSize:
    """How much is measured of a model where nothing else is asked for."""
    return SMALL if model == TINY else LARGE


def run_benchmarks(options: BenchmarkOptions) -> str:
    """Run the parts asked for, write ``options.out`` and the plot beside it.

    Returns:
        The report as Markdown.

    Raises:
        ConfigError: A part of that name does not exist.
        ModelError: The model cannot be used.
        DatasetError: The data set of part ``hits`` is unusable.
    """
    if unknown := set(options.parts) - set(PARTS):
        raise ConfigError(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    report: dict[str, Any] = {
        "machine": machine(),
        "device": _device_name(options.device),
        "threads": torch.get_num_threads(),
        "date": datetime.date.today().isoformat(),
        "arguments": asdict(options),
        "versions": versions(),
    }
    # ``hits`` comes first, so that a wrong data set ends the run before minutes of measuring.
    runners: dict[str, Callable[[BenchmarkOptions, Path], Any]] = {
        "hits": _run_hits,
        "engine": _run_engine,
        "loader": _run_loader,
        "training": _run_training,
        "scale": _run_scale,
    }
    with tempfile.TemporaryDirectory(prefix="bgaug-benchmark-") as folder:
        for part, run in runners.items():
            if part in options.parts:
                report[part] = run(options, Path(folder))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    # default=str, because the arguments hold paths.
    options.out.write_text(json.dumps(report, indent=2, default=str) + "\n")
    return to_markdown(report)


def _run_engine(options: BenchmarkOptions, folder: Path) -> dict[str, Any]:
    size, path = options.size, Path(options.model)
    if options.model == TINY:
        path = TINY_MODEL
    elif options.model in FULL_SIZE:
        path = folder / options.model
        write_full_size_model(path, FULL_SIZE[options.model])
    on_gpu = options.device.startswith("cuda")
    dtype = options.dtype or ("bfloat16" if on_gpu else "float32")
    model = load_model(path, options.device, dtype, _IDENTITY)
    found = measure_engine(model, path, size)
    one_per_call = range(size.images)
    found["trace"] = occupancy_trace(model, size, one_per_call)
    _plot_trace(found["trace"], size.max_batch_rows, options.out.with_suffix(".png"))
    found["ladder"] = measure_ladder(model, size, options.compile)
    return found | {"model": options.model, "dtype": dtype, "size": asdict(size)}


# The other parts import late: the engine can be measured where there is no Detectron2.
def _run_loader(options: BenchmarkOptions, folder: Path) -> dict[str, Any]:
    from bgaug_d2.benchmarks.loader import Pace, measure_loader
    from bgaug_d2.data.register import register_dataset

    toy = ToyConfig(image_size=320, num_train=48, num_val=1, num_test=1)
    handle = register_dataset(DatasetConfig(root=str(folder / "loader"), toy=toy))
    return {"pace": asdict(Pace()), "situations": measure_loader(handle, Pace())}


def _run_scale(options: BenchmarkOptions, folder: Path) -> list[dict[str, float]]:
    from bgaug_d2.benchmarks.hits import measure_scale

    return measure_scale(folder / "scale", options.entries)


def _run_training(options: BenchmarkOptions, folder: Path) -> dict[str, float]:
    """The toy detector on the toy world."""
    from bgaug_d2.benchmarks.training import measure_training

    detector = yaml.safe_load((options.configs / "detector" / "toy_mask_rcnn.yaml").read_text())
    experiment = ExperimentConfig(
        dataset=DatasetConfig(root=str(folder / "training"), toy=ToyConfig(num_train=64)),
        detector=DetectorConfig(detector["config_file"], "", detector["opts"]),
        schedule=ScheduleConfig(
            images_per_batch=8,
            optimizer="adamw",
            base_lr=1e-4,
            num_workers=options.num_workers,
        ),
    )
    device = "cuda" if options.device.startswith("cuda") else "cpu"
    return measure_training(experiment, device, options.iterations, folder)


def _run_hits(options: BenchmarkOptions, folder: Path) -> dict[str, Any]:
    from bgaug_d2.benchmarks.hits import measure_hits
    from bgaug_d2.data.register import check_dataset, register_dataset

    # Twice as many pictures as are measured, because some cannot be painted.
    images = options.size.images
    toy = ToyConfig(image_size=640, num_train=2 * images, num_val=1, num_test=1)
    dataset = DatasetConfig(root=str(folder / "hits"), toy=toy)
    if options.coco:
        dataset = DatasetConfig(kind="coco", root=options.coco)
    check_dataset(dataset)
    handle = register_dataset(dataset)
    return measure_hits(handle, folder, images, options.size.repeats)


def _plot_trace(trace: Sequence[tuple[int, int]], max_batch_rows: int, path: Path) -> None:
    """Rows in use over UNet calls, for requests of which one comes before each call."""
    # Not pyplot, which keeps every figure and may look for a display.
    figure = Figure(figsize=(9, 3), layout="constrained")
    axes = figure.add_subplot()
    axes.step(range(len(trace)), [used for used, _ in trace], where="post", label="rows in use")
    axes.step(range(len(trace)), [waiting for _, waiting in trace], where="post", label="waiting")
    axes.axhline(max_batch_rows, linestyle="--", color="grey", label="rows of a call")
    axes.set(xlabel="UNet call", ylabel="rows, requests", ylim=(0, None))
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


def _device_name(device: str) -> str:
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device
