"""Builds the engine from plain options: a painting process calls it by name, with JSON values."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch

from bgaug_d2.config.bgaug import CPU_ROWS, GPU_ROWS
from bgaug_d2.errors import ModelError
from bgaug_d2.inpaint.denoise.compiled_unet import compiled
from bgaug_d2.inpaint.engine import Engine
from bgaug_d2.inpaint.model.load import InpaintModel, load_model
from bgaug_d2.jobs.job import ModelIdentity

logger = logging.getLogger(__name__)

_NEEDED = {"model_path", "identity", "device", "dtype"}
_OPTIONAL = {"max_batch_rows", "compile", "cuda_graphs", "threads"}


def build_engine(options: Mapping[str, Any]) -> Engine:
    """Load the model and set up an engine.

    Args:
        options: ``model_path``; ``identity``, the fields of ``ModelIdentity``; ``device``;
            ``dtype`` (``float32`` or ``bfloat16``); ``max_batch_rows`` of a UNet call, 0 or absent
            for 32 on a GPU and 8 on a CPU; ``compile``, absent or the resolution S of the pictures
            to compile the UNet for; ``cuda_graphs``, see ``CompiledUnet``; ``threads``, absent to
            leave torch's number of CPU threads for this process as it is.

    Raises:
        ModelError: An option is missing or unknown, the device is absent, or the model cannot be
            used.
    """
    missing, unknown = _NEEDED - set(options), set(options) - _NEEDED - _OPTIONAL
    if missing or unknown:
        raise ModelError(f"engine options: missing {sorted(missing)}, unknown {sorted(unknown)}")
    device = str(options["device"])
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ModelError(
            f"device={device!r}, but torch finds no usable GPU; set worker.devices=[cpu]"
        )
    if threads := int(options.get("threads") or 0):
        torch.set_num_threads(threads)
    model = load_model(
        options["model_path"], device, options["dtype"], ModelIdentity(**options["identity"])
    )
    on_gpu = model.device.type == "cuda"
    if on_gpu and model.device.index is not None:  # else pinned memory opens the first GPU as well
        torch.cuda.set_device(model.device)
    max_batch_rows = int(options.get("max_batch_rows") or 0) or (GPU_ROWS if on_gpu else CPU_ROWS)
    if resolution := int(options.get("compile") or 0):
        cuda_graphs = bool(options.get("cuda_graphs"))
        return _compiled_engine(model, max_batch_rows, resolution, cuda_graphs)
    return Engine(model, max_batch_rows)


def _compiled_engine(
    model: InpaintModel, max_batch_rows: int, resolution: int, cuda_graphs: bool
) -> Engine:
    """An engine with a compiled UNet, for as many rows as fit into GPU memory."""
    while True:
        try:
            model = compiled(model, max_batch_rows, resolution, cuda_graphs)
            return Engine(model, max_batch_rows)
        except torch.OutOfMemoryError:
            if max_batch_rows == 1:
                raise
        # Outside of the except block: its traceback would keep the tensors alive.
        torch.cuda.empty_cache()
        logger.warning(
            "out of GPU memory with %d rows; compiling for %d", max_batch_rows, max_batch_rows // 2
        )
        # By half, as the engine does when memory runs out later.
        max_batch_rows //= 2
