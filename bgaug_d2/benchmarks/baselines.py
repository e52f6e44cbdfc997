"""The programs that a benchmark compares: diffusers' own pipeline and the engine, on one workload.

A program is a function without arguments that paints all requests.
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionInpaintPipeline

from bgaug_d2.config.recipe import RecipeConfig
from bgaug_d2.inpaint.engine import Engine
from bgaug_d2.inpaint.model.load import InpaintModel
from bgaug_d2.jobs.steps import adaptive_T_hat
from bgaug_d2.painting.engine_interface import PaintRequest

PROMPT = RecipeConfig().prompt_text
_RATIOS = (0.33, 1.0)  # background shares; with D = 0.5 mean T_hat is two thirds of T

Program = Callable[[], None]


@dataclass(frozen=True)
class BenchmarkSize:
    """How much is measured.

    Attributes:
        images: Pictures that each program paints in a turn.
        resolution: S, in pixels.
        num_inference_steps: T.
        D: Strength of the adaptive steps.
        guidance_scale: The same for all pictures.
        max_batch_rows: W of the engine.
        repeats: Turns.
    """

    images: int = 32
    resolution: int = 512
    num_inference_steps: int = 25
    D: float = 0.5
    guidance_scale: float = 7.5
    max_batch_rows: int = 32
    repeats: int = 3


def make_requests(
    size: BenchmarkSize, deepcache_interval: int = 1, seed: int = 0
) -> list[PaintRequest]:
    """Pictures of coarse noise around one object each, whose size decides T_hat."""
    rng = np.random.default_rng(seed)
    recipe = RecipeConfig(
        num_inference_steps=size.num_inference_steps,
        guidance_scale=size.guidance_scale,
        deepcache_interval=deepcache_interval,
    )
    side, requests = size.resolution, []
    for number in range(size.images):
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
                T_hat=adaptive_T_hat(size.num_inference_steps, size.D, ratio),
                seed=seed + number,
                prompt=PROMPT,
                settings=recipe.diffusion,
            )
        )
    return requests


def diffusers_pipeline(model: InpaintModel, folder: Path) -> StableDiffusionInpaintPipeline:
    """Diffusers' inpainting pipeline over the same weights, with the solver that we use."""
    pipeline = StableDiffusionInpaintPipeline.from_pretrained(
        str(folder), torch_dtype=model.dtype, local_files_only=True, safety_checker=None
    ).to(model.device)
    pipeline.scheduler = scheduler_of(model.noise_config)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def pipeline_per_image(
    pipeline: StableDiffusionInpaintPipeline, requests: Sequence[PaintRequest]
) -> Program:
    """A call per picture, in the order of the requests."""

    def paint() -> None:
        for request in requests:
            _call(pipeline, [request])

    return paint


def pipeline_grouped(
    pipeline: StableDiffusionInpaintPipeline, requests: Sequence[PaintRequest], batch: int
) -> Program:
    """Calls of at most ``batch`` pictures of one T_hat, all that the pipeline can batch."""
    groups: dict[int, list[PaintRequest]] = defaultdict(list)
    for request in requests:
        groups[request.T_hat].append(request)

    def paint() -> None:
        for group in groups.values():
            for first in range(0, len(group), batch):
                _call(pipeline, group[first : first + batch])

    return paint


def engine_all_at_once(
    model: InpaintModel, requests: Sequence[PaintRequest], max_batch_rows: int
) -> Program:
    """All requests through a new engine: it has cached nothing in earlier turns."""

    def paint() -> None:
        engine = Engine(model, max_batch_rows)
        for request in requests:
            engine.submit(request)
        _drain(engine)

    return paint


def engine_one_at_a_time(
    model: InpaintModel, requests: Sequence[PaintRequest], max_batch_rows: int
) -> Program:
    """Each request comes when the one before is answered."""

    def paint() -> None:
        engine = Engine(model, max_batch_rows)
        for request in requests:
            engine.submit(request)
            _drain(engine)

    return paint


def time_in_turns(
    model: InpaintModel, programs: Mapping[str, Program], repeats: int
) -> dict[str, float]:
    """Median seconds of each program; they take turns, after one turn to warm up."""
    seconds: dict[str, list[float]] = defaultdict(list)
    for turn in range(repeats + 1):
        for name, program in programs.items():
            took = seconds_of(model, program)
            # The first turn pays for what is done once, such as allocating memory.
            if turn:
                seconds[name].append(took)
    return {name: statistics.median(each) for name, each in seconds.items()}


def seconds_of(model: InpaintModel, work: Callable[[], Any]) -> float:
    """How long ``work`` takes, the device's part of it included."""
    began = time.perf_counter()
    work()
    if model.device.type == "cuda":  # its calls return before they are done
        torch.cuda.synchronize(model.device)
    return time.perf_counter() - began


def scheduler_of(noise_config: Mapping[str, Any]) -> DPMSolverMultistepScheduler:
    """Diffusers' DPM-Solver++(2M), spaced as the engine's."""
    return DPMSolverMultistepScheduler.from_config(
        noise_config, timestep_spacing="linspace", final_sigmas_type="zero"
    )


def _call(pipeline: StableDiffusionInpaintPipeline, group: Sequence[PaintRequest]) -> None:
    """One call for requests of one T_hat."""
    T_hat, settings, side = group[0].T_hat, group[0].settings, len(group[0].image)
    T = settings.num_inference_steps
    pixels = np.stack([each.image for each in group]).transpose(0, 3, 1, 2)  # (B, 3, S, S)
    masks = np.stack([each.painted_mask for each in group])[:, None]  # (B, 1, S, S)
    pipeline(
        prompt=[each.prompt for each in group],
        negative_prompt=[settings.negative_prompt] * len(group),
        image=torch.from_numpy(pixels).float() / 255,
        mask_image=torch.from_numpy(masks).float(),
        height=side,
        width=side,
        # It truncates T * strength: half a step more gives exactly T_hat.
        strength=1.0 if T_hat == T else (T_hat + 0.5) / T,
        num_inference_steps=T,
        guidance_scale=settings.guidance_scale,
        generator=[torch.Generator().manual_seed(each.seed) for each in group],
        output_type="np",  # arrays, as the engine gives them
    )


def _drain(engine: Engine) -> None:
    while engine.pending:
        for result in engine.poll():
            if result.error:
                # A picture that fails takes hardly any time and would make the engine look fast.
                raise RuntimeError(f"the engine could not paint: {result.error}")
