"""What a request must be like for the engine to paint it."""

from __future__ import annotations

import numpy as np

from bgaug_d2.inpaint.denoise.dpm_solver import timesteps_for
from bgaug_d2.inpaint.model.load import InpaintModel
from bgaug_d2.painting.engine_interface import PaintRequest


def fault_of(model: InpaintModel, request: PaintRequest) -> str | None:
    """Why a model cannot paint a request, in a sentence; None if it can."""
    image, factor = request.image, model.vae_factor
    side = image.shape[0]
    if image.dtype != np.uint8 or image.shape != (side, side, 3):
        return f"image must be uint8 (S, S, 3), got {image.dtype} {image.shape}"
    mask = request.painted_mask
    if mask.dtype != np.bool_ or mask.shape != (side, side):
        return f"painted mask must be bool ({side}, {side}), got {mask.dtype} {mask.shape}"
    if side == 0 or side % factor:
        return f"resolution {side} must be a multiple of {factor}, the model's pixels per latent"
    if not 1 <= request.T_hat <= request.num_inference_steps:
        return f"T_hat={request.T_hat} must be between 1 and T={request.num_inference_steps}"
    if not request.guidance_scale >= 1:
        return f"guidance_scale={request.guidance_scale} must be at least 1"
    if not 0 <= request.guidance_interval[0] <= request.guidance_interval[1] <= 1:
        return f"guidance_interval={request.guidance_interval} must rise within 0..1"
    if request.solver_order not in (1, 2):
        return f"solver_order={request.solver_order} must be 1 or 2"
    if request.whole_every < 1:
        return f"whole_every={request.whole_every} must be at least 1"
    if not 0 <= request.seed < 2**63:
        return f"seed={request.seed} must be in [0, 2**63)"
    try:
        train = int(model.noise_config.get("num_train_timesteps", 1000))
        timesteps_for(train, request.num_inference_steps, request.timestep_spacing)
    except ValueError as error:
        return str(error)
    return None
