"""A tiny model with RANDOM WEIGHTS in Stable Diffusion's layout, for tests, demos and dry runs.

It has learned nothing: it paints colour noise, not scenes. What it is good for is that every part
of the real thing (text encoder, UNet with cross attention, VAE, scheduler, safetensors) runs with
it on one CPU core in a fraction of a second. A trained model in the same layout takes its place by
``inpainter.model=<folder>``.

Three choices make its pictures varied enough to pass the quality check: weights keep the variance
from layer to layer (diffusers' own initial weights decode to near grey), the last layer of the
decoder is scaled so that pixels use most of their range, and the model predicts v, with which a
small output leaves latents at unit variance (with epsilon they would grow by a factor of 15).
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bgaug_d2.inpaint.identity import TINY_LICENSE, ModelError

logger = logging.getLogger(__name__)

VERSION = 1  # part of the folder's name; count up when anything here changes the weights
CROSS_ATTENTION_DIM = 32
UNET_GAIN = 0.3  # v stays small beside the latents even at guidance 7.5
DECODER_GAIN = 0.8
LATENT_SCALE = 2.0  # latents of photographs get a standard deviation of about 1

_CARD = f"""---
license: other
license_name: random-weights
---
# {TINY_LICENSE}

This model is not trained. It has the parts and the layout of Stable Diffusion and paints colour
noise; it exists so that software can be tested and shown without a download. Written by
`bgaug_d2.inpaint.tiny`.
"""


def tiny_model(unet_channels: int = 4) -> Path:
    """The folder of the tiny model in the user's cache (``XDG_CACHE_HOME``), built when missing.

    Several processes may call this at once: each builds under a name of its own and one rename
        wins.

    Args:
        unet_channels: 4 (eq. 2 blending) or 9 (inpainting UNet).

    Raises:
        ModelError: The cache folder cannot be written.
    """
    name = f"tiny-random-{VERSION}" + ("" if unet_channels == 4 else f"-{unet_channels}ch")
    folder = _cache_home() / "bgaug_d2" / name
    if (folder / "model_index.json").is_file():
        return folder
    logger.info("building the tiny model with random weights in %s", folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=folder.parent))
        try:
            build_tiny(scratch, unet_channels=unet_channels)
            scratch.chmod(0o755)  # mkdtemp made it private
            _move_into_place(scratch, folder)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    except OSError as error:
        raise ModelError(
            f"the tiny model cannot be written to {folder}: {error}; "
            f"set XDG_CACHE_HOME to a writable folder"
        ) from error
    return folder


def build_tiny(
    folder: Path, unet_channels: int = 4, prediction_type: str = "v_prediction", seed: int = 0
) -> None:
    """Write a tiny model into a folder.

    The same arguments give the same bytes: weights come from NumPy by parameter name, and no
        version of
    a library is written into the configuration files.

    Args:
        folder: Created when missing.
        unet_channels: 4 or 9.
        prediction_type: ``epsilon`` or ``v_prediction``.
        seed: Of the weights.
    """
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in _networks(unet_channels).items():
        _fill(part, seed)
        if name == "vae":
            part.decoder.conv_out.weight.data.mul_(DECODER_GAIN)
        elif name == "unet":
            part.conv_out.weight.data.mul_(UNET_GAIN)
        part.save_pretrained(folder / name, safe_serialization=True)
        _drop_versions(folder / name / "config.json")
    _write_scheduler(folder / "scheduler", prediction_type)
    _write_tokenizer(folder / "tokenizer")
    (folder / "README.md").write_text(_CARD, encoding="utf-8")
    _write_json(
        folder / "model_index.json",
        {
            "_class_name": "StableDiffusionPipeline",
            "_diffusers_version": "0.38.0",  # its inpainting pipeline wants one; a constant
            "feature_extractor": [None, None],
            "safety_checker": [None, None],
            "scheduler": ["diffusers", "DPMSolverMultistepScheduler"],
            "text_encoder": ["transformers", "CLIPTextModel"],
            "tokenizer": ["transformers", "CLIPTokenizer"],
            "unet": ["diffusers", "UNet2DConditionModel"],
            "vae": ["diffusers", "AutoencoderKL"],
        },
    )


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
            vocab_size=len(_vocabulary()),
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
        generator = np.random.default_rng([seed, zlib.crc32(name.encode())])
        if parameter.ndim == 1:
            value = np.full(parameter.shape, float(name.endswith("weight")))
        else:
            fan_in = int(np.prod(parameter.shape[1:]))
            # In float64, so that rounding to float32 hides what differs between CPUs.
            value = generator.standard_normal(tuple(parameter.shape)) / fan_in**0.5
            # SiLU leaves a positive mean, which would tint everything; centred weights do not see
            # it.
            value -= value.mean(axis=tuple(range(1, parameter.ndim)), keepdims=True)
        parameter.data.copy_(torch.from_numpy(value))


def _vocabulary() -> dict[str, int]:
    """Every byte, inside and at the end of a word, as byte-level BPE prints it; no merges."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = [chr(byte) for byte in printable] + [chr(256 + i) for i in range(len(others))]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters)]
    return {token: i for i, token in enumerate([*tokens, "<|startoftext|>", "<|endoftext|>"])}


def _write_scheduler(folder: Path, prediction_type: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    _write_json(
        folder / "scheduler_config.json",
        {
            "_class_name": "DPMSolverMultistepScheduler",
            "beta_end": 0.012,
            "beta_schedule": "scaled_linear",
            "beta_start": 0.00085,
            "num_train_timesteps": 1000,
            "prediction_type": prediction_type,
            "steps_offset": 1,
        },
    )


def _write_tokenizer(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    _write_json(folder / "vocab.json", _vocabulary())
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    _write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "CLIPTokenizer",
            "model_max_length": 77,
            "bos_token": "<|startoftext|>",
            "eos_token": "<|endoftext|>",
            "pad_token": "<|endoftext|>",
            "unk_token": "<|endoftext|>",
        },
    )


def _drop_versions(path: Path) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    for key in ("_diffusers_version", "transformers_version", "_name_or_path"):
        content.pop(key, None)
    _write_json(path, content)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _move_into_place(scratch: Path, folder: Path) -> None:
    try:
        scratch.rename(folder)
    except OSError:
        if not (folder / "model_index.json").is_file():  # else another process was faster
            raise


def _cache_home() -> Path:
    # The XDG specification says to ignore a relative path.
    named = os.environ.get("XDG_CACHE_HOME", "")
    return Path(named) if os.path.isabs(named) else Path.home() / ".cache"
