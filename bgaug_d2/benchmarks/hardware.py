"""Work of the model and rate of the device, to say how much of the machine an engine uses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from bgaug_d2.benchmarks.baselines import PROMPT, seconds_of
from bgaug_d2.inpaint.denoise.unet_calls import predict
from bgaug_d2.inpaint.denoise.vae import decode, encode
from bgaug_d2.inpaint.model.load import InpaintModel


@torch.inference_mode()
def count_flops(model: InpaintModel, resolution: int) -> dict[str, int]:
    """Floating-point operations of one UNet ``row``, and of one picture's ``encode``, ``decode``.

    Args:
        model: A loaded model.
        resolution: S, in pixels.
    """
    cells = resolution // model.vae_factor
    latents = torch.zeros((1, model.latent_channels, cells, cells), device=model.device)
    inputs = torch.zeros((1, model.unet_in_channels, cells, cells), device=model.device)
    pixels = torch.zeros((1, 3, resolution, resolution), device=model.device)
    timesteps = torch.full((1,), 500, device=model.device)
    embeddings = model.prompts([PROMPT])
    parts: dict[str, Callable[[], Any]] = {
        "row": lambda: predict(model, inputs.to(model.dtype), timesteps, embeddings),
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
    # At 0.1 TFLOP/s (docs/benchmarks.md) a CPU would need 11 s for each product of the GPU's size.
    size = 8192 if model.device.type == "cuda" else 1536
    a, b = (torch.randn(size, size, device=model.device).to(model.dtype) for _ in range(2))
    # The best of ten: other work on the machine can only make it slower.
    best = min(seconds_of(model, lambda: torch.matmul(a, b)) for _ in range(10))
    return 2 * size**3 / best / 1e12
