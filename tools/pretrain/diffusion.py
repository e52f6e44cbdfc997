"""Stage two: UNet and text encoder together, on the latents of pictures and their captions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMScheduler

from tools.pretrain.autoencoder import to_floats
from tools.pretrain.loop import train

BATCH = 32
LEARNING_RATE = 1e-3
PROMPT_DROPOUT = 0.1  # share of rows that learn the empty prompt, for classifier-free guidance
_SNR_LIMIT = 5.0  # Hang et al., "Efficient diffusion training via min-SNR weighting", 2023

NOISE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
}


class Denoiser(torch.nn.Module):
    """UNet and text encoder as one module, so that they are trained and saved as one."""

    def __init__(self, unet: Any, text_encoder: Any) -> None:
        super().__init__()
        self.unet = unet
        self.text_encoder = text_encoder

    def forward(
        self, latents: torch.Tensor, timesteps: torch.Tensor, tokens: torch.Tensor
    ) -> torch.Tensor:
        """The prediction of v, (B, 4, h, w); ``timesteps`` (B,), ``tokens`` (B, L), both int64."""
        embeddings = self.text_encoder(tokens)[0]
        prediction: torch.Tensor = self.unet(latents, timesteps, embeddings).sample
        return prediction


def encode_images(vae: Any, images: torch.Tensor) -> torch.Tensor:
    """Scaled latents, float32 (N, 4, S / 4, S / 4), of uint8 (N, 3, S, S)."""
    with torch.inference_mode():
        means = [vae.encode(to_floats(each)).latent_dist.mode() for each in images.split(8)]
    return torch.cat(means).clone() * vae.config.scaling_factor


def train_denoiser(
    denoiser: Denoiser,
    tokenizer: Any,
    latents: torch.Tensor,
    captions: Sequence[Sequence[str]],
    folder: Path,
    steps: int,
    seed: int,
) -> None:
    """Train it to predict v, with min-SNR weights.

    Args:
        denoiser: Trained in place.
        tokenizer: A CLIPTokenizer.
        latents: Scaled, float32 (N, 4, h, w).
        captions: For each picture, those that it may be shown with.
        folder: For log and checkpoints.
        steps: How many in all.
        seed: Seed of batches, noise, timesteps and dropped prompts.
    """
    schedule = DDPMScheduler(**NOISE)
    # Each caption is tokenised once, not in every step.
    table = {text: _tokens(tokenizer, text) for each in captions for text in ("", *each)}
    snr = schedule.alphas_cumprod / (1 - schedule.alphas_cumprod)
    weights = snr.clamp(max=_SNR_LIMIT) / (snr + 1)  # of errors of v

    def step(rng: torch.Generator) -> torch.Tensor:
        numbers = torch.randint(len(latents), (BATCH,), generator=rng)
        texts = [_choose(captions[number], rng) for number in numbers.tolist()]
        tokens = torch.stack([table[text] for text in texts])
        timesteps = torch.randint(schedule.config.num_train_timesteps, (BATCH,), generator=rng)
        clean = latents[numbers]
        noise = torch.randn(clean.shape, generator=rng)
        predicted = denoiser(schedule.add_noise(clean, noise, timesteps), timesteps, tokens)
        error = predicted - schedule.get_velocity(clean, noise, timesteps)
        return (weights[timesteps] * error.square().mean(dim=(1, 2, 3))).mean()

    train("unet", folder, denoiser, step, steps, LEARNING_RATE, seed)


def _tokens(tokenizer: Any, text: str) -> torch.Tensor:
    """int64 (L,), padded as it is in painting."""
    encoded = tokenizer(text, padding="max_length", truncation=True)
    return torch.tensor(encoded.input_ids)


def _choose(captions: Sequence[str], rng: torch.Generator) -> str:
    if float(torch.rand((), generator=rng)) < PROMPT_DROPOUT:
        return ""
    return captions[int(torch.randint(len(captions), (), generator=rng))]
