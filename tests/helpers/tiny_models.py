"""Tiny real models with RANDOM WEIGHTS, and requests, for the tests of ``bgaug_d2.inpaint``."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from bgaug_d2.benchmarks.random_model import write_random_model
from bgaug_d2.config.recipe import DiffusionSettings
from bgaug_d2.inpaint.denoise.dpm_solver import SolverTable, solver_table
from bgaug_d2.inpaint.denoise.trajectory import denoise_step, start_trajectory
from bgaug_d2.inpaint.denoise.vae import decode_to_uint8, encode_image
from bgaug_d2.inpaint.engine import Engine
from bgaug_d2.inpaint.model.identity import RANDOM_LICENSE
from bgaug_d2.inpaint.model.load import InpaintModel, load_model
from bgaug_d2.jobs.job import ModelIdentity
from bgaug_d2.painting.engine_interface import PaintRequest, PaintResult

IDENTITY = ModelIdentity("random", "", "ab" * 32, RANDOM_LICENSE)


@cache
def tiny_folder(unet_channels: int = 4, prediction_type: str = "v_prediction") -> Path:
    """A folder that tests must not change (copy it first)."""
    folder = Path(tempfile.mkdtemp(prefix="bgaug-tiny-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    write_random_model(folder, unet_channels, prediction_type)
    return folder


@cache
def tiny_loaded(
    unet_channels: int = 4, prediction_type: str = "v_prediction", dtype: str = "float32"
) -> InpaintModel:
    """A model that tests must not change (``with_unet`` makes a changed copy)."""
    return load_model(tiny_folder(unet_channels, prediction_type), "cpu", dtype, IDENTITY)


def with_unet(model: InpaintModel, call: Callable[..., tuple[torch.Tensor]]) -> InpaintModel:
    """The model with ``call(unet, rows, timesteps, **rest)`` in the UNet's place."""

    class Replaced(SimpleNamespace):
        def __call__(self, *args: Any, **rest: Any) -> tuple[torch.Tensor]:
            return call(model.unet, *args, **rest)

    return replace(model, unet=Replaced(config=model.unet.config))


def make_image(seed: int = 0, side: int = 64) -> np.ndarray:
    """Smooth colours, uint8 RGB (side, side, 3)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return np.ascontiguousarray(coarse.repeat(side // 4, 0).repeat(side // 4, 1))


def make_mask(side: int = 64) -> np.ndarray:
    """Background around an object that does not end at cell borders, bool (side, side)."""
    painted_mask = np.ones((side, side), dtype=bool)
    painted_mask[side // 4 + 1 : side // 2 + 2, side // 3 : side // 3 + side // 4] = False
    return painted_mask


SETTINGS = DiffusionSettings(
    num_inference_steps=6,
    timestep_spacing="linspace",
    solver_order=2,
    deepcache_interval=1,
    guidance_scale=7.5,
    guidance_interval=(0.0, 1.0),
    negative_prompt="",
)


def make_request(request_id: str = "a/0", side: int = 64, **changes: Any) -> PaintRequest:
    """A request; ``changes`` are fields of it or of its settings."""
    names = {each.name for each in fields(DiffusionSettings)} & set(changes)
    settings = replace(SETTINGS, **{name: changes.pop(name) for name in names})
    defaults: dict[str, Any] = {
        "request_id": request_id,
        "image": make_image(side=side),
        "painted_mask": make_mask(side),
        "T_hat": 4,
        "seed": 1,
        "prompt": "Generate a clean background",
        "settings": settings,
    }
    return PaintRequest(**defaults | changes)


def no_count() -> None:
    """For calls that take a function to call after each step."""


def denoise(
    model: InpaintModel, requests: Sequence[PaintRequest], on_step: Callable[[], None] = no_count
) -> torch.Tensor:
    """Clean latents (B, C, h, w) of requests that are denoised together."""
    trajectories = [
        start_trajectory(model, each, table_of(model, each), encode_image) for each in requests
    ]
    while under_way := [each for each in trajectories if not each.done]:
        denoise_step(model, under_way)
        on_step()
    return torch.stack([each.latents for each in trajectories])


def paint(
    model: InpaintModel, requests: Sequence[PaintRequest], on_step: Callable[[], None] = no_count
) -> list[np.ndarray | None]:
    images, finite = decode_to_uint8(model, denoise(model, requests, on_step))
    return [image if good else None for image, good in zip(images.numpy(), finite, strict=True)]


def table_of(model: InpaintModel, request: PaintRequest) -> SolverTable:
    schedule = request.settings.num_inference_steps, request.settings.timestep_spacing
    return solver_table(model.noise_config, *schedule)


def drain(engine: Engine) -> dict[str, PaintResult]:
    """All results by request."""
    results: dict[str, PaintResult] = {}
    for _ in range(50):
        for result in engine.poll():
            assert result.request_id not in results
            results[result.request_id] = result
        if not engine.pending:
            return results
    raise AssertionError(f"{engine.pending} requests stay pending")
