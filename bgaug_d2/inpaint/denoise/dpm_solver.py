"""DPM-Solver++(2M) as a table of coefficients: a step is the same few products for every row.

diffusers' scheduler keeps one step index for a whole batch. Here each row has its own, so pictures
at different timesteps share a UNet call.

Notation (Lu et al. 2022, arXiv 2211.01095, algorithm 2): x latents, x0 the prediction of the clean
latents (their x_theta), previous x0 that of the step before. Level i, in 0..T, is the noise level
before step i; level T is the clean picture. A trajectory takes the steps T - T_hat .. T - 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from diffusers import DPMSolverMultistepScheduler

# What the weights were trained with. How a model's own scheduler samples (its spacing, its order,
# its Karras sigmas) is not used: our recipe decides that, and it is in the cache key.
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


@dataclass(frozen=True, eq=False)
class SolverTable:
    """All steps of one full schedule.

    Attributes:
        timesteps: The UNet's input, T integers, falling.
        alpha, sigma: Noise levels, float64 (T + 1,): ``alpha * clean + sigma * noise`` is level i.
        steps: float32 (T, 7), a row per step, as ``advance`` and ``noised`` take them: x0 from
            latents and from the prediction; next latents from latents, x0 and previous x0; alpha
            and sigma after the step.
        first_steps: The same where there is no previous x0 (its weight is 0): first order.
    """

    timesteps: tuple[int, ...]
    alpha: npt.NDArray[np.float64]
    sigma: npt.NDArray[np.float64]
    steps: npt.NDArray[np.float32]
    first_steps: npt.NDArray[np.float32]


def solver_table(
    noise_config: Mapping[str, Any], num_inference_steps: int, spacing: str
) -> SolverTable:
    """The table of a schedule.

    Args:
        noise_config: ``InpaintModel.noise_config``.
        num_inference_steps: T.
        spacing: See ``timesteps_for``.

    Raises:
        ValueError: See ``timesteps_for``.
    """
    scheduler = DPMSolverMultistepScheduler(
        final_sigmas_type="zero",
        **{key: noise_config[key] for key in NOISE_KEYS if key in noise_config},
    )
    timesteps = timesteps_for(scheduler.config.num_train_timesteps, num_inference_steps, spacing)
    scheduler.set_timesteps(timesteps=timesteps)
    ratio = scheduler.sigmas.double().numpy()  # (T + 1,), sigma / alpha, 0 at the end
    alpha = 1 / np.sqrt(1 + ratio**2)
    sigma = ratio * alpha
    if scheduler.config.prediction_type == "v_prediction":
        to_x0 = np.stack([alpha[:-1], -sigma[:-1]], axis=1)
    else:
        to_x0 = np.stack([1 / alpha[:-1], -sigma[:-1] / alpha[:-1]], axis=1)

    # x' = sigma' / sigma x + alpha' (1 - e^-h) (x0 + (x0 - previous) / 2 r), with e^-h = ratio' /
    # ratio, r = h_before / h. The first step and the one to the clean picture (h = inf) have no
    # second term.
    gain = alpha[1:] * (1 - ratio[1:] / ratio[:-1])
    half = np.zeros(num_inference_steps)  # 1 / 2 r
    if num_inference_steps > 2:
        h = np.log(ratio[:-2] / ratio[1:-1])
        half[1:-1] = h[1:] / (2 * h[:-1])
    from_latents = sigma[1:] / sigma[:-1]
    after = np.stack([alpha[1:], sigma[1:]], axis=1)
    second = np.stack([from_latents, gain * (1 + half), -gain * half], axis=1)
    first = np.stack([from_latents, gain, np.zeros_like(gain)], axis=1)
    return SolverTable(
        timesteps=tuple(timesteps),
        alpha=alpha,
        sigma=sigma,
        steps=np.concatenate([to_x0, second, after], axis=1).astype(np.float32),
        first_steps=np.concatenate([to_x0, first, after], axis=1).astype(np.float32),
    )


def advance(
    latents: torch.Tensor,
    previous_x0: torch.Tensor,
    prediction: torch.Tensor,
    coefficients: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """One step of every row, each at its own place in its own schedule.

    Args:
        latents: float32 (B, C, h, w).
        previous_x0: x0 of each row's step before, (B, C, h, w); anything finite in its first step.
        prediction: The UNet's answer (epsilon or v), float32 (B, C, h, w).
        coefficients: Each row's line of ``SolverTable.steps`` or ``first_steps``, float32 (B, 7).

    Returns:
        The next latents, and x0, which is the next step's ``previous_x0``.
    """
    x0_latents, x0_prediction, from_latents, from_x0, from_previous = _columns(coefficients, 0, 5)
    x0 = x0_latents * latents + x0_prediction * prediction
    return from_latents * latents + from_x0 * x0 + from_previous * previous_x0, x0


def noised(original: torch.Tensor, noise: torch.Tensor, coefficients: torch.Tensor) -> torch.Tensor:
    """Clean latents (B, C, h, w) at the noise level after each row's step.

    Args:
        original: The clean latents.
        noise: Standard normal, (B, C, h, w).
        coefficients: As in ``advance``.
    """
    alpha, sigma = _columns(coefficients, 5, 7)
    return alpha * original + sigma * noise


def _columns(coefficients: torch.Tensor, first: int, end: int) -> list[torch.Tensor]:
    return [coefficients[:, i, None, None, None] for i in range(first, end)]  # (B, 1, 1, 1) each
