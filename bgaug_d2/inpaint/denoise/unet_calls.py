"""UNet calls of at most W rows: whole, compiled, or the outer level alone.

Shapes as in ``painter``: R rows; C latent channels; h, w the latent grid; L, D of an embedding.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from bgaug_d2.inpaint.denoise.deep_cache import outer_step, whole_step
from bgaug_d2.inpaint.model.device_copy import to_device
from bgaug_d2.inpaint.model.load import InpaintModel


def predict(
    model: InpaintModel,
    inputs: torch.Tensor,
    timesteps: torch.Tensor,
    embeddings: torch.Tensor,
    rows: int = 0,
) -> torch.Tensor:
    """The UNet's predictions, float32 (R, C, h, w).

    Args:
        model: A loaded model.
        inputs: (R, C or 2 C + 1, h, w) in the model's dtype.
        timesteps: int64 (R,), of the training schedule.
        embeddings: (R, L, D).
        rows: W, of a call at most; 0 takes all in one.
    """
    size = rows or len(inputs)
    found = []
    for chunk in zip(
        inputs.split(size), timesteps.split(size), embeddings.split(size), strict=True
    ):
        if model.static is not None:
            answer = model.static(*chunk)
        else:
            latents, told, texts = chunk
            answer = model.unet(latents, told, encoder_hidden_states=texts, return_dict=False)[0]
        found.append(answer.float())
    return torch.cat(found)


def predict_in_parts(
    model: InpaintModel,
    inputs: torch.Tensor,
    timesteps: torch.Tensor,
    embeddings: torch.Tensor,
    inner: Sequence[torch.Tensor | None],
    whole: Sequence[int],
    rows: int = 0,
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """As ``predict``, with the whole UNet for some rows and its outer level for the others.

    Args:
        model: A loaded model; its UNet is called as it is, compiled or not.
        inputs: As in ``predict``, like the next two and ``rows``.
        timesteps: See there.
        embeddings: See there.
        inner: Each row's inner features of an earlier step, (C', h, w), see ``reuse``; None where
            there was none.
        whole: The rows for which the whole UNet runs, those without inner features among them.
        rows: See there.

    Returns:
        Predictions, float32 (R, C, h, w), and each row's inner features: new ones of ``whole``.
    """
    outer = sorted(set(range(len(inputs))) - set(whole))
    features = list(inner)
    predicted: dict[int, torch.Tensor] = {}
    for chunk in _chunks(whole, rows):
        picked = to_device(torch.tensor(chunk), model.device)
        answers, new = whole_step(model.unet, inputs[picked], timesteps[picked], embeddings[picked])
        predicted |= dict(zip(chunk, answers.float(), strict=True))
        for row, each in zip(chunk, new, strict=True):
            features[row] = each
    for chunk in _chunks(outer, rows):
        picked = to_device(torch.tensor(chunk), model.device)
        parts = inputs[picked], timesteps[picked], embeddings[picked]
        known = torch.stack([each for row in chunk if (each := inner[row]) is not None])
        predicted |= dict(zip(chunk, outer_step(model.unet, *parts, known).float(), strict=True))
    ordered = [predicted[row] for row in range(len(inputs))]
    return torch.stack(ordered), [each for each in features if each is not None]


def _chunks(rows: Sequence[int], size: int) -> list[Sequence[int]]:
    size = size or max(len(rows), 1)
    return [rows[start : start + size] for start in range(0, len(rows), size)]
