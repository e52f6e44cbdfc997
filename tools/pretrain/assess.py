"""How good the tiny model's backgrounds are: three numbers from small classifiers.

The classifiers see squares of ``CROP`` pixels. *Recognised*: the share of pictures painted for the
caption of a kind that a classifier, trained on real backgrounds, takes for that kind.
*Discriminator accuracy*: how well a classifier trained to separate real from painted crops does so
on pictures that it has not seen; 0.5 is chance. *Diversity*: the mean distance between two pictures
of one prompt in the first classifier's features, as a share of that between two real ones of the
kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from bgaug_d2.config.recipe import RecipeConfig
from bgaug_d2.data.toy.backgrounds import BACKGROUNDS
from bgaug_d2.inpaint.engine import Engine
from bgaug_d2.painting.engine_interface import PaintRequest
from tools.pretrain.autoencoder import to_floats
from tools.pretrain.pictures import TrainingPicture

CROP = 64
_BATCH = 32
_FEATURES = 64
_STEPS = 400

Pictures = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Assessment:
    """The numbers; each kind's and their means.

    Attributes:
        recognised: By kind, 0..1.
        recognised_real: The same for real backgrounds that the classifier has not seen, 0..1.
        discriminator_accuracy: Accuracy of separating real from painted, 0..1.
        discriminator_accuracy_autoencoder: The same for real pictures after the autoencoder.
        diversity: By kind; 1 means as varied as real ones.
        count: Painted pictures of each kind.
    """

    recognised: dict[str, float]
    recognised_real: float
    discriminator_accuracy: float
    discriminator_accuracy_autoencoder: float
    diversity: dict[str, float]
    count: int


def paint_backgrounds(
    engine: Engine, prompts: Sequence[str], size: int, recipe: RecipeConfig, seed: int
) -> Pictures:
    """Backgrounds from pure noise, without any object to go around, uint8 (N, S, S, 3).

    Args:
        engine: The engine of the model that is judged.
        prompts: One a picture.
        size: S, in pixels.
        recipe: Its diffusion settings are used.
        seed: Seed of the first picture; each further picture gets the next number.
    """
    grey = np.full((size, size, 3), 127, np.uint8)
    everything = np.ones((size, size), bool)
    painted: dict[str, Pictures] = {}
    for number, prompt in enumerate(prompts):
        engine.submit(
            PaintRequest(
                request_id=str(number),
                image=grey,
                painted_mask=everything,
                # All steps, so that nothing of the grey picture is left.
                T_hat=recipe.num_inference_steps,
                seed=seed + number,
                prompt=prompt,
                settings=recipe.diffusion,
            )
        )
    while engine.pending:
        for result in engine.poll():
            if result.image is None:
                raise RuntimeError(f"painting failed: {result.error}")
            painted[result.request_id] = result.image
    # By number, because the engine answers in any order.
    return np.stack([painted[str(number)] for number in range(len(prompts))])


def assess(
    real: Sequence[TrainingPicture], decoded: Pictures, painted: dict[str, Pictures], seed: int
) -> Assessment:
    """Compare real backgrounds with painted ones.

    Args:
        real: Backgrounds that the model was not trained on, the same size, all kinds.
        decoded: The same after the autoencoder, uint8 (N, S, S, 3).
        painted: By kind, uint8 (N, S, S, 3).
        seed: Seed of the classifiers.
    """
    kinds = list(BACKGROUNDS)
    images = _tensor(np.stack([each.image for each in real]))
    labels = torch.tensor([kinds.index(each.kind) for each in real])
    # One half trains the judge, the other measures: it would know its own training pictures.
    half = len(images) // 2
    judge = _train_classifier(images[:half], labels[:half], len(kinds), seed)
    correct = (_scores(judge, images[half:]).argmax(1) == labels[half:]).float().mean()
    recognised, diversity = {}, {}
    all_painted = _tensor(np.concatenate(list(painted.values())))
    for number, kind in enumerate(kinds):
        own = _tensor(painted[kind])
        recognised[kind] = float((_scores(judge, own).argmax(1) == number).float().mean())
        # Real ones that the judge was not trained on, as it was not on the painted ones.
        like = images[half:][labels[half:] == number]
        diversity[kind] = _spread(judge, own) / _spread(judge, like)
    return Assessment(
        recognised=recognised,
        recognised_real=float(correct),
        discriminator_accuracy=_discriminator_accuracy(images, all_painted, seed),
        discriminator_accuracy_autoencoder=_discriminator_accuracy(images, _tensor(decoded), seed),
        diversity=diversity,
        count=len(painted[kinds[0]]),
    )


def _discriminator_accuracy(real: torch.Tensor, fake: torch.Tensor, seed: int) -> float:
    # As many of each, so that chance is 0.5.
    count = min(len(real), len(fake))
    both = []
    for each in (real, fake):
        # One order for both: a picture and its decoded twin must fall into the same half.
        rng = torch.Generator().manual_seed(seed)
        both.append(each[torch.randperm(len(each), generator=rng)[:count]])
    half = count // 2
    labels = torch.arange(2).repeat_interleave(half)
    judge = _train_classifier(torch.cat([each[:half] for each in both]), labels, 2, seed)
    accuracy = [
        (_scores(judge, each[half:]).argmax(1) == label).float().mean()
        for label, each in enumerate(both)
    ]
    return float(sum(accuracy) / 2)


def _train_classifier(
    images: torch.Tensor, labels: torch.Tensor, classes: int, seed: int
) -> torch.nn.Sequential:
    """A small convolutional network, trained on random mirrored crops."""
    rng = torch.Generator().manual_seed(seed)
    # Initial weights come from torch's global generator, whose state the caller keeps.
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = _classifier(classes)
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3, weight_decay=0.05)
    pace = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=_STEPS)
    network.train()
    for _ in range(_STEPS):
        chosen = torch.randint(len(images), (_BATCH,), generator=rng)
        top, left = torch.randint(images.shape[-1] - CROP + 1, (2,), generator=rng).tolist()
        crops = to_floats(images[chosen, :, top : top + CROP, left : left + CROP])
        if float(torch.rand((), generator=rng)) < 0.5:
            crops = crops.flip(-1)
        loss = F.cross_entropy(network(crops), labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        pace.step()
    return network.eval()


def _classifier(classes: int) -> torch.nn.Sequential:
    layers: list[torch.nn.Module] = []
    widths = (3, 16, 32, 64, _FEATURES)
    for before, after in zip(widths, widths[1:], strict=False):
        layers += [
            torch.nn.Conv2d(before, after, 3, stride=2, padding=1),
            torch.nn.BatchNorm2d(after),
            torch.nn.ReLU(),
        ]
    # Pooled over any size: crops for scores, whole pictures for `_spread`.
    head = [torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(_FEATURES, classes)]
    return torch.nn.Sequential(*layers, *head)


@torch.inference_mode()
def _scores(network: torch.nn.Sequential, images: torch.Tensor) -> torch.Tensor:
    """Scores of the four corners' crops, summed, (N, classes)."""
    # The classifier was trained on crops; the corners together show the picture to its borders.
    far = images.shape[-1] - CROP
    corners = [(top, left) for top in (0, far) for left in (0, far)]
    return sum(
        (
            network(to_floats(images[:, :, top : top + CROP, left : left + CROP]))
            for top, left in corners
        ),
        start=torch.zeros(()),
    )


@torch.inference_mode()
def _spread(network: torch.nn.Sequential, images: torch.Tensor) -> float:
    """Mean distance between two pictures in what the classifier computes before its last layer."""
    features = network[:-1](to_floats(images))
    return float(F.pdist(features).mean())


def _tensor(images: Pictures) -> torch.Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
