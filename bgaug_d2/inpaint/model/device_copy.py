"""From host memory to the device without waiting for it."""

from __future__ import annotations

import torch


def to_device(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A copy on ``device``; on a CPU ``values`` themselves.

    A plain copy to a GPU waits until it has done all that was asked of it before. From pinned
    memory the copy only takes its place among that, and the next calls can be prepared meanwhile.
    """
    if device.type == "cuda":
        values = values.pin_memory()
    return values.to(device, non_blocking=True)
