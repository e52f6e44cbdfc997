"""The engine: a queue of paint requests, worked off in batches, where no fault loses a request."""

from __future__ import annotations

import logging
from collections import deque

import numpy as np
import torch

from bgaug_d2.inpaint.errors import ModelError
from bgaug_d2.inpaint.models import InpaintModel
from bgaug_d2.inpaint.painter import paint, predict
from bgaug_d2.inpaint.schedule import timesteps_for
from bgaug_d2.masks import Picture
from bgaug_d2.painting import PaintRequest, PaintResult

logger = logging.getLogger(__name__)

NON_FINITE = "non-finite"


class Engine:
    """Paints requests.

    One thread calls ``submit``, ``poll`` and ``probe``; any thread may read the counters.

    Attributes:
        model: The loaded model.
        batch_size: Pictures per batch; halves, for good, when GPU memory runs out.
        progress: Grows with every UNet call: the sign of life for who watches the process.
    """

    def __init__(self, model: InpaintModel, batch_size: int) -> None:
        """Start with an empty queue.

        Raises:
            ValueError: ``batch_size`` is below 1.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size} must be at least 1")
        self.model = model
        self.batch_size = batch_size
        self.progress = 0
        self._queue: deque[PaintRequest] = deque()
        self._ready: list[PaintResult] = []
        self._pending = 0

    @property
    def pending(self) -> int:
        """Requests submitted whose result ``poll`` has not handed out yet."""
        return self._pending

    def submit(self, request: PaintRequest) -> None:
        """Queue a request; one that cannot be painted is an error in the next ``poll``."""
        self._pending += 1
        fault = self._fault(request)
        if fault is None:
            self._queue.append(request)
        else:
            self._ready.append(PaintResult(request.request_id, None, fault))

    def poll(self) -> list[PaintResult]:
        """Do one unit of work: paint one batch. Empty when idle.

        The batch is the oldest request and those after it that can share its UNet calls.

        Raises:
            torch.AcceleratorError: The device is broken; the requests stay queued, but only a new
                process can paint them.
        """
        self._paint(self._take_batch())
        ready, self._ready = self._ready, []
        self._pending -= len(ready)
        return ready

    def probe(self) -> None:
        """One small UNet call on the device.

        Raises:
            RuntimeError: The device is broken (torch's own error).
            ModelError: The model's answer is not finite.
        """
        cells = 2 ** len(self.model.unet.config.block_out_channels)  # 2 x 2 in the deepest level
        shape = (1, self.model.unet_in_channels, cells, cells)
        with torch.inference_mode():
            rows = torch.zeros(shape, device=self.model.device)
            answer = predict(self.model, rows, 500, self.model.prompts([""]), None, 1.0)
            finite = bool(torch.isfinite(answer).all())  # waits for the device
        self.progress += 1
        if not finite:
            raise ModelError(
                f"model {self.model.identity.id!r} answers with values that are not finite in "
                f"{self.model.dtype}; its weights are broken, or it needs inpainter.dtype=float32"
            )

    def _take_batch(self) -> list[PaintRequest]:
        if not self._queue:
            return []
        shared = _shared(self._queue[0])
        batch: list[PaintRequest] = []
        others: list[PaintRequest] = []
        while self._queue and len(batch) < self.batch_size:
            request = self._queue.popleft()
            (batch if _shared(request) == shared else others).append(request)
        self._queue.extendleft(reversed(others))
        return batch

    def _paint(self, batch: list[PaintRequest]) -> None:
        """Paint, in halves after a fault, so that one bad request fails alone."""
        groups = deque([batch] if batch else [])
        while groups:
            group = groups.popleft()
            try:
                self._ready += _results(group, paint(self.model, group, self._count))
                continue
            except torch.OutOfMemoryError as error:
                out_of_memory, fault = True, f"out of GPU memory: {error}"
            except torch.AcceleratorError:
                unpainted = [each for rest in (group, *groups) for each in rest]
                self._queue.extendleft(reversed(unpainted))
                raise
            except Exception as error:  # noqa: BLE001 - reported as the request's own result
                out_of_memory, fault = False, f"{type(error).__name__}: {error}"
            # Out of the except blocks: the traceback, and with it the tensors it holds, is gone.
            if out_of_memory:
                self._shrink(len(group))
            if len(group) == 1:
                logger.warning("request %s failed: %s", group[0].request_id, fault)
                self._ready.append(PaintResult(group[0].request_id, None, fault))
            else:
                size = self.batch_size if out_of_memory else (len(group) + 1) // 2
                parts = [group[i : i + size] for i in range(0, len(group), size)]
                groups.extendleft(reversed(parts))

    def _shrink(self, failed_size: int) -> None:
        torch.cuda.empty_cache()
        if failed_size > 1:  # one picture that is too large says nothing about batches of others
            self.batch_size = failed_size // 2
            logger.warning(
                "out of GPU memory with %d pictures; batch size is now %d",
                failed_size,
                self.batch_size,
            )

    def _count(self) -> None:
        self.progress += 1

    def _fault(self, request: PaintRequest) -> str | None:
        """Why a request cannot be painted, or None."""
        image, factor = request.image, self.model.vae_factor
        side = image.shape[0]
        if image.dtype != np.uint8 or image.shape != (side, side, 3):
            return f"image must be uint8 (S, S, 3), got {image.dtype} {image.shape}"
        if request.background_mask.dtype != np.bool_ or request.background_mask.shape != (
            side,
            side,
        ):
            mask = request.background_mask
            return f"background mask must be bool ({side}, {side}), got {mask.dtype} {mask.shape}"
        if side == 0 or side % factor:
            return (
                f"resolution {side} must be a multiple of {factor}, the model's pixels per latent"
            )
        if not 1 <= request.T_hat <= request.num_inference_steps:
            return f"T_hat={request.T_hat} must be between 1 and T={request.num_inference_steps}"
        if not request.guidance_scale >= 1:
            return f"guidance_scale={request.guidance_scale} must be at least 1"
        if not 0 <= request.seed < 2**63:
            return f"seed={request.seed} must be in [0, 2**63)"
        try:
            train = int(self.model.noise_config.get("num_train_timesteps", 1000))
            timesteps_for(train, request.num_inference_steps, request.timestep_spacing)
        except ValueError as error:
            return str(error)
        return None


def _shared(request: PaintRequest) -> tuple[int, int, float, str, int]:
    """What the requests of one batch have in common."""
    return (
        request.T_hat,
        request.num_inference_steps,
        request.guidance_scale,
        request.timestep_spacing,
        request.image.shape[0],
    )


def _results(group: list[PaintRequest], pictures: list[Picture | None]) -> list[PaintResult]:
    return [
        PaintResult(request.request_id, picture, None if picture is not None else NON_FINITE)
        for request, picture in zip(group, pictures, strict=True)
    ]
