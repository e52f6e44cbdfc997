"""Painting one batch: encode, walk from noise to picture with eq. 2's blending, decode.

Shapes: B pictures of one batch; S side of the square in pixels; C latent channels; h = w = S / f
with f = ``vae_factor``; L, D length and width of a prompt's embedding. Latents are float32 between
two steps whatever the model's dtype: the solver's differences are small against its terms.

Where this differs from diffusers' StableDiffusionInpaintPipeline on purpose (everything else is
tested to agree with it):
- The integer T_hat is used as it is; the pipeline truncates ``T * strength``.
- Originals are encoded to the posterior's mean, not to a sample of it: a retry changes only the
  noise.
- A latent cell is painted only if all its pixels are background; the pipeline samples one pixel a
  cell, so small objects can vanish. The 9-channel UNet's masked image is blanked by the same cells,
  so that its two mask inputs agree.
- Noise comes from one CPU generator per request, so a picture depends neither on its batch nor on
  the device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F

from bgaug_d2.inpaint.models import InpaintModel
from bgaug_d2.inpaint.schedule import Schedule
from bgaug_d2.masks import Picture, latent_background_mask
from bgaug_d2.painting import PaintRequest


@torch.inference_mode()
def paint(
    model: InpaintModel, requests: Sequence[PaintRequest], on_step: Callable[[], None]
) -> list[Picture | None]:
    """New backgrounds for requests that share T_hat, T, guidance, spacing and size.

    Args:
        model: A loaded model.
        requests: At least one, checked by the caller.
        on_step: Called after each UNet call.

    Returns:
        Per request the picture, uint8 RGB (S, S, 3), or None where a latent or pixel is not finite.
    """
    latents = denoise(model, requests, on_step)  # (B, C, h, w)
    decoded = decode(model, latents)  # (B, 3, S, S)
    # Row by row: what is wrong with one picture must not reach its batch mates.
    finite = torch.isfinite(latents).flatten(1).all(1) & torch.isfinite(decoded).flatten(1).all(1)
    pixels = ((decoded / 2 + 0.5).clamp(0, 1) * 255).round().nan_to_num(0).to(torch.uint8)
    rows = pixels.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return [row if good else None for row, good in zip(rows, finite.tolist(), strict=True)]


@torch.inference_mode()
def denoise(
    model: InpaintModel, requests: Sequence[PaintRequest], on_step: Callable[[], None]
) -> torch.Tensor:
    """The walk from noise to clean latents, float32 (B, C, h, w); arguments as of ``paint``."""
    first = requests[0]
    # 1. Schedule, and the noise that each request keeps for its whole walk
    schedule = Schedule(
        model.noise_config, first.num_inference_steps, first.T_hat, first.timestep_spacing
    )
    cells = first.image.shape[0] // model.vae_factor
    shape = (model.latent_channels, cells, cells)
    noise = torch.stack([_noise(each.seed, shape) for each in requests]).to(model.device)

    # 2. Pixels and masks, True where painted
    pixels = torch.from_numpy(np.stack([each.image for each in requests])).to(model.device)
    # Contiguous: torch's channels-last kernels on a CPU are ten times less exact.
    pixels = pixels.permute(0, 3, 1, 2).contiguous().float() / 127.5 - 1.0  # (B, 3, S, S), -1..1
    masks = [latent_background_mask(each.background_mask, model.vae_factor) for each in requests]
    painted = torch.from_numpy(np.stack(masks)).to(model.device)[:, None]  # (B, 1, h, w)

    # 3. What the UNet is told besides the latents
    texts = [each.prompt for each in requests]
    if first.guidance_scale > 1:
        texts = [each.negative_prompt for each in requests] + texts
    embeddings = model.prompts(texts)  # (B or 2 B, L, D)
    blends = model.unet_in_channels == model.latent_channels
    extra = None if blends else _inpainting_channels(model, pixels, painted.float())

    # 4. Start at index T - T_hat
    original = encode(model, pixels) if blends or not schedule.pure_noise else None
    latents = schedule.start(original, noise)  # (B, C, h, w)

    # 5. Denoise; a 4-channel UNet does not know the mask, so kept latents are put back (eq. 2)
    for index, timestep in enumerate(schedule.timesteps):
        prediction = predict(model, latents, timestep, embeddings, extra, first.guidance_scale)
        latents = schedule.step(prediction, index, latents)
        if blends and original is not None:
            kept = schedule.noised(original, noise, index + 1)  # the original after the last step
            latents = torch.where(painted, latents, kept)
        on_step()
    return latents


def predict(
    model: InpaintModel,
    latents: torch.Tensor,
    timestep: int,
    embeddings: torch.Tensor,
    extra: torch.Tensor | None,
    guidance_scale: float,
) -> torch.Tensor:
    """The UNet's prediction, float32 (B, C, h, w), with classifier-free guidance where scale > 1.

    Args:
        model: A loaded model.
        latents: float32 (B, C, h, w).
        timestep: Of the training schedule.
        embeddings: (B, L, D), or with guidance (2 B, L, D), negative prompts first.
        extra: Further input channels of a 9-channel UNet, (B, C + 1, h, w), or None.
        guidance_scale: 1 takes a single branch.
    """
    rows = latents if extra is None else torch.cat([latents, extra.float()], dim=1)
    branches = embeddings.shape[0] // latents.shape[0]
    rows = torch.cat([rows] * branches).to(model.dtype)
    timesteps = torch.full((rows.shape[0],), timestep, dtype=torch.int64, device=model.device)
    prediction = model.unet(rows, timesteps, encoder_hidden_states=embeddings, return_dict=False)[0]
    prediction = prediction.float()
    if branches == 1:
        return prediction
    unconditional, conditional = prediction.chunk(2)
    return unconditional + guidance_scale * (conditional - unconditional)


def encode(model: InpaintModel, pixels: torch.Tensor) -> torch.Tensor:
    """The posterior's mean, scaled, float32 (B, C, h, w), for pixels in -1..1, (B, 3, S, S)."""
    # Row by row, here and in decode: just as fast, and the autoencoder's activations, which are the
    # largest by far, take the memory of one picture whatever the batch.
    rows = pixels.to(model.dtype).split(1)
    means = torch.cat([model.vae.encode(row).latent_dist.mode() for row in rows])
    return means.float() * model.vae.config.scaling_factor


def decode(model: InpaintModel, latents: torch.Tensor) -> torch.Tensor:
    """Pixels, float32 (B, 3, S, S), about -1..1, of scaled latents (B, C, h, w)."""
    rows = (latents / model.vae.config.scaling_factor).to(model.dtype).split(1)
    return torch.cat([model.vae.decode(row, return_dict=False)[0] for row in rows]).float()


def _noise(seed: int, shape: tuple[int, ...]) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed))


def _inpainting_channels(
    model: InpaintModel, pixels: torch.Tensor, painted: torch.Tensor
) -> torch.Tensor:
    """Mask and encoded masked image, (B, 1 + C, h, w); painted pixels are mid-grey in the image."""
    blank = F.interpolate(painted, scale_factor=float(model.vae_factor), mode="nearest")
    return torch.cat([painted, encode(model, pixels * (1 - blank))], dim=1)
