"""Copies between host memory and the device that neither side waits for."""

from __future__ import annotations

from dataclasses import dataclass

import torch


def copy_to_device_async(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A copy on ``device``; on a CPU ``values`` themselves.

    A plain copy waits until the GPU has done all earlier work. From pinned memory the copy only
    joins the queue of that work, and the host prepares the next calls meanwhile.
    """
    if device.type == "cuda":
        values = values.pin_memory()
    return values.to(device, non_blocking=True)


@dataclass(eq=False)
class HostCopy:
    """Tensors on their way to host memory; ``tensors`` are filled once ``arrived`` says so."""

    tensors: tuple[torch.Tensor, ...]
    _event: torch.cuda.Event | None  # None: they were in host memory already

    def arrived(self) -> bool:
        """Whether the copy is complete, without waiting for it."""
        return self._event is None or self._event.query()

    def wait(self) -> None:
        """Wait until the copy is complete."""
        if self._event is not None:
            self._event.synchronize()


def copy_to_host_async(*tensors: torch.Tensor) -> HostCopy:
    """Start a copy to host memory; on a GPU it goes on beside the next calls.

    Args:
        tensors: On one device.
    """
    device = tensors[0].device
    if device.type != "cuda":
        return HostCopy(tensors, None)
    copies = tuple(torch.empty(each.shape, dtype=each.dtype, pin_memory=True) for each in tensors)
    for copy, each in zip(copies, tensors, strict=True):
        copy.copy_(each, non_blocking=True)
    # Pinned memory may be read only after the copy; the event says when, without a wait.
    event = torch.cuda.Event()
    event.record(torch.cuda.current_stream(device))
    return HostCopy(copies, event)
