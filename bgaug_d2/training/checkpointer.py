"""Detectron2's checkpointer, extended to safetensors and torchvision's Swin weights."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from safetensors.torch import load_file

from bgaug_d2.training.swin import from_torchvision


class SafeCheckpointer(DetectionCheckpointer):
    """``DetectionCheckpointer`` that also reads ``.safetensors`` and torchvision's Swin weights.

    A safetensors file names tensors as the model does; a tensor that it lacks keeps its start
    values. From a ``.pth`` file only tensors and plain values are read.
    """

    def _load_file(self, filename: str) -> dict[str, Any]:
        if filename.endswith(".safetensors"):
            # The names are the model's own, so Detectron2 has nothing to guess.
            return {"model": load_file(filename), "matching_heuristics": False}
        if filename.endswith(".pth"):
            # A full unpickling could run code of the file.
            content: dict[str, Any] = torch.load(filename, map_location="cpu", weights_only=True)
            return (
                content if "model" in content else {"model": from_torchvision(content, self.model)}
            )
        other: dict[str, Any] = super()._load_file(filename)
        return other
