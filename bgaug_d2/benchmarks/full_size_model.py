"""A model of Stable Diffusion 2.1's full shape with random weights, for measuring speed only."""

from __future__ import annotations

from pathlib import Path

import torch

from bgaug_d2.benchmarks.random_model import random_vocabulary
from bgaug_d2.inpaint.model.identity import RANDOM_LICENSE
from bgaug_d2.inpaint.model.write import write_model, write_tokenizer

_CARD = f"# {RANDOM_LICENSE}\n\nThe shape of Stable Diffusion 2.1, not trained, for timing.\n"
NOISE = {
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "num_train_timesteps": 1000,
    "prediction_type": "v_prediction",  # random weights would let epsilon's latents grow
}


def write_full_size_model(folder: Path, unet_channels: int = 4) -> None:
    """Write a model folder of 2.6 GB, in bfloat16; the weights differ each time.

    Args:
        folder: Created when missing.
        unet_channels: 4 (SD 2.1 base) or 9 (SD 2 inpainting).
    """
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    vae = AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
        sample_size=768,
    )
    unet = UNet2DConditionModel(
        sample_size=64,
        in_channels=unet_channels,
        attention_head_dim=(5, 10, 20, 20),
        cross_attention_dim=1024,
        use_linear_projection=True,
    )
    vocabulary = random_vocabulary()
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            # The real table's size, although the tokenizer here uses few of its rows.
            vocab_size=49408,
            hidden_size=1024,
            intermediate_size=4096,
            num_hidden_layers=23,
            num_attention_heads=16,
            hidden_act="gelu",
            bos_token_id=len(vocabulary) - 2,
            eos_token_id=len(vocabulary) - 1,
            pad_token_id=len(vocabulary) - 1,
        )
    )
    folder.mkdir(parents=True, exist_ok=True)
    write_tokenizer(folder / "tokenizer", vocabulary, merges=[], max_tokens=77)
    parts = {"vae": vae, "unet": unet, "text_encoder": text_encoder}
    write_model(
        folder, {name: each.to(torch.bfloat16) for name, each in parts.items()}, NOISE, _CARD
    )
