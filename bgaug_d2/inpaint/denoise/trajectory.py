"""A picture's walk from noise to picture; walks share UNet calls, whatever step each is at.

Shapes: B pictures of one UNet call; R its rows, one per picture and guidance branch; S side of the
square in pixels; C latent channels; h = w = S / f with f = ``vae_factor``; L, D length and width
of a prompt's embedding. Latents are float32 between two steps whatever the model's dtype: the
solver's differences are small against its terms.

Where this differs from diffusers' StableDiffusionInpaintPipeline on purpose (everything else is
tested to agree with it):
- The integer T_hat is used as it is; the pipeline truncates ``T * strength``.
- Originals are encoded to the posterior's mean, not to a sample of it: a retry changes only the
  noise.
- A latent cell is painted only if all its pixels are background (or, where an object is painted, if
  any is the object's); the pipeline samples one pixel a cell, so small objects can vanish. The
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

from bgaug_d2.inpaint.denoise.dpm_solver import SolverTable, advance, noised
from bgaug_d2.inpaint.denoise.unet_calls import predict, predict_in_parts
from bgaug_d2.inpaint.model.device_copy import to_device
from bgaug_d2.inpaint.model.load import InpaintModel
from bgaug_d2.painting.engine_interface import PaintRequest
from bgaug_d2.pixels.masks import BoolMask, Picture, latent_background_mask, touched_latent_mask

# Gives the encoded (1, C, h, w) of a picture, cells blanked where there are some: ``encode_image``,
# or what remembers it.
Encoder = Callable[[InpaintModel, Picture, BoolMask | None], torch.Tensor]


@dataclass(eq=False)
class Walk:
    """One picture on its way.

    Attributes:
        request: What was asked for.
        table: The solver's, of the request's full schedule.
        embeddings: Of the prompt and, with guidance, of the negative prompt, each (L, D).
        painted: bool (1, h, w), True on the cells that are painted.
        original: Encoded original, (C, h, w); None for a 9-channel UNet.
        extra: Further input channels of a 9-channel UNet, (C + 1, h, w), or None.
        noise: Standard normal, (C, h, w), fixed for the whole walk.
        latents, previous: State of the solver, (C, h, w).
        taken: Steps taken.
        inner: Of each guidance branch the inner features of the last whole step, (C', h, w), see
            ``reuse``; None before the first, and always where every step is whole.
    """

    request: PaintRequest
    table: SolverTable
    embeddings: list[torch.Tensor]
    painted: torch.Tensor
    original: torch.Tensor | None
    extra: torch.Tensor | None
    noise: torch.Tensor
    latents: torch.Tensor
    previous: torch.Tensor
    taken: int = 0
    inner: list[torch.Tensor | None] = field(default_factory=lambda: [None, None])

    @property
    def index(self) -> int:
        """The next step of the full schedule, T - T_hat..T - 1."""
        return self.request.num_inference_steps - self.request.T_hat + self.taken

    @property
    def done(self) -> bool:
        """Whether the latents are clean."""
        return self.taken == self.request.T_hat

    @property
    def line(self) -> npt.NDArray[np.float32]:
        """The solver's numbers of the next step, (7,); a first step has no step before it."""
        second = self.taken and self.request.solver_order == 2
        return (self.table.steps if second else self.table.first_steps)[self.index]

    def is_whole(self, branch: int) -> bool:
        """Whether the next step of a guidance branch needs the whole UNet, see ``reuse``."""
        return self.inner[branch] is None or self.taken % self.request.whole_every == 0

    @property
    def guided(self) -> bool:
        """Whether the next step has two guidance branches."""
        return is_guided(self.request, self.index)


def is_guided(request: PaintRequest, index: int) -> bool:
    """Whether step ``index`` of the full schedule has two guidance branches."""
    first, end = request.guidance_interval
    return request.guidance_scale > 1 and first <= index / request.num_inference_steps < end


@torch.inference_mode()
def begin(model: InpaintModel, request: PaintRequest, table: SolverTable, encoder: Encoder) -> Walk:
    """A walk before its first step.

    Starting at T, nothing of the original is mixed in, not even where latents are kept: so do the
    paper and diffusers' pipeline. From the first step on kept latents follow the noised original.

    Args:
        model: A loaded model.
        request: Checked by the caller.
        table: Of the request's schedule.
        encoder: Encodes the original.
    """
    start = request.num_inference_steps - request.T_hat
    cells = request.image.shape[0] // model.vae_factor
    noise = to_device(_noise(request.seed, (model.latent_channels, cells, cells)), model.device)
    latent_mask = touched_latent_mask if request.touched_cells else latent_background_mask
    mask = latent_mask(request.painted_mask, model.vae_factor)
    painted = to_device(torch.from_numpy(mask)[None], model.device)
    blends = model.unet_in_channels == model.latent_channels
    original = encoder(model, request.image, None)[0] if blends or start else None
    extra = None
    if not blends:  # mask, and the picture with mid-grey where it is painted
        extra = torch.cat([painted.float(), encoder(model, request.image, mask)[0]])
    latents = noise
    if original is not None and start:
        latents = float(table.alpha[start]) * original + float(table.sigma[start]) * noise
    texts = [request.prompt]
    if request.guidance_scale > 1:
        texts.append(request.negative_prompt)
    return Walk(
        request=request,
        table=table,
        embeddings=list(model.prompts(texts)),
        painted=painted,
        original=original if blends else None,
        extra=extra,
        noise=noise,
        latents=latents,
        previous=latents,
    )


@torch.inference_mode()
def step(model: InpaintModel, walks: Sequence[Walk], rows: int = 0) -> int:
    """One step of each walk: UNet, classifier-free guidance, solver, blending of eq. 2.

    Nothing is changed when it fails.

    Args:
        model: A loaded model.
        walks: Not done, of one size; each at its own step of its own schedule.
        rows: W, rows of a UNet call; 0 takes all in one.

    Returns:
        R, rows evaluated, without padding.
    """
    # 1. Rows: the conditional branch of all, then the unconditional one of those that are guided
    guided = [number for number, walk in enumerate(walks) if walk.guided]
    latents = torch.stack([walk.latents for walk in walks])  # (B, C, h, w)
    inputs = latents
    if walks[0].extra is not None:
        inputs = torch.cat([latents, _stack(walk.extra for walk in walks)], dim=1)
    pairs = to_device(torch.tensor(guided, dtype=torch.int64), model.device)
    inputs = torch.cat([inputs, inputs[pairs]]).to(model.dtype)  # (R, C or 2 C + 1, h, w)
    embeddings = torch.stack(
        [walk.embeddings[0] for walk in walks] + [walks[i].embeddings[1] for i in guided]
    )
    told = [walk.table.timesteps[walk.index] for walk in walks]
    timesteps = to_device(torch.tensor(told + [told[i] for i in guided]), model.device)

    # 2. The UNet, and guidance
    branches = [(walk, 0) for walk in walks] + [(walks[i], 1) for i in guided]
    if all(walk.request.whole_every == 1 for walk in walks):
        prediction = predict(model, inputs, timesteps, embeddings, rows)  # (R, C, h, w)
        inner: list[torch.Tensor] = []
    else:
        known = [walk.inner[branch] for walk, branch in branches]
        whole = [row for row, (walk, branch) in enumerate(branches) if walk.is_whole(branch)]
        prediction, inner = predict_in_parts(
            model, inputs, timesteps, embeddings, known, whole, rows
        )
    prediction, unconditional = prediction[: len(walks)], prediction[len(walks) :]
    if guided:
        scales = [walks[i].request.guidance_scale for i in guided]
        scale = to_device(torch.tensor(scales), model.device)[:, None, None, None]
        conditional = prediction[pairs]
        prediction = prediction.index_copy(
            0, pairs, unconditional + scale * (conditional - unconditional)
        )

    # 3. The solver; a 4-channel UNet does not know the mask, so kept latents are put back (eq. 2)
    lines = torch.from_numpy(np.stack([walk.line for walk in walks]))
    steps = to_device(lines, model.device)  # (B, 7)
    previous = torch.stack([walk.previous for walk in walks])
    latents, x0 = advance(latents, previous, prediction, steps)
    if walks[0].original is not None:
        kept = noised(
            _stack(walk.original for walk in walks),
            torch.stack([walk.noise for walk in walks]),
            steps,
        )
        latents = torch.where(torch.stack([walk.painted for walk in walks]), latents, kept)
    for walk, after, clean in zip(walks, latents, x0, strict=True):
        walk.latents, walk.previous, walk.taken = after, clean, walk.taken + 1
    for (walk, branch), features in zip(branches, inner, strict=False):
        walk.inner[branch] = features
    return len(inputs)


def _noise(seed: int, shape: tuple[int, ...]) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed))


def _stack(tensors: Iterable[torch.Tensor | None]) -> torch.Tensor:
    """Stack what all walks of a batch have."""
    return torch.stack([each for each in tensors if each is not None])
