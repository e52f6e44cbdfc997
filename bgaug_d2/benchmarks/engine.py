"""The engine against diffusers' own pipeline: same weights, pictures, T_hat and number format.

Everything is measured in one process; the contestants take turns, and medians are given, so that
other work on the machine hits all of them alike.
"""

from __future__ import annotations

import copy
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from bgaug_d2.benchmarks.baselines import (
    PROMPT,
    Effort,
    grouped,
    in_turns,
    make_requests,
    one_at_a_time,
    ours,
    scheduler_of,
    seconds_of,
    stock_pipeline,
)
from bgaug_d2.inpaint.denoise.compiled_unet import compiled
from bgaug_d2.inpaint.denoise.dpm_solver import advance, solver_table
from bgaug_d2.inpaint.denoise.unet_calls import predict
from bgaug_d2.inpaint.denoise.vae import decode, encode
from bgaug_d2.inpaint.engine import Engine
from bgaug_d2.inpaint.model.load import InpaintModel
from bgaug_d2.painting.engine_interface import PaintRequest

GROUPS = (1, 4, 8, 16)  # batch sizes of the grouped pipeline, of which the best counts


def measure_engine(model: InpaintModel, folder: Path, effort: Effort) -> dict[str, Any]:
    """Rates of the pipeline, a call per picture and grouped by T_hat, and of the engine.

    Args:
        model: Loaded from ``folder``.
        folder: The model's; the pipeline loads the same weights from it.
        effort: How much.

    Returns:
        ``stock_per_image``, ``stock_grouped`` and ``ours`` with ``images_per_s``, ``rows_per_s``,
        ``tflops`` and ``share`` of the measured matrix-product rate; ``images_per_s`` of
        ``ours_whole_every_2``, which computes less and changes the pictures a little; ``speedup``
        of ``ours`` over both and of ``ours_whole_every_2`` over ``stock_per_image``; what the
        numbers are about.
    """
    requests = make_requests(effort)
    pipeline = stock_pipeline(model, folder)
    best = min(GROUPS, key=lambda size: seconds_of(model, grouped(pipeline, requests, size)))
    contestants = {
        "stock_per_image": grouped(pipeline, requests, 1, by_T_hat=False),
        "stock_grouped": grouped(pipeline, requests, best),
        "ours": ours(model, requests, effort.rows),
        "ours_whole_every_2": ours(model, every_2nd(requests), effort.rows),
    }
    seconds = in_turns(model, contestants, effort.repeats)
    flops = count_flops(model, effort.resolution)
    rows = sum(2 * each.T_hat for each in requests)
    work = rows * flops["row"] + len(requests) * (flops["encode"] + flops["decode"])
    peak = matmul_tflops(model)
    found: dict[str, Any] = {
        name: {
            "images_per_s": len(requests) / each,
            "rows_per_s": rows / each,
            "tflops": work / each / 1e12,
            "share": work / each / 1e12 / peak,
        }
        for name, each in seconds.items()
        if name != "ours_whole_every_2"  # it does less work
    }
    quick = seconds["ours_whole_every_2"]
    found["ours_whole_every_2"] = {"images_per_s": len(requests) / quick}
    found["stock_grouped"]["batch_size"] = best
    found["speedup"] = {
        "per_image": seconds["stock_per_image"] / seconds["ours"],
        "grouped": seconds["stock_grouped"] / seconds["ours"],
        "whole_every_2": seconds["stock_per_image"] / quick,
    }
    histogram = Counter(each.T_hat for each in requests)
    T_hats = [each.T_hat for each in requests]
    return found | {
        "solver_max_rel_error": solver_error(model.noise_config, effort.steps, T_hats),
        "matmul_tflops": peak,
        "gflop": {name: each / 1e9 for name, each in flops.items()},
        "T_hat": {
            "mean": statistics.mean(T_hats),
            "histogram": {str(step): histogram[step] for step in sorted(histogram)},
        },
    }


