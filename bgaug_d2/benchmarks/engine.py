"""The engine against diffusers' own pipeline: same weights, pictures, T_hat and number format.

Everything is measured in one process. The programs take turns, and medians are given, so that other
work on the machine hits all of them alike.
"""

from __future__ import annotations

import copy
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from bgaug_d2.benchmarks.baselines import (
    BenchmarkSize,
    diffusers_pipeline,
    engine_all_at_once,
    engine_one_at_a_time,
    make_requests,
    pipeline_grouped,
    pipeline_per_image,
    scheduler_of,
    seconds_of,
    time_in_turns,
)
from bgaug_d2.benchmarks.hardware import count_flops, matmul_tflops
from bgaug_d2.inpaint.denoise.compiled_unet import compiled
from bgaug_d2.inpaint.denoise.dpm_solver import advance, solver_table
from bgaug_d2.inpaint.engine import Engine
from bgaug_d2.inpaint.model.load import InpaintModel
from bgaug_d2.painting.engine_interface import PaintRequest

BATCH_SIZES = (1, 4, 8, 16)  # of the grouped pipeline, of which the best counts


def measure_engine(model: InpaintModel, folder: Path, size: BenchmarkSize) -> dict[str, Any]:
    """Rates of the pipeline, a call per picture and grouped by T_hat, and of the engine.

    Args:
        model: Loaded from ``folder``.
        folder: The model's; the pipeline loads the same weights from it.
        size: How much.

    Returns:
        ``diffusers_per_image``, ``diffusers_grouped`` and ``engine`` with ``images_per_s``,
        ``rows_per_s``, ``tflops`` and ``share`` of the measured matrix-product rate;
        ``images_per_s`` of ``engine_deepcache``, which computes less and changes the pictures a
        little; ``speedup`` of ``engine`` over both, and of ``engine_deepcache`` over
        ``diffusers_per_image``; and what the numbers are about.
    """
    requests, quick_requests = make_requests(size), make_requests(size, deepcache_interval=2)
    pipeline = diffusers_pipeline(model, folder)
    # The pipeline gets the batch size that suits it best, so that it is not beaten unfairly.
    best = min(
        BATCH_SIZES, key=lambda n: seconds_of(model, pipeline_grouped(pipeline, requests, n))
    )
    programs = {
        "diffusers_per_image": pipeline_per_image(pipeline, requests),
        "diffusers_grouped": pipeline_grouped(pipeline, requests, best),
        "engine": engine_all_at_once(model, requests, size.max_batch_rows),
        "engine_deepcache": engine_all_at_once(model, quick_requests, size.max_batch_rows),
    }
    seconds = time_in_turns(model, programs, size.repeats)
    quick = seconds.pop("engine_deepcache")  # does less work, so the rates below would mislead
    found = _rates(model, requests, seconds)
    found["engine_deepcache"] = {"images_per_s": len(requests) / quick}
    found["diffusers_grouped"]["batch_size"] = best
    found["speedup"] = {
        "per_image": seconds["diffusers_per_image"] / seconds["engine"],
        "grouped": seconds["diffusers_grouped"] / seconds["engine"],
        "deepcache": seconds["diffusers_per_image"] / quick,
    }
    T_hats = [each.T_hat for each in requests]
    histogram = Counter(T_hats)
    return found | {
        "solver_max_rel_error": solver_error(model.noise_config, size.num_inference_steps, T_hats),
        "T_hat": {
            "mean": statistics.mean(T_hats),
            "histogram": {str(step): histogram[step] for step in sorted(histogram)},
        },
    }


def _rates(
    model: InpaintModel, requests: Sequence[PaintRequest], seconds: Mapping[str, float]
) -> dict[str, Any]:
    """Rates of programs that do all the work of the requests, and what the device could do."""
    flops = count_flops(model, len(requests[0].image))
    peak = matmul_tflops(model)
    rows = sum(2 * each.T_hat for each in requests)  # two guidance branches
    work = rows * flops["row"] + len(requests) * (flops["encode"] + flops["decode"])
    rates: dict[str, Any] = {
        name: {
            "images_per_s": len(requests) / each,
            "rows_per_s": rows / each,
            "tflops": work / each / 1e12,
            "share": work / each / 1e12 / peak,
        }
        for name, each in seconds.items()
    }
    gflop = {name: each / 1e9 for name, each in flops.items()}
    return rates | {"matmul_tflops": peak, "gflop": gflop}


