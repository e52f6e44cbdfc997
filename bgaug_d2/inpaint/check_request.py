"""What a request must be like for the engine to paint it."""

from __future__ import annotations

import numpy as np

from bgaug_d2.config.recipe import DiffusionSettings
from bgaug_d2.inpaint.denoise.dpm_solver import timesteps_for
from bgaug_d2.inpaint.model.load import InpaintModel
from bgaug_d2.painting.engine_interface import PaintRequest


def check_request(model: InpaintModel, request: PaintRequest) -> None:
    """Check that a model can paint a request.

    Raises:
        ValueError: It cannot; the message says why.
    """
    _check_pictures(request, model.vae_factor)
    T = request.settings.num_inference_steps
    if not 1 <= request.T_hat <= T:
        raise ValueError(f"T_hat={request.T_hat} must be between 1 and T={T}")
    if not 0 <= request.seed < 2**63:
        raise ValueError(f"seed={request.seed} must be in [0, 2**63)")
    _check_settings(request.settings)
    num_train_timesteps = int(model.noise_config.get("num_train_timesteps", 1000))
    # Called for its checks only: better an error here than in the first step.
    timesteps_for(num_train_timesteps, T, request.settings.timestep_spacing)


def _check_pictures(request: PaintRequest, factor: int) -> None:
    image, mask = request.image, request.painted_mask
    side = image.shape[0]
    if image.dtype != np.uint8 or image.shape != (side, side, 3):
        raise ValueError(f"image must be uint8 (S, S, 3), got {image.dtype} {image.shape}")
    if mask.dtype != np.bool_ or mask.shape != (side, side):
        raise ValueError(
            f"painted mask must be bool ({side}, {side}), got {mask.dtype} {mask.shape}"
        )
    if side == 0 or side % factor:
        raise ValueError(
            f"resolution {side} must be a multiple of {factor}, the model's pixels per latent"
        )


def _check_settings(settings: DiffusionSettings) -> None:
    if not settings.guidance_scale >= 1:  # written so that NaN is refused, too
        raise ValueError(f"guidance_scale={settings.guidance_scale} must be at least 1")
    if not 0 <= settings.guidance_interval[0] <= settings.guidance_interval[1] <= 1:
        raise ValueError(f"guidance_interval={settings.guidance_interval} must rise within 0..1")
    if settings.solver_order not in (1, 2):
        raise ValueError(f"solver_order={settings.solver_order} must be 1 or 2")
    if settings.deepcache_interval < 1:
        raise ValueError(f"deepcache_interval={settings.deepcache_interval} must be at least 1")
