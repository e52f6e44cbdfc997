"""The engine against diffusers' own pipeline: same weights, pictures, T_hat and number format.

Everything is measured in one process; the contestants take turns, and medians are given, so that
other work on the machine hits all of them alike.
"""

from __future__ import annotations

import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionInpaintPipeline
from torch.utils.flop_counter import FlopCounterMode

from bgaug_d2.inpaint.autoencoder import decode, encode
from bgaug_d2.inpaint.engine import Engine
from bgaug_d2.inpaint.models import InpaintModel
from bgaug_d2.inpaint.painter import predict
from bgaug_d2.inpaint.solver import advance, solver_table
from bgaug_d2.paint_request import PaintRequest
from bgaug_d2.steps import adaptive_T_hat

GROUPS = (1, 4, 8, 16)  # batch sizes of the grouped pipeline, of which the best counts
PROMPT = "Generate a clean background"
_RATIOS = (0.33, 1.0)  # background shares; with D = 0.5 mean T_hat is two thirds of T


@dataclass(frozen=True)
class Effort:
    """What is measured.

    Attributes:
        images: Pictures that each contestant paints in a turn.
        resolution: S, in pixels.
        steps: T.
        D: Of the adaptive steps.
        guidance_scale: Of all pictures.
        rows: W of the engine.
        repeats: Turns.
    """

    images: int = 32
    resolution: int = 512
    steps: int = 25
    D: float = 0.5
    guidance_scale: float = 7.5
    rows: int = 32
    repeats: int = 3


