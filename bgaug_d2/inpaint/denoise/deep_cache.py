"""Outer steps: a UNet's outermost level alone, on inner features of an earlier step.

From step to step the inner features change little (DeepCache; Ma et al. 2024, arXiv 2312.00858). An
outer step runs the first down block and the last up block only; what the blocks between would feed
into the last up block is taken from the last whole step of the picture.

Shapes: R rows; C, h, w of the latents; L, D of a prompt's embedding (see ``painter``); C', h, w of
the inner features, which enter the last up block at the latents' resolution.
"""

from __future__ import annotations

from typing import Any

import torch


def whole_step(
    unet: Any, inputs: torch.Tensor, timesteps: torch.Tensor, embeddings: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The UNet's prediction (R, C, h, w), and its inner features (R, C', h, w).

    Args:
        unet: diffusers' UNet2DConditionModel, not compiled.
        inputs: (R, C or 2 C + 1, h, w).
        timesteps: int64 (R,).
        embeddings: (R, L, D).
    """
    kept: list[torch.Tensor] = []

    def keep(module: Any, args: Any, named: dict[str, Any]) -> None:
        kept.append(named["hidden_states"])

    hook = unet.up_blocks[-1].register_forward_pre_hook(keep, with_kwargs=True)
    try:
        prediction = unet(inputs, timesteps, encoder_hidden_states=embeddings, return_dict=False)[0]
    finally:
        hook.remove()
    return prediction, kept[0]


def outer_step(
    unet: Any,
    inputs: torch.Tensor,
    timesteps: torch.Tensor,
    embeddings: torch.Tensor,
    inner: torch.Tensor,
) -> torch.Tensor:
    """The prediction (R, C, h, w) with inner features (R, C', h, w) of an earlier step.

    With those of the same step it is the whole UNet's prediction.
    """
    # 1. Time, and the first down block, as in UNet2DConditionModel.forward
    told = unet.time_embedding(unet.get_time_embed(sample=inputs, timestep=timesteps))
    if unet.time_embed_act is not None:
        told = unet.time_embed_act(told)
    sample = unet.conv_in(inputs)
    _, skips = _block(unet.down_blocks[0], embeddings, hidden_states=sample, temb=told)
    # 2. The last up block takes the first of the skip connections
    last = unet.up_blocks[-1]
    skips = (sample, *skips)[: len(last.resnets)]
    hidden = _block(last, embeddings, hidden_states=inner, temb=told, res_hidden_states_tuple=skips)
    # 3. Out
    if unet.conv_norm_out is not None:
        hidden = unet.conv_act(unet.conv_norm_out(hidden))
    predicted: torch.Tensor = unet.conv_out(hidden)
    return predicted


def _block(block: Any, embeddings: torch.Tensor, **named: Any) -> Any:
    if getattr(block, "has_cross_attention", False):
        named["encoder_hidden_states"] = embeddings
    return block(**named)
