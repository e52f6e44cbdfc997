"""Pictures to latents and back: what the autoencoder does before and after a trajectory.

Shapes as in ``trajectory``. Latents are float32 whatever the model's dtype.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from bgaug_d2.inpaint.model.device_copy import copy_to_device_async
from bgaug_d2.inpaint.model.load import InpaintModel
from bgaug_d2.pixels.masks import BoolMask, Picture


@torch.inference_mode()
def decode_to_uint8(
    model: InpaintModel, latents: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Clean latents (B, C, h, w) as pictures, on the model's device.

    Returns:
        uint8 RGB (B, S, S, 3), and bool (B,): False where a latent or a pixel is not finite.
    """
    decoded = decode(model, latents)  # (B, 3, S, S)
    # For each picture by itself: a fault of one must not reach its batch mates.
    finite = torch.isfinite(latents).flatten(1).all(1) & torch.isfinite(decoded).flatten(1).all(1)
    pixels = ((decoded / 2 + 0.5).clamp(0, 1) * 255).round().nan_to_num(0).to(torch.uint8)
    return pixels.permute(0, 2, 3, 1).contiguous(), finite


def encode_image(
    model: InpaintModel, image: Picture, blanked: BoolMask | None = None
) -> torch.Tensor:
    """Encoded picture, float32 (1, C, h, w).

    Args:
        model: A loaded model.
        image: uint8 RGB (S, S, 3).
        blanked: bool (h, w), cells whose pixels become mid-grey before; None blanks none.
    """
    pixels = _pixels(model, image)
    if blanked is not None:
        cells = copy_to_device_async(torch.from_numpy(blanked), model.device).float()[None, None]
        pixels = pixels * (1 - F.interpolate(cells, scale_factor=float(model.vae_factor)))
    return encode(model, pixels)


def encode(model: InpaintModel, pixels: torch.Tensor) -> torch.Tensor:
    """The posterior's mean, scaled, float32 (B, C, h, w), for pixels in -1..1, (B, 3, S, S)."""
    # One by one, here and in decode: just as fast, and the autoencoder's activations, which are the
    # largest by far, take the memory of one picture whatever the batch.
    singles = pixels.to(model.dtype).split(1)
    means = torch.cat([model.vae.encode(each).latent_dist.mode() for each in singles])
    return means.float() * model.vae.config.scaling_factor


def decode(model: InpaintModel, latents: torch.Tensor) -> torch.Tensor:
    """Pixels, float32 (B, 3, S, S), about -1..1, of scaled latents (B, C, h, w)."""
    singles = (latents / model.vae.config.scaling_factor).to(model.dtype).split(1)
    return torch.cat([model.vae.decode(each, return_dict=False)[0] for each in singles]).float()


def _pixels(model: InpaintModel, image: Picture) -> torch.Tensor:
    """float32 (1, 3, S, S), -1..1, of uint8 RGB (S, S, 3)."""
    pixels = copy_to_device_async(torch.from_numpy(np.ascontiguousarray(image)), model.device)
    # Contiguous: torch's channels-last kernels on a CPU are ten times less exact.
    return pixels.permute(2, 0, 1)[None].contiguous().float() / 127.5 - 1.0
