"""A small model with random weights in Stable Diffusion's layout, for tests and for timing.

Its pictures are colour noise, yet varied enough to pass the quality check: weights keep the
variance from layer to layer (diffusers' own initial weights decode to near grey), the last layer of
the decoder is scaled so that pixels use most of their range, and the model predicts v, with which a
small output leaves latents at unit variance (with epsilon they would grow by a factor of 15).
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bgaug_d2.inpaint.model.identity import RANDOM_LICENSE
from bgaug_d2.inpaint.model.write import END, START, write_model, write_tokenizer

CROSS_ATTENTION_DIM = 32
UNET_GAIN = 0.3  # v stays small beside the latents even at guidance 7.5
DECODER_GAIN = 0.8
LATENT_SCALE = 2.0  # latents of photographs get a standard deviation of about 1

_CARD = f"""---
license: other
license_name: random-weights
---
# {RANDOM_LICENSE}

This model is not trained. It has the parts and the layout of Stable Diffusion and paints colour
noise; it exists so that software can be tested and timed. Written by
`bgaug_d2.benchmarks.random_model`.
"""


def write_random_model(
    folder: Path, unet_channels: int = 4, prediction_type: str = "v_prediction", seed: int = 0
) -> None:
    """Write a small model into a folder; the same arguments give the same bytes.

    Args:
        folder: Created when missing.
        unet_channels: 4 (eq. 2 blending) or 9 (inpainting UNet).
        prediction_type: ``epsilon`` or ``v_prediction``.
        seed: Seed of the weights, which NumPy draws by parameter name.
    """
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    folder.mkdir(parents=True, exist_ok=True)
    parts = _networks(unet_channels)
    for name, part in parts.items():
        _fill(part, seed)
        if name == "vae":
            part.decoder.conv_out.weight.data.mul_(DECODER_GAIN)
        elif name == "unet":
            part.conv_out.weight.data.mul_(UNET_GAIN)
    noise_config = {
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "num_train_timesteps": 1000,
        "prediction_type": prediction_type,
    }
    write_tokenizer(folder / "tokenizer", random_vocabulary(), merges=[], max_tokens=77)
    write_model(folder, parts, noise_config, _CARD)


def _networks(unet_channels: int) -> dict[str, Any]:
    """VAE with 4 px per latent cell, UNet of two levels, text encoder of two layers."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    vae = AutoencoderKL(
        block_out_channels=(16, 32, 32),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=128,
        scaling_factor=LATENT_SCALE,
    )
    unet = UNet2DConditionModel(
        sample_size=32,
        in_channels=unet_channels,
        out_channels=4,
        block_out_channels=(24, 48),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=CROSS_ATTENTION_DIM,
        attention_head_dim=4,
        norm_num_groups=8,
    )
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(random_vocabulary()),
            hidden_size=CROSS_ATTENTION_DIM,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=77,
            bos_token_id=512,
            eos_token_id=513,
            pad_token_id=513,
        )
    )
    return {"vae": vae, "unet": unet, "text_encoder": text_encoder}


def _fill(part: torch.nn.Module, seed: int) -> None:
    """Overwrite every parameter: weights normal with variance 1 / fan-in, norms 1, biases 0."""
    for name, parameter in part.named_parameters():
        # By name, so that a weight does not depend on how many parameters come before it.
        generator = np.random.default_rng([seed, zlib.crc32(name.encode())])
        if parameter.ndim == 1:
            value = np.full(parameter.shape, float(name.endswith("weight")))
        else:
            fan_in = int(np.prod(parameter.shape[1:]))
            # In float64, so that rounding to float32 hides what differs between CPUs.
            value = generator.standard_normal(tuple(parameter.shape)) / fan_in**0.5
            # SiLU leaves a positive mean, which would tint everything; centred weights ignore it.
            value -= value.mean(axis=tuple(range(1, parameter.ndim)), keepdims=True)
        parameter.data.copy_(torch.from_numpy(value))


def random_vocabulary() -> dict[str, int]:
    """Every byte, inside and at the end of a word, as byte-level BPE prints it; no merges."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = [chr(byte) for byte in printable] + [chr(256 + i) for i in range(len(others))]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters)]
    return {token: i for i, token in enumerate([*tokens, START, END])}
