"""Detectron2's checkpointer, which reads safetensors as well: start weights without pickle."""

from __future__ import annotations

from typing import Any

from detectron2.checkpoint import DetectionCheckpointer
from safetensors.torch import load_file


class SafeCheckpointer(DetectionCheckpointer):
    """``DetectionCheckpointer`` that takes ``MODEL.WEIGHTS`` with the ending ``.safetensors``.

    The tensors are named as in the model; what the file does not have keeps its start values.
    """

    def _load_file(self, filename: str) -> dict[str, Any]:
        if filename.endswith(".safetensors"):
            return {"model": load_file(filename), "matching_heuristics": False}
        content: dict[str, Any] = super()._load_file(filename)
        return content
