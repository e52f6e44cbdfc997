"""A UNet compiled for two numbers of rows, to which its calls are padded: W and a few.

If all calls were padded to W, those of a nearly empty engine, where somebody waits for one picture,
would take as long as full ones. Shapes as in ``trajectory``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from bgaug_d2.inpaint.model.load import InpaintModel

FEW_ROWS = 4  # two pictures with guidance
_ANY_TIMESTEP = 500  # compiling depends on shapes, not on values


class CompiledUnet:
    """Is compiled for each of its shapes in its first call, which takes a minute or more."""

    def __init__(self, unet: Any, max_batch_rows: int, cuda_graphs: bool = False) -> None:
        """Compile nothing yet.

        Args:
            unet: diffusers' UNet2DConditionModel. Its weights change to the layout channels_last,
                which is slower without compiling.
            max_batch_rows: W.
            cuda_graphs: Replay the calls of few rows as CUDA graphs, for a GPU that does them
                faster than its kernels can be launched. On a CPU it changes nothing.
        """
        unet = unet.to(memory_format=torch.channels_last)
        # Not dynamic: calls are padded, so there are two shapes, and each gets code of its own.
        self._full = torch.compile(unet, dynamic=False)
        self._few = self._full
        self._max_batch_rows = max_batch_rows
        if cuda_graphs:
            self._few = torch.compile(unet, dynamic=False, mode="reduce-overhead")

    def __call__(
        self, inputs: torch.Tensor, timesteps: torch.Tensor, embeddings: torch.Tensor
    ) -> torch.Tensor:
        """Predictions (R, C, h, w) of R <= W rows, evaluated as W or as few.

        Args:
            inputs: (R, C or 2 C + 1, h, w).
            timesteps: int64 (R,).
            embeddings: (R, L, D).
        """
        few = len(inputs) <= FEW_ROWS
        size = min(FEW_ROWS, self._max_batch_rows) if few else self._max_batch_rows
        missing = size - len(inputs)
        unet = self._few if few else self._full
        prediction = unet(
            _padded(inputs, missing),
            _padded(timesteps, missing),
            encoder_hidden_states=_padded(embeddings, missing),
            return_dict=False,
        )[0]
        # A copy: a CUDA graph writes its next answer to the same place.
        predicted: torch.Tensor = prediction[: len(inputs)].clone()
        return predicted


@torch.inference_mode()
def compiled(
    model: InpaintModel, max_batch_rows: int, resolution: int, cuda_graphs: bool = False
) -> InpaintModel:
    """The model with its UNet compiled for calls of W and of few rows, ready on return.

    The weights are those of ``model``, whose layout changes too.

    Args:
        model: A loaded model.
        max_batch_rows: W.
        resolution: S of the pictures. The first picture of another size compiles again.
        cuda_graphs: See ``CompiledUnet``.
    """
    unet = CompiledUnet(model.unet, max_batch_rows, cuda_graphs)
    cells = resolution // model.vae_factor
    for size in sorted({min(FEW_ROWS, max_batch_rows), max_batch_rows}):
        shape = (size, model.unet_in_channels, cells, cells)
        inputs = torch.zeros(shape, dtype=model.dtype, device=model.device)
        timesteps = torch.full((size,), _ANY_TIMESTEP, device=model.device)
        for _ in range(2 if cuda_graphs else 1):  # the second call of few rows records its graph
            unet(inputs, timesteps, model.prompts([""] * size))
    return replace(model, compiled_unet=unet)


def _padded(values: torch.Tensor, missing: int) -> torch.Tensor:
    """``values`` with its last row repeated ``missing`` times."""
    return torch.cat([values, values[-1:].expand(missing, *values.shape[1:])])
