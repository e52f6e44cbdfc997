"""A backbone that has seen pictures before, for the detectors of the toy world: its ImageNet.

It learns to name the one object of a picture, from image-level labels, in front of a plain
backdrop: what objects look like, not what they may stand before. No box, no mask and no picture of
a split of ``data.toy`` is used, and every arm of a comparison starts from the same weights.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone.resnet import build_resnet_backbone
from safetensors.torch import save_file

from bgaug_d2.data.toy.backgrounds import Rng, paint_background
from bgaug_d2.data.toy.scene import paste_sprite
from bgaug_d2.data.toy.shapes import SHAPES, draw_sprite

logger = logging.getLogger(__name__)

_SEED = 240800351  # apart from the seeds of data sets, which are small numbers
_PREFIX = "backbone.bottom_up."  # its name within Detectron2's FPN detectors
_BACKDROP = "gradient"
_BATCH = 32
_LOG_EVERY = 100  # steps


@dataclass(frozen=True)
class PretrainingSize:
    """How much is trained.

    Attributes:
        pictures: Drawn for training; a tenth of that number more for measuring.
        resolution: Their side, in pixels.
        steps: Training steps, with 32 pictures each.
        learning_rate: Largest of the one-cycle schedule.
        seed: Seed of weights and batches.
    """

    pictures: int = 20_000
    resolution: int = 64
    steps: int = 2_000
    learning_rate: float = 3e-3
    seed: int = 0


def draw_portrait(number: int, size: int) -> tuple[npt.NDArray[np.uint8], int]:
    """Picture ``number``: uint8 (size, size, 3) RGB of one object, and its class, an index."""
    rng: Rng = np.random.default_rng([_SEED, number])
    label = int(rng.integers(len(SHAPES)))
    picture = paint_background(_BACKDROP, rng, size, size)
    sprite = draw_sprite(rng, SHAPES[label], size * rng.uniform(0.25, 0.9))
    paste_sprite(picture, sprite, size / 2 + rng.uniform(-0.2, 0.2, 2) * size)
    return np.round(picture).astype(np.uint8), label


def pretrain_backbone(cfg: CfgNode, path: Path, size: PretrainingSize, processes: int = 1) -> float:
    """Train the ResNet of a detector's configuration and write it for ``MODEL.WEIGHTS``.

    Args:
        cfg: An FPN detector's; ``MODEL.RESNETS`` and pixel statistics are taken from it.
        path: Written, safetensors in float16; about 3 MB for the toy detector.
        size: How much.
        processes: How many draw side by side.

    Returns:
        Accuracy, 0..1, on pictures that were not trained on.
    """
    held_out = size.pictures // 10
    images, labels = _draw(size.pictures + held_out, size.resolution, processes)
    logger.info("drew %d pictures", len(images))
    torch.manual_seed(size.seed)
    cfg = cfg.clone()
    # The classifier sees the last stage, and through it trains all others.
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res5"]
    network = _Classifier(cfg)
    _train(network, images[held_out:], labels[held_out:], size)
    correct = _accuracy(network, images[:held_out], labels[:held_out])
    logger.info("accuracy %.3f on %d pictures not trained on", correct, held_out)
    weights = {
        # BatchNorm's counters are integers and stay so.
        _PREFIX + name: value.half() if value.is_floating_point() else value
        for name, value in network.backbone.state_dict().items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(weights, path)
    return correct


class _Classifier(torch.nn.Module):
    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, cfg: CfgNode) -> None:
        super().__init__()
        self.backbone = build_resnet_backbone(cfg, ShapeSpec(channels=3))
        width = self.backbone.output_shape()["res5"].channels
        self.head = torch.nn.Linear(width, len(SHAPES))
        self.register_buffer("mean", torch.tensor(cfg.MODEL.PIXEL_MEAN).view(1, 3, 1, 1))
        self.register_buffer("deviation", torch.tensor(cfg.MODEL.PIXEL_STD).view(1, 3, 1, 1))
        # Trained in the detector's channel order, or its first layer would not fit.
        self.order = [2, 1, 0] if cfg.INPUT.FORMAT == "BGR" else [0, 1, 2]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Scores (B, classes) of uint8 (B, 3, S, S), RGB."""
        pixels = (images[:, self.order].float() - self.mean) / self.deviation
        scores: torch.Tensor = self.head(self.backbone(pixels)["res5"].mean(dim=(2, 3)))
        return scores


def _train(
    network: _Classifier, images: torch.Tensor, labels: torch.Tensor, size: PretrainingSize
) -> None:
    rng = torch.Generator().manual_seed(size.seed)
    optimizer = torch.optim.AdamW(network.parameters(), size.learning_rate, weight_decay=0.05)
    pace = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, size.learning_rate, total_steps=size.steps, pct_start=0.1
    )
    network.train()
    total = 0.0
    for step in range(1, size.steps + 1):
        chosen = torch.randint(len(images), (_BATCH,), generator=rng)
        batch = images[chosen]
        if float(torch.rand((), generator=rng)) < 0.5:
            batch = batch.flip(-1)
        loss = F.cross_entropy(network(batch), labels[chosen], label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        pace.step()
        total += float(loss.detach())
        if step % _LOG_EVERY == 0:
            logger.info("step %d of %d, loss %.3f", step, size.steps, total / _LOG_EVERY)
            total = 0.0


@torch.inference_mode()
def _accuracy(network: _Classifier, images: torch.Tensor, labels: torch.Tensor) -> float:
    network.eval()
    found = torch.cat([network(each).argmax(1) for each in images.split(_BATCH)])
    return float((found == labels).float().mean())


def _draw(count: int, size: int, processes: int) -> tuple[torch.Tensor, torch.Tensor]:
    draw: Callable[[int], tuple[npt.NDArray[np.uint8], int]] = partial(draw_portrait, size=size)
    with ProcessPoolExecutor(processes) as pool:
        drawn = list(pool.map(draw, range(count), chunksize=256))
    images = torch.from_numpy(np.stack([image for image, _ in drawn]))
    return images.permute(0, 3, 1, 2).contiguous(), torch.tensor([label for _, label in drawn])
