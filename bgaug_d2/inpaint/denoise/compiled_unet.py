"""A UNet compiled for two numbers of rows, to which its calls are padded: W and a few.

Padded to W alone, the calls of a nearly empty engine, where somebody waits for one picture, would
take as long as full ones. Shapes as in ``painter``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from bgaug_d2.inpaint.model.load import InpaintModel

FEW_ROWS = 4  # two pictures with guidance


class StaticUnet:
    """Compiled for each of its shapes in its first call, which takes a minute or more."""

    def __init__(self, unet: Any, rows: int, cuda_graphs: bool = False) -> None:
        """Compile nothing yet.

        Args:
            unet: diffusers' UNet2DConditionModel; its weights are laid out anew, channels_last,
                which without compiling does not pay.
            rows: W.
            cuda_graphs: Replay the calls of few rows as CUDA graphs, for a GPU that does them
                faster than its kernels can be launched. On a CPU it changes nothing.
        """
        unet = unet.to(memory_format=torch.channels_last)
        self._full = torch.compile(unet, dynamic=False)
        self._few = self._full
        self._rows = rows
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
        missing = (min(FEW_ROWS, self._rows) if few else self._rows) - len(inputs)
        latents, told, texts = (_padded(each, missing) for each in (inputs, timesteps, embeddings))
        unet = self._few if few else self._full
        answer = unet(latents, told, encoder_hidden_states=texts, return_dict=False)[0]
        # A copy: a CUDA graph writes its next answer to the same place.
        predicted: torch.Tensor = answer[: len(inputs)].clone()
        return predicted


@torch.inference_mode()
def compiled(
    model: InpaintModel, rows: int, resolution: int, cuda_graphs: bool = False
) -> InpaintModel:
    """The model with its UNet compiled, which is done on return, for calls of W and of few rows.

    The weights are those of ``model``, whose layout changes too.

    Args:
        model: A loaded model.
        rows: W.
        resolution: S, of the pictures; others are compiled for when they come.
        cuda_graphs: See ``StaticUnet``.
    """
    static = StaticUnet(model.unet, rows, cuda_graphs)
    cells = resolution // model.vae_factor
    for size in sorted({min(FEW_ROWS, rows), rows}):
        shape = (size, model.unet_in_channels, cells, cells)
        inputs = torch.zeros(shape, dtype=model.dtype, device=model.device)
        told = torch.full((size,), 500, device=model.device)
        for _ in range(2 if cuda_graphs else 1):  # the second call of few rows records its graph
            static(inputs, told, model.prompts([""] * size))
    return replace(model, static=static)


def _padded(values: torch.Tensor, missing: int) -> torch.Tensor:
    """``values`` with its last row repeated ``missing`` times."""
    return torch.cat([values, values[-1:].expand(missing, *values.shape[1:])])
