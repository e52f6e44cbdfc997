"""Loads a latent diffusion model from a folder in diffusers' layout: safetensors only, checked.

Only the five components that painting needs are read, each by its own class: no pipeline class is
looked up by name, no code from the folder runs, no pickled weights are opened.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bgaug_d2.errors import ModelError
from bgaug_d2.inpaint.model.prompt_encoder import PromptEncoder
from bgaug_d2.jobs.job import ModelIdentity

PREDICTION_TYPES = ("epsilon", "v_prediction")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_WEIGHTS = {
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "model",
}


@dataclass
class InpaintModel:
    """A loaded model, in evaluation mode, on one device.

    Attributes:
        identity: Its part of the cache key.
        vae, unet: diffusers' AutoencoderKL and UNet2DConditionModel.
        prompts: Prompts to embeddings.
        noise_config: The model's scheduler configuration; ``dpm_solver`` takes its training part.
        vae_factor: Pixels per latent cell along a side.
        latent_channels: C, channels of a latent.
        unet_in_channels: C (eq. 2 of the paper) or 2 C + 1 (an inpainting UNet): 4 or 9.
        device, dtype: Those of the weights; latents between two steps are always float32.
        compiled_unet: A ``CompiledUnet``, or a stand-in; None calls ``unet`` as it is.
    """

    identity: ModelIdentity
    vae: Any
    unet: Any
    prompts: PromptEncoder
    noise_config: dict[str, Any]
    vae_factor: int
    latent_channels: int
    unet_in_channels: int
    device: torch.device
    dtype: torch.dtype
    compiled_unet: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor] | None = None


def load_model(path: str | Path, device: str, dtype: str, identity: ModelIdentity) -> InpaintModel:
    """Read and check a model.

    Args:
        path: Folder with ``unet``, ``vae``, ``text_encoder``, ``tokenizer`` and ``scheduler``.
        device: Torch device.
        dtype: ``float32`` or ``bfloat16``.
        identity: Recorded, not verified here.

    Raises:
        ModelError: A component is missing, pickled, broken, of another kind than Stable Diffusion 1
            and 2 have, or does not fit the others.
    """
    folder = Path(path)
    if dtype not in DTYPES:
        raise ModelError(f"dtype={dtype!r} is not allowed; choose one of {', '.join(DTYPES)}")
    # Cheap checks come first: reading the weights takes longest.
    configs = {name: _read_config(folder, name) for name in (*_WEIGHTS, "scheduler")}
    for name in _WEIGHTS:
        _check_weights(folder, name)
    _check_fit(folder, configs)
    parts = _load_parts(folder, DTYPES[dtype])
    for part in (parts["unet"], parts["vae"], parts["text_encoder"]):
        part.requires_grad_(False).eval().to(device)
    vae, unet = parts["vae"], parts["unet"]
    return InpaintModel(
        identity=identity,
        vae=vae,
        unet=unet,
        prompts=PromptEncoder(parts["tokenizer"], parts["text_encoder"]),
        noise_config=configs["scheduler"],
        # Every level of the autoencoder but the last one halves the sides.
        vae_factor=2 ** (len(vae.config.block_out_channels) - 1),
        latent_channels=vae.config.latent_channels,
        unet_in_channels=unet.config.in_channels,
        device=torch.device(device),
        dtype=DTYPES[dtype],
    )


def _read_config(folder: Path, name: str) -> dict[str, Any]:
    path = folder / name / ("scheduler_config.json" if name == "scheduler" else "config.json")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(
            f"{path} is missing; a model folder needs unet, vae, text_encoder, tokenizer "
            f"and scheduler"
        ) from error
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path} must hold a JSON object, got {type(content).__name__}")
    return content


def _check_weights(folder: Path, name: str) -> None:
    stem = _WEIGHTS[name]
    wanted = (f"{stem}.safetensors", f"{stem}.safetensors.index.json")
    if any((folder / name / each).is_file() for each in wanted):
        return
    found = sorted(path.name for path in (folder / name).glob("*") if path.suffix != ".json")
    raise ModelError(
        f"{folder / name} has no {wanted[0]} (it has {', '.join(found) or 'no weights'}); only "
        f"safetensors are read, no pickled weights and no precision variants: convert or rename"
    )


def _check_fit(folder: Path, configs: dict[str, dict[str, Any]]) -> None:
    """Refuse what is not shaped like Stable Diffusion 1 or 2, before any weight is read."""
    unet, vae, text = configs["unet"], configs["vae"], configs["text_encoder"]
    for name, expected in (("unet", "UNet2DConditionModel"), ("vae", "AutoencoderKL")):
        found = configs[name].get("_class_name")
        if found != expected:
            raise ModelError(f"{folder / name} is a {found}, expected {expected}")
    if text.get("architectures") != ["CLIPTextModel"]:
        raise ModelError(
            f"{folder / 'text_encoder'} is a {text.get('architectures')}, expected CLIPTextModel"
        )
    # A key that is missing has diffusers' own default.
    latent = vae.get("latent_channels", 4)
    if unet.get("in_channels", 4) not in (latent, 2 * latent + 1) or latent != 4:
        raise ModelError(
            f"{folder}: unet.in_channels={unet.get('in_channels')} with latent_channels={latent} "
            f"is not supported; 4 (text to image) and 9 (inpainting) with 4 latent channels are"
        )
    if unet.get("out_channels", 4) != latent:
        raise ModelError(f"{folder}: unet.out_channels={unet['out_channels']} must be {latent}")
    if unet.get("cross_attention_dim") != text.get("hidden_size"):
        raise ModelError(
            f"{folder}: unet.cross_attention_dim={unet.get('cross_attention_dim')} does not fit "
            f"text_encoder.hidden_size={text.get('hidden_size')}; the parts are of different models"
        )
    # Each would need a further input, which our UNet calls do not give.
    for key in ("addition_embed_type", "class_embed_type", "time_cond_proj_dim"):
        if unet.get(key) is not None:
            raise ModelError(
                f"{folder}: unet.{key}={unet[key]!r} is not supported (Stable Diffusion XL?)"
            )
    prediction = configs["scheduler"].get("prediction_type", "epsilon")
    if prediction not in PREDICTION_TYPES:
        raise ModelError(
            f"{folder}: prediction_type={prediction!r} is not supported; "
            f"choose one of {', '.join(PREDICTION_TYPES)}"
        )


def _load_parts(folder: Path, dtype: torch.dtype) -> dict[str, Any]:
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel
    from transformers.utils.logging import disable_progress_bar

    kinds = {"unet": UNet2DConditionModel, "vae": AutoencoderKL, "text_encoder": CLIPTextModel}
    parts: dict[str, Any] = {}
    # The last line on a painting process's standard error is shown to the user: no bars there.
    disable_progress_bar()
    for name, kind in kinds.items():
        # transformers has renamed this argument; diffusers still takes the old name.
        key = "dtype" if name == "text_encoder" else "torch_dtype"
        try:
            parts[name], report = kind.from_pretrained(
                str(folder / name),
                # Without it pickled weights would be read as well (rule 7 of docs/design.md).
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
                **{key: dtype},
            )
        except Exception as error:  # noqa: BLE001 - a broken file can raise anything
            raise ModelError(f"{folder / name} cannot be loaded: {error}") from error
        # Without this check missing weights stay random, with no more than a warning.
        # position_ids are the numbers from 0, no weights: a file may leave them out.
        missing = sorted(key for key in report["missing_keys"] if "position_ids" not in key)
        if missing or report["mismatched_keys"]:
            raise ModelError(
                f"{folder / name} lacks weights: {missing[:3] or report['mismatched_keys'][:3]}"
            )
    parts["tokenizer"] = _load_tokenizer(
        folder / "tokenizer", parts["text_encoder"].config.vocab_size
    )
    return parts


def _load_tokenizer(folder: Path, vocab_size: int) -> Any:
    from transformers import CLIPTokenizer

    # Without these files transformers makes a tokenizer that knows no word.
    if not any((folder / name).is_file() for name in ("vocab.json", "tokenizer.json")):
        raise ModelError(f"{folder} has neither vocab.json (with merges.txt) nor tokenizer.json")
    try:
        tokenizer = CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # noqa: BLE001 - the tokenizers library raises bare Exceptions
        raise ModelError(f"{folder} cannot be loaded: {error}") from error
    # A token beyond the encoder's table would fail only when it is painted with.
    if len(tokenizer) > vocab_size:
        raise ModelError(
            f"{folder} has {len(tokenizer)} tokens, the text encoder knows {vocab_size}; the parts "
            f"are of different models"
        )
    return tokenizer