def measure_ladder(
    model: InpaintModel, size: BenchmarkSize, with_compiled: bool
) -> dict[str, float]:
    """Pictures a second with more and more optimisations, full calls and one picture at a time.

    DeepCache changes the pictures a little; it does not go with a compiled UNet.

    Args:
        model: A loaded model.
        size: How much.
        with_compiled: Add rungs with torch.compile and, on a GPU, with CUDA graphs.
    """
    requests, rows = make_requests(size), size.max_batch_rows
    quick_requests = make_requests(size, deepcache_interval=2)
    # A quarter of them, of all lengths: one by one they take long.
    few = sorted(requests, key=lambda each: each.T_hat)[len(requests) // 8 :: 4]
    alone = {"one picture at a time": engine_one_at_a_time(model, few, rows)}
    full = {
        "continuous batching": engine_all_at_once(model, requests, rows),
        "whole UNet every 2nd step": engine_all_at_once(model, quick_requests, rows),
    }
    if with_compiled:
        fast = _compiled_copy(model, size)
        alone["one at a time, torch.compile"] = engine_one_at_a_time(fast, few, rows)
        full["channels_last and torch.compile"] = engine_all_at_once(fast, requests, rows)
        if model.device.type == "cuda":
            graphs = _compiled_copy(model, size, cuda_graphs=True)
            alone["one at a time, CUDA graphs"] = engine_one_at_a_time(graphs, few, rows)
    seconds = time_in_turns(model, alone | full, size.repeats)
    return {
        name: (len(few) if name in alone else len(requests)) / each
        for name, each in seconds.items()
    }


def _compiled_copy(
    model: InpaintModel, size: BenchmarkSize, cuda_graphs: bool = False
) -> InpaintModel:
    """A compiled copy with own weights: compiling changes their layout, others use the old one."""
    apart = replace(model, unet=copy.deepcopy(model.unet))
    return compiled(apart, size.max_batch_rows, size.resolution, cuda_graphs)


def occupancy_trace(
    model: InpaintModel, size: BenchmarkSize, arrivals: Sequence[int]
) -> list[tuple[int, int]]:
    """Rows in use and requests waiting at each call, for requests that come one by one.

    Args:
        model: A loaded model.
        size: Its ``images`` is the number of ``arrivals``.
        arrivals: The call before which each request comes, rising.
    """
    engine = Engine(model, size.max_batch_rows)
    coming = list(zip(arrivals, make_requests(size), strict=True))
    trace: list[tuple[int, int]] = []
    while coming or engine.pending:
        # An idle engine makes no call, and without calls no request would ever be due.
        while coming and (coming[0][0] <= len(trace) or not engine.pending):
            engine.submit(coming.pop(0)[1])
        before = engine.meter.read().rows
        engine.poll()
        trace.append((engine.meter.read().rows - before, int(engine.metrics()["queue"] or 0)))
    return trace


def solver_error(noise_config: dict[str, Any], T: int, T_hats: Sequence[int]) -> float:
    """Largest error of our solver against a diffusers scheduler per picture, relative to its end.

    Each picture starts at its own step; a smooth function stands in for the UNet. float32.

    Args:
        noise_config: ``InpaintModel.noise_config``.
        T: Length of the full schedule.
        T_hats: Steps of each picture.
    """
    table = solver_table(noise_config, T, "linspace")
    worst = 0.0
    for number, T_hat in enumerate(T_hats):
        scheduler = scheduler_of(noise_config)
        scheduler.set_timesteps(timesteps=list(table.timesteps))
        scheduler.set_begin_index(T - T_hat)
        generator = torch.Generator().manual_seed(number)
        theirs = ours = previous_x0 = torch.randn((1, 4, 8, 8), generator=generator)
        for index in range(T - T_hat, T):
            timestep = table.timesteps[index]
            steps = table.first_steps if index == T - T_hat else table.steps
            coefficients = torch.from_numpy(steps[index])[None]  # (1, 7)
            # Each solver goes on from its own latents, so that errors add up as in painting.
            prediction = _stand_in(ours, timestep)
            ours, previous_x0 = advance(ours, previous_x0, prediction, coefficients)
            theirs = scheduler.step(
                _stand_in(theirs, timestep), timestep, theirs, return_dict=False
            )[0]
        worst = max(worst, float((ours - theirs).abs().max() / theirs.abs().max()))
    return worst


def _stand_in(latents: torch.Tensor, timestep: int) -> torch.Tensor:
    return torch.tanh(latents * (0.6 + timestep / 2000)) + timestep / 4000
