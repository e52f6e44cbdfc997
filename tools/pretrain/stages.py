"""From nothing to a model folder: draw, train in two stages, write, assess, describe."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from bgaug_d2.config.recipe import RecipeConfig
from bgaug_d2.data.toy.backgrounds import BACKGROUNDS
from bgaug_d2.inpaint.denoise.vae import decode, encode
from bgaug_d2.inpaint.engine import Engine
from bgaug_d2.inpaint.model.identity import TINY, TINY_LICENSE, digest_model
from bgaug_d2.inpaint.model.load import InpaintModel, load_model
from bgaug_d2.inpaint.model.write import write_model
from bgaug_d2.jobs.job import ModelIdentity
from tools.pretrain import networks
from tools.pretrain.assess import Pictures, assess, paint_backgrounds
from tools.pretrain.autoencoder import to_floats, train_autoencoder
from tools.pretrain.card import Training, write_card
from tools.pretrain.diffusion import NOISE, Denoiser, encode_images, train_denoiser
from tools.pretrain.pictures import CLEAN_PROMPT, TrainingPicture, draw_pictures

logger = logging.getLogger(__name__)

SIZE = 128  # px
GUIDANCE = 3.0
TOKENIZER = "tokenizer"
HELD_OUT = 1_000_000  # number of the first picture that no training sees


@dataclass(frozen=True)
class TrainingSize:
    """How much is trained.

    Attributes:
        pictures: Drawn for training.
        vae_steps, unet_steps: Training steps of the two stages.
        samples: Pictures of each kind that the finished model paints to be judged; at least 4.
        seed: Seed of weights, batches and noise.
    """

    pictures: int = 12_000
    vae_steps: int = 4_000
    unet_steps: int = 3_600
    samples: int = 24
    seed: int = 0


def train_tiny(out: Path, size: TrainingSize) -> dict[str, torch.nn.Module]:
    """Train both stages and return ``vae``, ``unet`` and ``text_encoder``.

    Args:
        out: Gets checkpoints, logs and the tokenizer; training goes on from what it has.
        size: How much.
    """
    pictures = draw_pictures(range(size.pictures), SIZE, processes=os.cpu_count() or 1)
    logger.info("drew %d pictures", len(pictures))
    images = to_tensor([each.image for each in pictures])
    captions = [each.captions for each in pictures]
    tokenizer = networks.new_tokenizer(
        (text for each in captions for text in each), out / TOKENIZER
    )

    torch.manual_seed(size.seed)
    vae = networks.new_autoencoder()
    denoiser = Denoiser(networks.new_unet(), networks.new_text_encoder(tokenizer))
    half = images[: len(images) // 2]  # varied enough for its crops
    train_autoencoder(vae, half, out, size.vae_steps, size.seed)
    latents = encode_images(vae, images)
    logger.info("encoded them")
    train_denoiser(denoiser, tokenizer, latents, captions, out, size.unet_steps, size.seed)
    return {"vae": vae, "unet": denoiser.unet, "text_encoder": denoiser.text_encoder}


def write_tiny(parts: dict[str, torch.nn.Module], out: Path, model_folder: Path) -> None:
    """Write a model folder: weights in float16, but for those of the small text encoder."""
    # Files that an older model left here would enter the new one's digest.
    shutil.rmtree(model_folder, ignore_errors=True)
    shutil.copytree(out / TOKENIZER, model_folder / TOKENIZER)
    parts = {**parts, "vae": parts["vae"].half(), "unet": parts["unet"].half()}
    write_model(model_folder, parts, NOISE, card="")


def describe_tiny(out: Path, model_folder: Path, samples: int, training: Training) -> None:
    """Judge a written model and write its card and ``samples.jpg``."""
    identity = ModelIdentity(TINY, "", digest_model(model_folder), TINY_LICENSE)
    model = load_model(model_folder, "cpu", "float32", identity)
    engine = Engine(model, max_batch_rows=8)
    settings = RecipeConfig(num_inference_steps=20, guidance_scale=GUIDANCE)
    # Even numbers have no objects: backgrounds are compared with backgrounds.
    held_out = range(HELD_OUT, HELD_OUT + 4 * len(BACKGROUNDS) * samples, 2)
    real = draw_pictures(held_out, SIZE)
    decoded = through_autoencoder(model, [each.image for each in real])
    painted = {}
    for kind, (_, scene) in BACKGROUNDS.items():
        prompts = [f"{CLEAN_PROMPT} of {scene}"] * samples
        painted[kind] = paint_backgrounds(engine, prompts, SIZE, settings, seed=0)
        logger.info("painted %s", kind)
    clean = paint_backgrounds(engine, [CLEAN_PROMPT] * 8, SIZE, settings, seed=1000)
    found = assess(real, decoded, painted, seed=0)
    logger.info("%s", found)
    _write_samples(model_folder / "samples.jpg", real, painted, clean)
    write_card(model_folder / "README.md", training, found, settings, out, _sizes(model))


def through_autoencoder(model: InpaintModel, images: Sequence[Pictures]) -> Pictures:
    """Pictures encoded and decoded, uint8 (N, S, S, 3)."""
    with torch.inference_mode():
        floats = decode(model, encode(model, to_floats(to_tensor(images))))
    pixels = ((floats / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
    return pixels.permute(0, 2, 3, 1).contiguous().numpy()


def _write_samples(
    path: Path, real: Sequence[TrainingPicture], painted: dict[str, Pictures], clean: Pictures
) -> None:
    rows = []
    for kind, own in painted.items():
        like = [each.image for each in real if each.kind == kind]
        rows.append(np.concatenate([*like[:4], *own[:4]], axis=1))
    rows.append(np.concatenate(list(clean), axis=1))
    if not cv2.imwrite(str(path), np.concatenate(rows)[:, :, ::-1]):  # OpenCV takes BGR
        raise OSError(f"cannot write {path}")


def _sizes(model: InpaintModel) -> dict[str, int]:
    parts = {"autoencoder": model.vae, "UNet": model.unet}
    return {
        name: sum(weight.numel() for weight in part.parameters()) for name, part in parts.items()
    }


def to_tensor(images: Sequence[Pictures]) -> torch.Tensor:
    """uint8 (N, 3, S, S) of N pictures (S, S, 3)."""
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
