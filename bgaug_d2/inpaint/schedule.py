"""The way from noise to picture: DPM-Solver++(2M) over the last T_hat of T timesteps.

Levels: level i, in 0..T_hat, is the noise level before step i; level T_hat is the clean picture.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler

# What the weights were trained with. How a model's own scheduler samples (its spacing, its order,
# its Karras sigmas) is not taken over: our recipe decides that, and it is in the cache key.
NOISE_KEYS = (
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "prediction_type",
    "rescale_betas_zero_snr",
)


def timesteps_for(num_train_timesteps: int, num_inference_steps: int, spacing: str) -> list[int]:
    """The T timesteps of a full schedule, falling.

    Equal to diffusers' own wherever that has T timesteps; for some T in spacing ``trailing`` (61 is
    the first) its float range yields one more, which is -1, and is cut off here.

    Args:
        num_train_timesteps: N, length of the training schedule.
        num_inference_steps: T.
        spacing: ``linspace`` (N - 1 down to N / T - 1, about) or ``trailing`` (N - 1 down to N / T
            - 1).

    Raises:
        ValueError: Another spacing, or T so large that timesteps would coincide.
    """
    if spacing == "linspace":
        points = np.linspace(0, num_train_timesteps - 1, num_inference_steps + 1)
        timesteps = points.round()[:0:-1]
    elif spacing == "trailing":
        pace = num_train_timesteps / num_inference_steps
        timesteps = np.arange(num_train_timesteps, 0, -pace)[:num_inference_steps].round() - 1
    else:
        raise ValueError(
            f"timestep_spacing={spacing!r} is not allowed; choose linspace or trailing "
            f"('leading' starts below the highest noise level)"
        )
    falling = [int(timestep) for timestep in timesteps]
    if any(later >= earlier for earlier, later in zip(falling, falling[1:], strict=False)):
        raise ValueError(
            f"num_inference_steps={num_inference_steps} is too many for {num_train_timesteps} "
            f"training timesteps with spacing {spacing!r}; take fewer"
        )
    return falling


class Schedule:
    """One batch's walk through the last T_hat timesteps; used once, ``step`` in order.

    Attributes:
        timesteps: The T_hat timesteps, falling; entry i is what the UNet is told at step i.
        pure_noise: Whether T_hat is T, so that the walk does not start from the original.
    """

    def __init__(
        self,
        noise_config: Mapping[str, Any],
        num_inference_steps: int,
        T_hat: int,
        spacing: str,
    ) -> None:
        """Set up the solver at index T - T_hat.

        Args:
            noise_config: ``InpaintModel.noise_config``.
            num_inference_steps: T.
            T_hat: Steps really taken, in 1..T (paper, section 3: adaptive augmentation freedom).
            spacing: See ``timesteps_for``.

        Raises:
            ValueError: T_hat is out of range, or see ``timesteps_for``.
        """
        if not 1 <= T_hat <= num_inference_steps:
            raise ValueError(f"T_hat={T_hat} must be between 1 and T={num_inference_steps}")
        self._solver = DPMSolverMultistepScheduler(
            algorithm_type="dpmsolver++",
            solver_order=2,
            solver_type="midpoint",
            final_sigmas_type="zero",
            **{key: noise_config[key] for key in NOISE_KEYS if key in noise_config},
        )
        full = timesteps_for(self._solver.config.num_train_timesteps, num_inference_steps, spacing)
        self._solver.set_timesteps(timesteps=full)
        begin = num_inference_steps - T_hat
        self._solver.set_begin_index(begin)
        self.timesteps = full[begin:]
        self._sigmas = [float(sigma) for sigma in self._solver.sigmas[begin:]]
        self.pure_noise = begin == 0

    def start(self, original: torch.Tensor | None, noise: torch.Tensor) -> torch.Tensor:
        """The latents at level 0, (B, C, h, w): the noised original; pure noise if T_hat is T.

        Starting at T, nothing of the original is mixed in, not even where latents are kept: so do
        the paper and diffusers' pipeline. From level 1 on kept latents follow ``noised``.

        Args:
            original: Encoded originals, (B, C, h, w); may be None where ``pure_noise``.
            noise: Standard normal, (B, C, h, w), fixed for the whole walk.

        Raises:
            ValueError: The original is missing but needed.
        """
        if self.pure_noise:
            return noise.clone()
        if original is None:
            raise ValueError(
                "a walk over part of the schedule (T_hat < T) needs the encoded originals"
            )
        return self.noised(original, noise, 0)

    def noised(self, original: torch.Tensor, noise: torch.Tensor, level: int) -> torch.Tensor:
        """The original noised to a level, (B, C, h, w); at level T_hat the original itself."""
        ratio = self._sigmas[level]  # sigma / alpha, variance preserving
        alpha = (1.0 + ratio**2) ** -0.5
        return alpha * original + (ratio * alpha) * noise

    def step(self, prediction: torch.Tensor, index: int, latents: torch.Tensor) -> torch.Tensor:
        """One solver step, from level ``index`` to ``index + 1``.

        Args:
            prediction: The UNet's answer (epsilon or v), (B, C, h, w), float32.
            index: Counts the calls from 0.
            latents: At level ``index``, (B, C, h, w), float32.
        """
        return self._solver.step(prediction, self.timesteps[index], latents, return_dict=False)[0]