def measure_ladder(model: InpaintModel, effort: Effort, with_compiled: bool) -> dict[str, float]:
    """Pictures a second with more and more optimisations, full calls and one picture at a time.

    Fewer whole calls change the pictures a little; they do not go with a compiled UNet.

    Args:
        model: A loaded model.
        effort: How much.
        with_compiled: Have rungs with torch.compile and, on a GPU, with CUDA graphs.
    """
    requests = make_requests(effort)
    # A quarter of them, of all lengths: one by one they take long.
    few = sorted(requests, key=lambda each: each.T_hat)[len(requests) // 8 :: 4]
    alone = {"one picture at a time": one_at_a_time(model, few, effort.rows)}
    full = {
        "continuous batching": ours(model, requests, effort.rows),
        "whole UNet at every 2nd step": ours(model, every_2nd(requests), effort.rows),
    }
    if with_compiled:
        quick = _compiled_copy(model, effort)
        alone["one at a time, torch.compile"] = one_at_a_time(quick, few, effort.rows)
        full["channels_last and torch.compile"] = ours(quick, requests, effort.rows)
        if model.device.type == "cuda":
            graphs = _compiled_copy(model, effort, cuda_graphs=True)
            alone["one at a time, CUDA graphs"] = one_at_a_time(graphs, few, effort.rows)
    seconds = in_turns(model, alone | full, effort.repeats)
    return {
        name: (len(few) if name in alone else len(requests)) / each
        for name, each in seconds.items()
    }


def _compiled_copy(model: InpaintModel, effort: Effort, cuda_graphs: bool = False) -> InpaintModel:
    """With weights of its own: compiling lays them out anew, and the other rungs use the old."""
    apart = replace(model, unet=copy.deepcopy(model.unet))
    return compiled(apart, effort.rows, effort.resolution, cuda_graphs)


def every_2nd(requests: Sequence[PaintRequest]) -> list[PaintRequest]:
    """The same with the whole UNet at every second step, see ``reuse``."""
    return [replace(each, whole_every=2) for each in requests]


def occupancy_trace(
    model: InpaintModel, effort: Effort, arrivals: Sequence[int]
) -> list[tuple[int, int]]:
    """Rows in use and requests waiting at each call, for requests that come one by one.

    Args:
        model: A loaded model.
        effort: Its ``images`` is the number of ``arrivals``.
        arrivals: The call before which each request comes, rising.
    """
    engine = Engine(model, effort.rows)
    coming = list(zip(arrivals, make_requests(effort), strict=True))
    trace: list[tuple[int, int]] = []
    while coming or engine.pending:
        while coming and (coming[0][0] <= len(trace) or not engine.pending):
            engine.submit(coming.pop(0)[1])
        before = engine.meter.read().rows
        engine.poll()
        trace.append((engine.meter.read().rows - before, int(engine.metrics()["queue"] or 0)))
    return trace


def solver_error(noise_config: dict[str, Any], steps: int, T_hats: Sequence[int]) -> float:
    """Largest error of our solver against a diffusers scheduler per picture, relative to its end.

    Each picture starts at its own step; a smooth function stands in for the UNet. float32.
    """
    table = solver_table(noise_config, steps, "linspace")
    worst = 0.0
    for number, T_hat in enumerate(T_hats):
        scheduler = scheduler_of(noise_config)
        scheduler.set_timesteps(timesteps=list(table.timesteps))
        scheduler.set_begin_index(steps - T_hat)
        generator = torch.Generator().manual_seed(number)
        theirs = ours = previous = torch.randn((1, 4, 8, 8), generator=generator)
        for index in range(steps - T_hat, steps):
            told = table.timesteps[index]
            lines = table.first_steps if index == steps - T_hat else table.steps
            line = torch.from_numpy(lines[index])[None]
            ours, previous = advance(ours, previous, _stand_in(ours, told), line)
            theirs = scheduler.step(_stand_in(theirs, told), told, theirs, return_dict=False)[0]
        worst = max(worst, float((ours - theirs).abs().max() / theirs.abs().max()))
    return worst


@torch.inference_mode()
def count_flops(model: InpaintModel, resolution: int) -> dict[str, int]:
    """Floating-point operations of a UNet row, of encoding and of decoding one picture."""
    cells = resolution // model.vae_factor
    latents = torch.zeros((1, model.latent_channels, cells, cells), device=model.device)
    inputs = torch.zeros((1, model.unet_in_channels, cells, cells), device=model.device)
    pixels = torch.zeros((1, 3, resolution, resolution), device=model.device)
    told = torch.full((1,), 500, device=model.device)
    texts = model.prompts([PROMPT])
    parts: dict[str, Callable[[], Any]] = {
        "row": lambda: predict(model, inputs.to(model.dtype), told, texts),
        "encode": lambda: encode(model, pixels),
        "decode": lambda: decode(model, latents),
    }
    counts = {}
    for name, work in parts.items():
        with FlopCounterMode(display=False) as counter:
            work()
        counts[name] = int(counter.get_total_flops())
    return counts


@torch.inference_mode()
def matmul_tflops(model: InpaintModel) -> float:
    """The device's rate for large square matrix products in the model's number format."""
    size = 8192 if model.device.type == "cuda" else 1536
    a, b = (torch.randn(size, size, device=model.device).to(model.dtype) for _ in range(2))
    best = min(seconds_of(model, lambda: torch.matmul(a, b)) for _ in range(10))
    return 2 * size**3 / best / 1e12


def _stand_in(latents: torch.Tensor, timestep: int) -> torch.Tensor:
    return torch.tanh(latents * (0.6 + timestep / 2000)) + timestep / 4000
