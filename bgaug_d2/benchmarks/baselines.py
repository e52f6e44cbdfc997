"""What paints in a benchmark: diffusers' own pipeline, and the engine, on the same requests."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionInpaintPipeline

from bgaug_d2.inpaint.engine import Engine
from bgaug_d2.inpaint.model.load import InpaintModel
from bgaug_d2.jobs.steps import adaptive_T_hat
from bgaug_d2.painting.engine_interface import PaintRequest

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


def stock_pipeline(model: InpaintModel, folder: Path) -> StableDiffusionInpaintPipeline:
    """Diffusers' inpainting pipeline over the same weights, with the solver that we use."""
    pipeline = StableDiffusionInpaintPipeline.from_pretrained(
        str(folder), torch_dtype=model.dtype, local_files_only=True, safety_checker=None
    ).to(model.device)
    pipeline.scheduler = scheduler_of(model.noise_config)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def in_turns(
    model: InpaintModel, contestants: dict[str, Callable[[], None]], repeats: int
) -> dict[str, float]:
    """Median seconds of each, taking turns after one turn to warm up."""
    seconds: dict[str, list[float]] = defaultdict(list)
    for turn in range(repeats + 1):
        for name, work in contestants.items():
            took = seconds_of(model, work)
            if turn:
                seconds[name].append(took)
    return {name: statistics.median(each) for name, each in seconds.items()}


def grouped(
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


def ours(model: InpaintModel, requests: Sequence[PaintRequest], rows: int) -> Callable[[], None]:
    """All requests through a new engine: nothing is remembered from earlier turns."""

    def work() -> None:
        engine = Engine(model, rows)
        for request in requests:
            engine.submit(request)
        _drain(engine)

    return work


def one_at_a_time(
    model: InpaintModel, requests: Sequence[PaintRequest], rows: int
) -> Callable[[], None]:
    """As ``ours``, where each request comes when the one before is answered."""

    def work() -> None:
        engine = Engine(model, rows)
        for request in requests:
            engine.submit(request)
            _drain(engine)

    return work


def _drain(engine: Engine) -> None:
    while engine.pending:
        for result in engine.poll():
            if result.error:
                raise RuntimeError(f"the engine could not paint: {result.error}")


def seconds_of(model: InpaintModel, work: Callable[[], Any]) -> float:
    """How long ``work`` takes, the device's part of it included."""
    began = time.perf_counter()
    work()
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)
    return time.perf_counter() - began


def scheduler_of(noise_config: dict[str, Any]) -> DPMSolverMultistepScheduler:
    """Diffusers' DPM-Solver++(2M), spaced as the engine's."""
    return DPMSolverMultistepScheduler.from_config(
        noise_config, timestep_spacing="linspace", final_sigmas_type="zero"
    )
