"""A few-step copy of the tiny model: to it what SD-Turbo and LCM are to Stable Diffusion.

Progressive distillation (Salimans and Ho 2022, arXiv 2202.00512) in one stage, with guidance in
what is distilled (Meng et al. 2023, arXiv 2210.03142): in each of its few steps the student learns
to land where its guided teacher lands after several. So it needs no guidance, and half the rows.

Shapes: B rows of a batch; C latent channels; h, w the latent grid; L, D length and width of a
prompt's embedding.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from bgaug_d2.inpaint.denoise.dpm_solver import advance, solver_table
from bgaug_d2.inpaint.model.load import InpaintModel
from tools.pretrain.loop import train

SPACING = "trailing"  # the steps of a short schedule are steps of its refinements, too
LEARNING_RATE = 2e-4

# Latents (B, C, h, w), timesteps int64 (B,), embeddings (B, L, D) -> v, (B, C, h, w).
Predictor = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class FewSteps:
    """What is distilled into what.

    Attributes:
        steps: ``T`` of the student.
        substeps: Steps of the teacher for each of them, of first order.
        guidance_scale: The teacher's.
        batch: Rows of a training step.
    """

    steps: int = 4
    substeps: int = 3
    guidance_scale: float = 3.0
    batch: int = 16


class Target:
    """What the student is to answer, worked out by the teacher."""

    def __init__(self, model: InpaintModel, few: FewSteps) -> None:
        """Prepare both schedules.

        Args:
            model: The teacher, which predicts v.
            few: What is distilled into what.
        """
        self._few = few
        self._teacher = predictor(model.unet)
        self._nothing = model.prompts([""]).clone()  # (1, L, D)
        fine = solver_table(model.noise_config, few.steps * few.substeps, SPACING)
        self._fine = torch.from_numpy(fine.first_steps)
        self._fine_timesteps = torch.tensor(fine.timesteps)
        coarse = solver_table(model.noise_config, few.steps, SPACING)
        self._coarse = torch.from_numpy(coarse.first_steps)
        self.timesteps = torch.tensor(coarse.timesteps)
        self.alpha = torch.from_numpy(coarse.alpha).float()
        self.sigma = torch.from_numpy(coarse.sigma).float()

    @torch.no_grad()
    def __call__(
        self, noisy: torch.Tensor, places: torch.Tensor, embeddings: torch.Tensor
    ) -> torch.Tensor:
        """v, (B, C, h, w), of one step of the student from ``noisy`` to where the teacher gets.

        Args:
            noisy: (B, C, h, w), each row at the noise level before its step.
            places: int64 (B,), each row's step of the student's schedule, from 0.
            embeddings: (B, L, D).
        """
        latents = noisy
        for substep in range(self._few.substeps):
            index = places * self._few.substeps + substep
            v = self._guided(latents, self._fine_timesteps[index], embeddings)
            # In first order the previous x0 has weight 0, so any tensor may stand for it.
            latents, _ = advance(latents, latents, v, self._fine[index])
        # Solve the student's step, and then the definition of v, for what it has to answer.
        _, _, from_latents, from_x0, *_ = self._coarse[places].T[:, :, None, None, None]
        x0 = (latents - from_latents * noisy) / from_x0
        alpha, sigma = (each[places][:, None, None, None] for each in (self.alpha, self.sigma))
        # sigma is not 0: places are levels before a step, and only the last level is clean.
        return (alpha * noisy - x0) / sigma

    def _guided(
        self, latents: torch.Tensor, timesteps: torch.Tensor, embeddings: torch.Tensor
    ) -> torch.Tensor:
        if self._few.guidance_scale == 1:
            return self._teacher(latents, timesteps, embeddings)
        texts = torch.cat([embeddings, self._nothing.expand_as(embeddings)])
        answers = self._teacher(latents.repeat(2, 1, 1, 1), timesteps.repeat(2), texts)
        v, without = answers.chunk(2)
        return without + self._few.guidance_scale * (v - without)


def distil(
    model: InpaintModel,
    latents: torch.Tensor,
    captions: Sequence[Sequence[str]],
    folder: Path,
    few: FewSteps,
    training_steps: int,
    seed: int,
) -> Any:
    """The student's UNet.

    Args:
        model: The teacher, on a CPU, in float32; it predicts v and is not changed.
        latents: Scaled ones of pictures, float32 (N, C, h, w).
        captions: For each picture, those that it may be shown with.
        folder: For log and checkpoints; training goes on from what it has.
        few: What is distilled into what.
        training_steps: How many in all.
        seed: Seed of batches, steps and noise.
    """
    student = copy.deepcopy(model.unet).requires_grad_(True)
    loss = distillation_loss(model, predictor(student), latents, captions, few)
    train("few_steps", folder, student, loss, training_steps, LEARNING_RATE, seed)
    return student


def distillation_loss(
    model: InpaintModel,
    student: Predictor,
    latents: torch.Tensor,
    captions: Sequence[Sequence[str]],
    few: FewSteps,
) -> Callable[[torch.Generator], torch.Tensor]:
    """From a generator for all randomness to the mean squared error of v of one batch.

    Args:
        model: As in ``distil``, like the others.
        student: Being trained.
        latents: See there.
        captions: See there.
        few: See there.
    """
    target = Target(model, few)

    def loss(rng: torch.Generator) -> torch.Tensor:
        numbers = torch.randint(len(latents), (few.batch,), generator=rng)
        places = torch.randint(few.steps, (few.batch,), generator=rng)
        alpha, sigma = (each[places][:, None, None, None] for each in (target.alpha, target.sigma))
        clean = latents[numbers]
        noisy = alpha * clean + sigma * torch.randn(clean.shape, generator=rng)
        own = [captions[number] for number in numbers.tolist()]
        texts = [each[int(torch.randint(len(each), (), generator=rng))] for each in own]
        embeddings = model.prompts(texts).clone()  # outside of inference mode
        answer = student(noisy, target.timesteps[places], embeddings)
        return F.mse_loss(answer, target(noisy, places, embeddings))

    return loss


def predictor(unet: Any) -> Predictor:
    """A UNet as a function of tensors."""
    return lambda latents, timesteps, embeddings: unet(
        latents, timesteps, encoder_hidden_states=embeddings, return_dict=False
    )[0]
