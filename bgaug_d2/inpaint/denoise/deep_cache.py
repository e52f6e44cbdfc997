"""DeepCache: a step with the outermost level of the UNet only (Ma et al. 2024, arXiv 2312.00858).

From step to step, the features deep in the UNet change little. A cached step runs the first down
block and the last up block; what the blocks between would feed into the last up block is taken from
the last full step of the picture.

Shapes as in ``trajectory``; C', h, w of the cached features, which enter the last up block at the
latents' resolution.
"""

from __future__ import annotations

from typing import Any

import torch


def full_step(
    unet: Any, inputs: torch.Tensor, timesteps: torch.Tensor, embeddings: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The UNet's prediction (R, C, h, w), and the features to cache (R, C', h, w).

    Args:
        unet: diffusers' UNet2DConditionModel, not compiled.
        inputs: (R, C or 2 C + 1, h, w).
        timesteps: int64 (R,).
        embeddings: (R, L, D).
    """
    kept: list[torch.Tensor] = []

    def keep(module: Any, args: Any, named: dict[str, Any]) -> None:
        kept.append(named["hidden_states"])

    # A hook, so that the whole UNet still runs as diffusers wrote it.
    hook = unet.up_blocks[-1].register_forward_pre_hook(keep, with_kwargs=True)
    try:
        prediction = unet(inputs, timesteps, encoder_hidden_states=embeddings, return_dict=False)[0]
    finally:
        hook.remove()
    return prediction, kept[0]


def cached_step(
    unet: Any,
    inputs: torch.Tensor,
    timesteps: torch.Tensor,
    embeddings: torch.Tensor,
    cached_features: torch.Tensor,
) -> torch.Tensor:
    """The prediction (R, C, h, w) with features (R, C', h, w) of an earlier full step.

    With the features of the same step it equals the whole UNet's prediction.
    """
    # 1. Time, and the first down block, as in UNet2DConditionModel.forward
    time_embedding = unet.time_embedding(unet.get_time_embed(sample=inputs, timestep=timesteps))
    if unet.time_embed_act is not None:
        time_embedding = unet.time_embed_act(time_embedding)
    sample = unet.conv_in(inputs)  # (R, C'', h, w)
    _, skips = _block(unet.down_blocks[0], embeddings, hidden_states=sample, temb=time_embedding)

    # 2. The last up block; it takes the first of the skip connections
    last = unet.up_blocks[-1]
    hidden = _block(
        last,
        embeddings,
        hidden_states=cached_features,
        temb=time_embedding,
        res_hidden_states_tuple=(sample, *skips)[: len(last.resnets)],
    )

    # 3. Out
    if unet.conv_norm_out is not None:
        hidden = unet.conv_act(unet.conv_norm_out(hidden))
    predicted: torch.Tensor = unet.conv_out(hidden)  # (R, C, h, w)
    return predicted


def _block(block: Any, embeddings: torch.Tensor, **named: Any) -> Any:
    # A block without cross-attention does not accept a prompt's embedding.
    if getattr(block, "has_cross_attention", False):
        named["encoder_hidden_states"] = embeddings
    return block(**named)
