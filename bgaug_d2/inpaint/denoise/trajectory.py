"""A picture's trajectory from noise to clean latents; trajectories share UNet calls.

Shapes, in all of ``denoise``:
    B        pictures of one step
    R        rows of a UNet call, one per picture and guidance branch
    W        the largest number of rows of a UNet call
    T        steps of the full schedule; T_hat, those that a picture takes
    S        side of the square that is painted, in pixels
    f        ``vae_factor``, pixels per latent cell and axis
    h, w     the latent grid, both S / f
    C        latent channels
    L, D     length and width of a prompt's embedding
    C'       channels of the features that DeepCache keeps, see ``deep_cache``
Latents are float32 between two steps whatever the model's dtype: the solver's differences are small
against its terms.

Where this differs from diffusers' StableDiffusionInpaintPipeline on purpose (everything else is
tested to agree with it):
- The integer T_hat is used as it is; the pipeline truncates ``T * strength``.
- Originals are encoded to the posterior's mean, not to a sample of it: a retry changes only the
  noise.
- A latent cell is painted only if all its pixels are background (or, where an object is painted, if
  any is the object's). The pipeline samples one pixel a cell, so small objects can vanish. The
  9-channel UNet's masked image is blanked by the same cells, so that its two mask inputs agree.
- Noise comes from one CPU generator per request, so a picture depends neither on its batch nor on
  the device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from bgaug_d2.config.recipe import DiffusionSettings
from bgaug_d2.inpaint.denoise.dpm_solver import SolverTable, advance, noised
from bgaug_d2.inpaint.denoise.unet_calls import predict, predict_with_cache
from bgaug_d2.inpaint.model.device_copy import copy_to_device_async
from bgaug_d2.inpaint.model.load import InpaintModel
from bgaug_d2.painting.engine_interface import PaintRequest
from bgaug_d2.pixels.masks import BoolMask, Picture, latent_background_mask, touched_latent_mask

# Gives the encoded (1, C, h, w) of a picture; cells that are True in the mask are blanked before:
# ``vae.encode_image`` or a ``LatentCache``.
Encoder = Callable[[InpaintModel, Picture, BoolMask | None], torch.Tensor]


@dataclass(eq=False)
class Trajectory:
    """One picture while it is denoised.

    Attributes:
        request: The request.
        table: The solver's, for the request's full schedule.
        embeddings: Those of the prompt and, with guidance, of the negative prompt, each (L, D).
        painted: bool (1, h, w), True on the cells that are painted.
        original: Encoded original, (C, h, w); None for a 9-channel UNet.
        inpaint_channels: Further input channels of a 9-channel UNet, (C + 1, h, w), or None.
        noise: Standard normal, (C, h, w), fixed for the whole trajectory.
        latents, previous_x0: State of the solver, (C, h, w).
        steps_taken: Number of steps done.
        cached_features: For each guidance branch, the features of its last full step, (C', h, w);
            None before the first, and always where every step is full.
    """

    request: PaintRequest
    table: SolverTable
    embeddings: list[torch.Tensor]
    painted: torch.Tensor
    original: torch.Tensor | None
    inpaint_channels: torch.Tensor | None
    noise: torch.Tensor
    latents: torch.Tensor
    previous_x0: torch.Tensor
    steps_taken: int = 0
    cached_features: list[torch.Tensor | None] = field(default_factory=lambda: [None, None])

    @property
    def settings(self) -> DiffusionSettings:
        """The request's settings."""
        return self.request.settings

    @property
    def index(self) -> int:
        """The next step of the full schedule, T - T_hat..T - 1."""
        return first_index(self.request) + self.steps_taken

    @property
    def done(self) -> bool:
        """Whether the latents are clean."""
        return self.steps_taken == self.request.T_hat

    @property
    def timestep(self) -> int:
        """The next step's timestep of the training schedule."""
        return self.table.timesteps[self.index]

    @property
    def coefficients(self) -> npt.NDArray[np.float32]:
        """The solver's coefficients of the next step, (7,); a first step has none before it."""
        second_order = self.steps_taken and self.settings.solver_order == 2
        return (self.table.steps if second_order else self.table.first_steps)[self.index]

    def needs_full_step(self, branch: int) -> bool:
        """Whether the next step of a guidance branch needs the whole UNet, see ``deep_cache``."""
        due = self.steps_taken % self.settings.deepcache_interval == 0
        return due or self.cached_features[branch] is None

    @property
    def guided(self) -> bool:
        """Whether the next step has two guidance branches."""
        return is_guided(self.settings, self.index)


def first_index(request: PaintRequest) -> int:
    """The step of the full schedule that a request begins with, T - T_hat."""
    return request.settings.num_inference_steps - request.T_hat


def is_guided(settings: DiffusionSettings, index: int) -> bool:
    """Whether step ``index`` of the full schedule has two guidance branches."""
    first, end = settings.guidance_interval
    return settings.guidance_scale > 1 and first <= index / settings.num_inference_steps < end


@torch.inference_mode()
def start_trajectory(
    model: InpaintModel, request: PaintRequest, table: SolverTable, encoder: Encoder
) -> Trajectory:
    """A trajectory before its first step.

    If T_hat is T, the latents are pure noise, also where they are kept: so do the paper and
    diffusers' pipeline. From the first step on, kept latents follow the noised original.

    Args:
        model: A loaded model.
        request: Checked by the caller.
        table: The solver's table for the request's schedule.
        encoder: Encodes the original.
    """
    # 1. Noise, and which latent cells are painted
    start = first_index(request)
    cells = request.image.shape[0] // model.vae_factor
    noise = _noise(request.seed, (model.latent_channels, cells, cells))  # (C, h, w)
    noise = copy_to_device_async(noise, model.device)
    latent_mask = touched_latent_mask if request.touched_cells else latent_background_mask
    mask = latent_mask(request.painted_mask, model.vae_factor)  # (h, w)
    painted = copy_to_device_async(torch.from_numpy(mask)[None], model.device)  # (1, h, w)

    # 2. What the model gets to see of the original: only what it needs is encoded
    blends = model.unet_in_channels == model.latent_channels
    original = encoder(model, request.image, None)[0] if blends or start else None  # (C, h, w)
    inpaint_channels = None
    if not blends:  # mask, and the picture with mid-grey where it is painted
        masked_image = encoder(model, request.image, mask)[0]
        inpaint_channels = torch.cat([painted.float(), masked_image])  # (C + 1, h, w)

    # 3. The first latents: the original at the noise level of the first step
    latents = noise
    if original is not None and start:
        latents = float(table.alpha[start]) * original + float(table.sigma[start]) * noise
    texts = [request.prompt]
    if request.settings.guidance_scale > 1:
        texts.append(request.settings.negative_prompt)
    return Trajectory(
        request=request,
        table=table,
        embeddings=list(model.prompts(texts)),
        painted=painted,
        original=original if blends else None,
        inpaint_channels=inpaint_channels,
        noise=noise,
        latents=latents,
        previous_x0=latents,
    )


@torch.inference_mode()
def denoise_step(
    model: InpaintModel, trajectories: Sequence[Trajectory], max_batch_rows: int = 0
) -> int:
    """One step of each trajectory: UNet, classifier-free guidance, solver, blending of eq. 2.

    If it fails, nothing has changed.

    Args:
        model: A loaded model.
        trajectories: Not done, of one size; each at its own step of its own schedule.
        max_batch_rows: W; 0 takes all rows in one call.

    Returns:
        R, rows evaluated, without padding.
    """
    latents = torch.stack([each.latents for each in trajectories])  # (B, C, h, w)
    guided = [number for number, each in enumerate(trajectories) if each.guided]
    # Rows: the conditional branch of all, then the unconditional one of those that are guided.
    branches = [(each, 0) for each in trajectories] + [(trajectories[i], 1) for i in guided]
    pairs = copy_to_device_async(torch.tensor(guided, dtype=torch.int64), model.device)
    prediction, features = _predict_rows(model, latents, pairs, branches, max_batch_rows)
    scales = [trajectories[i].settings.guidance_scale for i in guided]
    prediction = _guide(prediction, len(latents), pairs, scales)  # (B, C, h, w)

    coefficients = torch.from_numpy(np.stack([each.coefficients for each in trajectories]))
    coefficients = copy_to_device_async(coefficients, model.device)  # (B, 7)
    previous_x0 = torch.stack([each.previous_x0 for each in trajectories])
    latents, x0 = advance(latents, previous_x0, prediction, coefficients)  # (B, C, h, w) each
    # A 4-channel UNet does not know the mask, so kept latents are put back (eq. 2).
    if trajectories[0].original is not None:
        kept = noised(
            _stack(each.original for each in trajectories),
            torch.stack([each.noise for each in trajectories]),
            coefficients,
        )
        latents = torch.where(torch.stack([each.painted for each in trajectories]), latents, kept)

    # Only now, when nothing can fail any more, does the state change.
    for each, next_latents, next_x0 in zip(trajectories, latents, x0, strict=True):
        each.latents, each.previous_x0 = next_latents, next_x0
        each.steps_taken += 1
    for (each, branch), own in zip(branches, features, strict=False):
        each.cached_features[branch] = own
    return len(branches)


def _predict_rows(
    model: InpaintModel,
    latents: torch.Tensor,
    pairs: torch.Tensor,
    branches: Sequence[tuple[Trajectory, int]],
    max_batch_rows: int,
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The UNet's predictions, (R, C, h, w), and the features that DeepCache keeps, if it is on.

    Args:
        model: A loaded model.
        latents: (B, C, h, w).
        pairs: int64, numbers of the pictures that have an unconditional branch.
        branches: Picture and branch (0 conditional, 1 unconditional) of each of the R rows.
        max_batch_rows: W.
    """
    trajectories = [each for each, branch in branches if branch == 0]
    inputs = latents
    if trajectories[0].inpaint_channels is not None:
        channels = _stack(each.inpaint_channels for each in trajectories)
        inputs = torch.cat([latents, channels], dim=1)  # (B, 2 C + 1, h, w)
    inputs = torch.cat([inputs, inputs[pairs]]).to(model.dtype)  # (R, C or 2 C + 1, h, w)
    embeddings = torch.stack([each.embeddings[branch] for each, branch in branches])  # (R, L, D)
    timesteps = torch.tensor([each.timestep for each, _ in branches])  # (R,)
    timesteps = copy_to_device_async(timesteps, model.device)

    if all(each.settings.deepcache_interval == 1 for each in trajectories):
        return predict(model, inputs, timesteps, embeddings, max_batch_rows), []
    known = [each.cached_features[branch] for each, branch in branches]
    full_rows = [row for row, (each, branch) in enumerate(branches) if each.needs_full_step(branch)]
    return predict_with_cache(
        model, inputs, timesteps, embeddings, known, full_rows, max_batch_rows
    )


def _guide(
    prediction: torch.Tensor, pictures: int, pairs: torch.Tensor, scales: Sequence[float]
) -> torch.Tensor:
    """Classifier-free guidance (Ho and Salimans 2022, arXiv 2207.12598, eq. 6).

    Args:
        prediction: The UNet's, for each of the R rows, (R, C, h, w).
        pictures: B.
        pairs: int64 (R - B,), numbers of the pictures that have an unconditional branch.
        scales: Their guidance scales, in the same order.

    Returns:
        One prediction a picture, (B, C, h, w).
    """
    prediction, unconditional = prediction[:pictures], prediction[pictures:]
    if not scales:
        return prediction
    scale = copy_to_device_async(torch.tensor(scales), prediction.device)[:, None, None, None]
    conditional = prediction[pairs]
    return prediction.index_copy(0, pairs, unconditional + scale * (conditional - unconditional))


def _noise(seed: int, shape: tuple[int, ...]) -> torch.Tensor:
    # On the CPU: a GPU's generator gives other numbers, and the key does not name the device.
    return torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed))


def _stack(tensors: Iterable[torch.Tensor | None]) -> torch.Tensor:
    """Stack what all trajectories of a batch have."""
    return torch.stack([each for each in tensors if each is not None])
