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

from bgaug_d2.inpaint.models import InpaintModel
from bgaug_d2.inpaint.reuse import outer_step, whole_step
from bgaug_d2.inpaint.solver import SolverTable, advance, noised
from bgaug_d2.masks import Picture, latent_background_mask, touched_latent_mask
from bgaug_d2.paint_request import PaintRequest

# Gives the encoded (1, C, h, w) of pixels uint8 (S, S, 3), cells blanked where there are some:
# ``encode_image``, or what remembers it.
Encoder = Callable[[InpaintModel, np.ndarray, torch.Tensor | None], torch.Tensor]


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
    noise = _noise(request.seed, (model.latent_channels, cells, cells)).to(model.device)
    latent_mask = touched_latent_mask if request.touched_cells else latent_background_mask
    mask = latent_mask(request.painted_mask, model.vae_factor)
    painted = torch.from_numpy(mask).to(model.device)[None]
    blends = model.unet_in_channels == model.latent_channels
    original = encoder(model, request.image, None)[0] if blends or start else None
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
        extra=None if blends else _inpainting_channels(model, request.image, painted, encoder),
        noise=noise,
        latents=latents,
        previous=latents,
    )


@torch.inference_mode()
def step(model: InpaintModel, walks: Sequence[Walk], rows: int = 0, pad: bool = False) -> int:
    """One step of each walk: UNet, classifier-free guidance, solver, blending of eq. 2.

    Nothing is changed when it fails.

    Args:
        model: A loaded model.
        walks: Not done, of one size; each at its own step of its own schedule.
        rows: W, rows of a UNet call; 0 takes all in one.
        pad: Fill each call up to ``rows``, for a model compiled for that number.

    Returns:
        Rows evaluated, without padding.
    """
    # 1. Rows: the conditional branch of all, then the unconditional one of those that are guided
    guided = [number for number, walk in enumerate(walks) if walk.guided]
    latents = torch.stack([walk.latents for walk in walks])  # (B, C, h, w)
    inputs = latents
    if walks[0].extra is not None:
        inputs = torch.cat([latents, _stack(walk.extra for walk in walks)], dim=1)
    inputs = torch.cat([inputs, inputs[guided]]).to(model.dtype)  # (R, C or 2 C + 1, h, w)
    embeddings = torch.stack(
        [walk.embeddings[0] for walk in walks] + [walks[i].embeddings[1] for i in guided]
    )
    told = [walk.table.timesteps[walk.index] for walk in walks]
    timesteps = torch.tensor(told + [told[i] for i in guided], device=model.device)

    # 2. The UNet, and guidance
    branches = [(walk, 0) for walk in walks] + [(walks[i], 1) for i in guided]
    if all(walk.request.whole_every == 1 for walk in walks):
        prediction = predict(model, inputs, timesteps, embeddings, rows, pad)  # (R, C, h, w)
        inner: list[torch.Tensor] = []
    else:
        prediction, inner = predict_in_parts(model, branches, inputs, timesteps, embeddings, rows)
    prediction, unconditional = prediction[: len(walks)], prediction[len(walks) :]
    if guided:
        scales = [walks[i].request.guidance_scale for i in guided]
        scale = torch.tensor(scales, device=model.device)[:, None, None, None]
        prediction = prediction.clone()
        prediction[guided] = unconditional + scale * (prediction[guided] - unconditional)

    # 3. The solver; a 4-channel UNet does not know the mask, so kept latents are put back (eq. 2)
    steps = torch.from_numpy(np.stack([walk.line for walk in walks])).to(model.device)  # (B, 7)
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


def predict(
    model: InpaintModel,
    inputs: torch.Tensor,
    timesteps: torch.Tensor,
    embeddings: torch.Tensor,
    rows: int = 0,
    pad: bool = False,
) -> torch.Tensor:
    """The UNet's predictions, float32 (R, C, h, w), in calls of at most ``rows``.

    Args:
        model: A loaded model.
        inputs: (R, C or 2 C + 1, h, w) in the model's dtype.
        timesteps: int64 (R,), of the training schedule.
        embeddings: (R, L, D).
        rows: Per call; 0 takes all in one.
        pad: Fill each call up to ``rows``.
    """
    size = rows or len(inputs)
    chunks = zip(inputs.split(size), timesteps.split(size), embeddings.split(size), strict=True)
    found = []
    for chunk, told, texts in chunks:
        missing = size - len(chunk) if pad else 0
        padded = [_padded(each, missing) for each in (chunk, told, texts)]
        answer = model.unet(
            padded[0], padded[1], encoder_hidden_states=padded[2], return_dict=False
        )[0]
        found.append(answer[: len(chunk)].float())
    return torch.cat(found)


def predict_in_parts(
    model: InpaintModel,
    branches: Sequence[tuple[Walk, int]],
    inputs: torch.Tensor,
    timesteps: torch.Tensor,
    embeddings: torch.Tensor,
    rows: int,
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """As ``predict``, with the whole UNet for some rows and its outer level for the others.

    Args:
        model: A loaded model, not compiled.
        branches: The walk and guidance branch of each row.
        inputs: As in ``predict``, like the next three.
        timesteps: See there.
        embeddings: See there.
        rows: See there.

    Returns:
        Predictions, float32 (R, C, h, w), and each row's inner features: new ones where the step
        was whole, else those that the walk has.
    """
    inner = [walk.inner[branch] for walk, branch in branches]
    whole = [
        row
        for row, (walk, _) in enumerate(branches)
        if inner[row] is None or walk.taken % walk.request.whole_every == 0
    ]
    outer = [row for row in range(len(branches)) if row not in whole]
    predicted: dict[int, torch.Tensor] = {}
    for chunk in _chunks(whole, rows):
        parts = inputs[chunk], timesteps[chunk], embeddings[chunk]
        answers, features = whole_step(model.unet, *parts)
        predicted |= dict(zip(chunk, answers.float(), strict=True))
        for row, each in zip(chunk, features, strict=True):
            inner[row] = each
    for chunk in _chunks(outer, rows):
        parts = inputs[chunk], timesteps[chunk], embeddings[chunk]
        answers = outer_step(model.unet, *parts, _stack(inner[row] for row in chunk))
        predicted |= dict(zip(chunk, answers.float(), strict=True))
    ordered = [predicted[row] for row in range(len(branches))]
    return torch.stack(ordered), [each for each in inner if each is not None]


def _chunks(rows: Sequence[int], size: int) -> list[Sequence[int]]:
    size = size or max(len(rows), 1)
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def _noise(seed: int, shape: tuple[int, ...]) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed))


def _inpainting_channels(
    model: InpaintModel, image: Picture, painted: torch.Tensor, encoder: Encoder
) -> torch.Tensor:
    """Mask and encoded masked image, (1 + C, h, w); painted pixels are mid-grey in the image."""
    return torch.cat([painted.float()[None], encoder(model, image, painted)], dim=1)[0]


def _padded(values: torch.Tensor, missing: int) -> torch.Tensor:
    """``values`` with its last row repeated ``missing`` times."""
    return (
        torch.cat([values, values[-1:].expand(missing, *values.shape[1:])])
        if missing > 0
        else values
    )


def _stack(tensors: Iterable[torch.Tensor | None]) -> torch.Tensor:
    """Stack what all walks of a batch have."""
    return torch.stack([each for each in tensors if each is not None])
