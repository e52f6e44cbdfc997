"""Stage one: the autoencoder, on crops of pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tools.pretrain.loop import train

CROP = 64  # pixels; the network is convolutional, and small crops vary more per second
BATCH = 16
LEARNING_RATE = 2e-3
_KL_WEIGHT = 1e-6  # as Stable Diffusion's autoencoder


def train_autoencoder(vae: Any, images: torch.Tensor, folder: Path, steps: int, seed: int) -> None:
    """Train it, and set ``config.scaling_factor`` so that latents have variance 1.

    Args:
        vae: An AutoencoderKL.
        images: uint8 (N, 3, S, S).
        folder: For log and checkpoints.
        steps: How many in all.
        seed: Seed of crops and noise.
    """

    def step(rng: torch.Generator) -> torch.Tensor:
        crops = _random_crops(images, rng)
        posterior = vae.encode(crops).latent_dist
        latents = posterior.mean + posterior.std * torch.randn(posterior.mean.shape, generator=rng)
        decoded = vae.decode(latents).sample
        return reconstruction_loss(decoded, crops) + _KL_WEIGHT * posterior.kl().mean()

    train("vae", folder, vae, step, steps, LEARNING_RATE, seed)
    with torch.inference_mode():
        sample = torch.cat(
            [vae.encode(to_floats(each)).latent_dist.mode() for each in images[:256].split(16)]
        )
    vae.register_to_config(scaling_factor=round(float(1 / sample.std()), 4))


def reconstruction_loss(decoded: torch.Tensor, original: torch.Tensor) -> torch.Tensor:
    """Absolute error of pixels and of their differences to neighbours, which keeps edges sharp."""
    error = decoded - original  # (B, 3, S, S)
    down, right = error.diff(dim=2), error.diff(dim=3)
    return error.abs().mean() + 0.5 * (down.abs().mean() + right.abs().mean())


def to_floats(images: torch.Tensor) -> torch.Tensor:
    """uint8 to float32 in -1..1."""
    return images.float() / 127.5 - 1


def _random_crops(images: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """float32 (BATCH, 3, CROP, CROP) in -1..1, half of them mirrored."""
    numbers = torch.randint(len(images), (BATCH,), generator=rng).tolist()
    places = torch.randint(images.shape[-1] - CROP + 1, (BATCH, 2), generator=rng).tolist()
    mirrored = (torch.rand(BATCH, generator=rng) < 0.5).tolist()
    crops = []
    for number, (top, left), mirror in zip(numbers, places, mirrored, strict=True):
        crop = images[number, :, top : top + CROP, left : left + CROP]
        crops.append(crop.flip(-1) if mirror else crop)
    return to_floats(torch.stack(crops))
