"""UNet calls of at most W rows: whole, compiled, or the outermost level alone.

Shapes as in ``trajectory``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from bgaug_d2.inpaint.denoise.deep_cache import cached_step, full_step
from bgaug_d2.inpaint.model.device_copy import copy_to_device_async
from bgaug_d2.inpaint.model.load import InpaintModel


def predict(
    model: InpaintModel,
    inputs: torch.Tensor,
    timesteps: torch.Tensor,
    embeddings: torch.Tensor,
    max_batch_rows: int = 0,
) -> torch.Tensor:
    """The UNet's predictions, float32 (R, C, h, w).

    Args:
        model: A loaded model.
        inputs: (R, C or 2 C + 1, h, w) in the model's dtype.
        timesteps: int64 (R,), of the training schedule.
        embeddings: (R, L, D).
        max_batch_rows: W; 0 takes all rows in one call.
    """
    size = max_batch_rows or len(inputs)
    chunks = zip(inputs.split(size), timesteps.split(size), embeddings.split(size), strict=True)
    predictions = []
    for chunk_inputs, chunk_timesteps, texts in chunks:
        if model.compiled_unet is not None:
            prediction = model.compiled_unet(chunk_inputs, chunk_timesteps, texts)
        else:
            prediction = model.unet(
                chunk_inputs, chunk_timesteps, encoder_hidden_states=texts, return_dict=False
            )[0]
        # float32 from here on: the solver's differences are small against its terms.
        predictions.append(prediction.float())
    return torch.cat(predictions)


def predict_with_cache(
    model: InpaintModel,
    inputs: torch.Tensor,
    timesteps: torch.Tensor,
    embeddings: torch.Tensor,
    cached_features: Sequence[torch.Tensor | None],
    full_rows: Sequence[int],
    max_batch_rows: int = 0,
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """As ``predict``, with the whole UNet for some rows and its outermost level for the others.

    Args:
        model: A loaded model. Its plain UNet is called, also if there is a compiled one.
        inputs: As in ``predict``, like the next two.
        timesteps: See there.
        embeddings: See there.
        cached_features: Each row's features of an earlier step, (C', h, w), see ``deep_cache``;
            None where there was none.
        full_rows: The rows for which the whole UNet runs; all rows without features are among them.
        max_batch_rows: W; 0 takes all rows of a kind in one call.

    Returns:
        Predictions, float32 (R, C, h, w), and each row's features: new ones of ``full_rows``.
    """
    # The two kinds of rows run different parts of the UNet, so they cannot share a call.
    cached_rows = sorted(set(range(len(inputs))) - set(full_rows))
    features = list(cached_features)
    predictions: dict[int, torch.Tensor] = {}
    for chunk in _chunks(full_rows, max_batch_rows):
        # A list as an index would be copied by torch, and the host would wait for the GPU.
        picked = copy_to_device_async(torch.tensor(chunk), model.device)
        predicted, new = full_step(
            model.unet, inputs[picked], timesteps[picked], embeddings[picked]
        )
        predictions |= dict(zip(chunk, predicted.float(), strict=True))
        for row, each in zip(chunk, new, strict=True):
            features[row] = each
    for chunk in _chunks(cached_rows, max_batch_rows):
        picked = copy_to_device_async(torch.tensor(chunk), model.device)
        known = torch.stack([each for row in chunk if (each := cached_features[row]) is not None])
        predicted = cached_step(
            model.unet, inputs[picked], timesteps[picked], embeddings[picked], known
        )
        predictions |= dict(zip(chunk, predicted.float(), strict=True))
    # The calls answered the rows out of their order.
    ordered = [predictions[row] for row in range(len(inputs))]
    return torch.stack(ordered), [each for each in features if each is not None]


def _chunks(rows: Sequence[int], size: int) -> list[Sequence[int]]:
    size = size or max(len(rows), 1)
    return [rows[start : start + size] for start in range(0, len(rows), size)]