def make_requests(effort: Effort, seed: int = 0) -> list[PaintRequest]:
    """Pictures of coarse noise around one object each, whose size decides T_hat."""
    rng = np.random.default_rng(seed)
    side, requests = effort.resolution, []
    for number in range(effort.images):
        ratio = float(rng.uniform(*_RATIOS))
        coarse = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        image = np.ascontiguousarray(coarse.repeat(side // 8, 0).repeat(side // 8, 1))
        mask = np.ones((side, side), bool)
        edge = round(side * (1 - ratio) ** 0.5)
        mask[:edge, :edge] = False
        requests.append(
            PaintRequest(
                request_id=str(number),
                image=image,
                painted_mask=mask,
                T_hat=adaptive_T_hat(effort.steps, effort.D, ratio),
                seed=seed + number,
                prompt=PROMPT,
                negative_prompt="",
                guidance_scale=effort.guidance_scale,
                guidance_interval=(0.0, 1.0),
                solver_order=2,
                whole_every=1,
                num_inference_steps=effort.steps,
                timestep_spacing="linspace",
            )
        )
    return requests


def measure_engine(model: InpaintModel, folder: Path, effort: Effort) -> dict[str, Any]:
    """Rates of the pipeline, a call per picture and grouped by T_hat, and of the engine.

    Args:
        model: Loaded from ``folder``.
        folder: The model's; the pipeline loads the same weights from it.
        effort: How much.

    Returns:
        ``stock_per_image``, ``stock_grouped`` and ``ours`` with ``images_per_s``, ``rows_per_s``,
        ``tflops`` and ``share`` of the measured matrix-product rate; ``speedup``; what the numbers
        are about.
    """
    requests = make_requests(effort)
    pipeline = stock_pipeline(model, folder, effort)
    best = min(GROUPS, key=lambda size: _seconds(model, _grouped(pipeline, requests, size)))
    contestants = {
        "stock_per_image": _grouped(pipeline, requests, 1, by_T_hat=False),
        "stock_grouped": _grouped(pipeline, requests, best),
        "ours": _ours(model, requests, effort.rows),
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
    }
    found["stock_grouped"]["batch_size"] = best
    found["speedup"] = {
        "per_image": seconds["stock_per_image"] / seconds["ours"],
        "grouped": seconds["stock_grouped"] / seconds["ours"],
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


def measure_ladder(
    model: InpaintModel, effort: Effort, compiled: Callable[[InpaintModel], InpaintModel] | None
) -> dict[str, float]:
    """Pictures a second as one optimisation after another is switched on.

    Fewer whole calls change the pictures a little; they do not go with ``compiled``.

    Args:
        model: A loaded model.
        effort: How much.
        compiled: Makes the model of the last rung; None leaves that out.
    """
    requests = make_requests(effort)
    outer = [replace(each, whole_every=2) for each in requests]
    rungs: dict[str, Callable[[], None]] = {
        "one picture at a time": _ours(model, requests, 2),
        "continuous batching": _ours(model, requests, effort.rows),
        "whole UNet at every 2nd step": _ours(model, outer, effort.rows),
    }
    if compiled is not None:
        quick = compiled(model)
        rungs["channels_last and torch.compile"] = _ours(quick, requests, effort.rows, static=True)
    seconds = in_turns(model, rungs, effort.repeats)
    return {name: len(requests) / each for name, each in seconds.items()}


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
        scheduler = _scheduler(noise_config)
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


def stock_pipeline(
    model: InpaintModel, folder: Path, effort: Effort
) -> StableDiffusionInpaintPipeline:
    """Diffusers' inpainting pipeline over the same weights, with the solver that we use."""
    pipeline = StableDiffusionInpaintPipeline.from_pretrained(
        str(folder), torch_dtype=model.dtype, local_files_only=True, safety_checker=None
    ).to(model.device)
    pipeline.scheduler = _scheduler(model.noise_config)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def in_turns(
    model: InpaintModel, contestants: dict[str, Callable[[], None]], repeats: int
) -> dict[str, float]:
    """Median seconds of each, taking turns after one turn to warm up."""
    seconds: dict[str, list[float]] = defaultdict(list)
    for turn in range(repeats + 1):
        for name, work in contestants.items():
            took = _seconds(model, work)
            if turn:
                seconds[name].append(took)
    return {name: statistics.median(each) for name, each in seconds.items()}


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
    best = min(_seconds(model, lambda: torch.matmul(a, b)) for _ in range(10))
    return 2 * size**3 / best / 1e12


def _grouped(
    pipeline: StableDiffusionInpaintPipeline,
    requests: Sequence[PaintRequest],
    size: int,
    by_T_hat: bool = True,
) -> Callable[[], None]:
    """Calls of at most ``size`` pictures of one T_hat, or one by one in the order of requests."""
    groups: dict[Any, list[PaintRequest]] = defaultdict(list)
    for number, request in enumerate(requests):
        groups[request.T_hat if by_T_hat else number].append(request)

    def work() -> None:
        for group in groups.values():
            for first in range(0, len(group), size):
                _call(pipeline, group[first : first + size])

    return work


def _call(pipeline: StableDiffusionInpaintPipeline, group: Sequence[PaintRequest]) -> None:
    first = group[0]
    side = len(first.image)
    whole = first.T_hat == first.num_inference_steps
    pixels = np.stack([each.image for each in group]).transpose(0, 3, 1, 2)
    masks = np.stack([each.painted_mask for each in group])[:, None]
    pipeline(
        prompt=[each.prompt for each in group],
        negative_prompt=[each.negative_prompt for each in group],
        image=torch.from_numpy(pixels).float() / 255,
        mask_image=torch.from_numpy(masks).float(),
        height=side,
        width=side,
        # It truncates T * strength: half a step more gives exactly T_hat.
        strength=1.0 if whole else (first.T_hat + 0.5) / first.num_inference_steps,
        num_inference_steps=first.num_inference_steps,
        guidance_scale=first.guidance_scale,
        generator=[torch.Generator().manual_seed(each.seed) for each in group],
        output_type="np",
    )


def _ours(
    model: InpaintModel, requests: Sequence[PaintRequest], rows: int, static: bool = False
) -> Callable[[], None]:
    def work() -> None:
        engine = Engine(model, rows, static)  # a new one: nothing is remembered from earlier turns
        for request in requests:
            engine.submit(request)
        while engine.pending:
            for result in engine.poll():
                if result.error:
                    raise RuntimeError(f"the engine could not paint: {result.error}")

    return work


def _seconds(model: InpaintModel, work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)
    return time.perf_counter() - began


def _scheduler(noise_config: dict[str, Any]) -> DPMSolverMultistepScheduler:
    return DPMSolverMultistepScheduler.from_config(
        noise_config, timestep_spacing="linspace", final_sigmas_type="zero"
    )


def _stand_in(latents: torch.Tensor, timestep: int) -> torch.Tensor:
    return torch.tanh(latents * (0.6 + timestep / 2000)) + timestep / 4000
