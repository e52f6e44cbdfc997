"""The engine: continuous batching, where no fault loses a request.

A UNet call has W rows, one per picture and guidance branch. Each picture is at its own step of its
own schedule; a finished one leaves, and the next call takes new pictures into its place. So calls
are full whatever T_hat the pictures have and whenever their requests came.
"""

from __future__ import annotations

import functools
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import TypeVar

import torch

from bgaug_d2.errors import ModelError
from bgaug_d2.inpaint.check_request import check_request
from bgaug_d2.inpaint.denoise.dpm_solver import SolverTable, solver_table
from bgaug_d2.inpaint.denoise.latent_cache import LatentCache
from bgaug_d2.inpaint.denoise.trajectory import (
    Trajectory,
    denoise_step,
    first_index,
    is_guided,
    start_trajectory,
)
from bgaug_d2.inpaint.denoise.unet_calls import predict
from bgaug_d2.inpaint.denoise.vae import decode_to_uint8
from bgaug_d2.inpaint.meter import Meter
from bgaug_d2.inpaint.model.device_copy import HostCopy, copy_to_host_async
from bgaug_d2.inpaint.model.load import InpaintModel
from bgaug_d2.painting.engine_interface import PaintRequest, PaintResult

logger = logging.getLogger(__name__)

NON_FINITE = "non-finite"
_MAX_TABLES = 64  # solver tables kept; a recipe has one
_OUT_OF_MEMORY = "out of GPU memory"

Result = TypeVar("Result")


class Engine:
    """Paints requests; a ``painting.engine_interface.PaintEngine``.

    One thread calls ``submit``, ``poll`` and ``probe``; any thread may read the counters.

    Attributes:
        model: The loaded model.
        max_batch_rows: W, the largest number of rows of a UNet call. It halves, for good, when GPU
            memory runs out.
        progress: Grows with every unit of work: the sign of life for whoever watches the process.
        meter: Throughput, occupancy and latency.
    """

    def __init__(self, model: InpaintModel, max_batch_rows: int) -> None:
        """Start with an empty queue.

        Args:
            model: The loaded model.
            max_batch_rows: W, at least 1. A picture whose guidance branches do not fit into one
                call gets two.

        Raises:
            ValueError: ``max_batch_rows`` is below 1.
        """
        if max_batch_rows < 1:
            raise ValueError(f"max_batch_rows={max_batch_rows} must be at least 1")
        self.model = model
        self.max_batch_rows = max_batch_rows
        self.progress = 0
        self.meter = Meter()
        self._latents = LatentCache()
        self._tables: dict[tuple[int, str], SolverTable] = {}
        # A request is in exactly one of these four, so that no fault can lose it.
        self._queue: deque[PaintRequest] = deque()
        self._trajectories: list[Trajectory] = []
        self._copies: deque[tuple[PaintRequest, HostCopy]] = deque()
        self._ready: list[PaintResult] = []
        self._pending = 0

    @property
    def pending(self) -> int:
        """Requests submitted whose result ``poll`` has not handed out yet."""
        return self._pending

    def submit(self, request: PaintRequest) -> None:
        """Queue a request; one that cannot be painted is an error in the next ``poll``."""
        self._pending += 1
        self.meter.submitted(request.request_id)
        try:
            check_request(self.model, request)
        except ValueError as error:
            self._ready.append(PaintResult(request.request_id, None, str(error)))
        else:
            self._queue.append(request)

    def poll(self) -> list[PaintResult]:
        """Do one unit of work: one step of the pictures under way. Empty when idle.

        Raises:
            torch.AcceleratorError: The device is broken; the requests stay queued, but only a new
                process can paint them.
        """
        try:
            chosen = self._choose()
            if chosen:
                self._step(chosen)
                self._finish([each for each in chosen if each.done])
            self._collect(wait=not self._trajectories and not self._queue)
        except torch.AcceleratorError:
            # Pictures on their way to the host are the furthest, so they go first in the queue.
            unpainted = [request for request, _ in self._copies]
            unpainted += [each.request for each in self._trajectories]
            self._queue.extendleft(reversed(unpainted))
            self._trajectories, self._copies = [], deque()
            self._latents.clear()
            raise
        ready, self._ready = self._ready, []
        self._pending -= len(ready)
        for result in ready:
            self.meter.answered(result.request_id)
        return ready

    def metrics(self) -> dict[str, float | None]:
        """``Reading`` and ``queue``, the requests that wait for rows."""
        return {**asdict(self.meter.read()), "queue": len(self._queue)}

    def probe(self) -> None:
        """One small UNet call on the device.

        Raises:
            RuntimeError: The device is broken (torch's own error).
            ModelError: The model's answer is not finite.
        """
        cells = 2 ** len(self.model.unet.config.block_out_channels)  # 2 x 2 in the deepest level
        shape = (1, self.model.unet_in_channels, cells, cells)
        with torch.inference_mode():
            inputs = torch.zeros(shape, device=self.model.device, dtype=self.model.dtype)
            timesteps = torch.full((1,), 500, device=self.model.device)
            # Not the compiled UNet: for so small a picture it would have to be compiled again.
            plain = replace(self.model, compiled_unet=None)
            prediction = predict(plain, inputs, timesteps, plain.prompts([""]))
            finite = bool(torch.isfinite(prediction).all())  # waits for the device
        self.progress += 1
        if not finite:
            raise ModelError(
                f"model {self.model.identity.id!r} answers with values that are not finite in "
                f"{self.model.dtype}; its weights are broken, or it needs inpainter.dtype=float32"
            )

    def _choose(self) -> list[Trajectory]:
        """The pictures of the next call: the oldest under way, then new ones, W rows in all.

        A picture may need one row in some steps and two in others (``guidance_interval``); one that
        does not fit sits a step out. All squares of a call have one size. A request of another size
        waits until the call is empty, and so do all behind it: none is overtaken for good.
        """
        chosen: list[Trajectory] = []
        free = self.max_batch_rows
        for each in self._trajectories:
            if not chosen or 1 + each.guided <= free:
                chosen.append(each)
                free -= 1 + each.guided
        while self._queue and free > 0:
            request = self._queue[0]
            needed = 1 + is_guided(request.settings, first_index(request))
            other_size = chosen and len(request.image) != len(chosen[0].request.image)
            if chosen and (needed > free or other_size):
                break
            self._queue.popleft()
            started = self._start(request)
            if started is not None:
                self._trajectories.append(started)
                chosen.append(started)
                free -= needed
        return chosen

    def _start(self, request: PaintRequest) -> Trajectory | None:
        """The trajectory of a request before its first step; None if the request failed."""
        start = functools.partial(
            start_trajectory, self.model, request, self._table(request), self._latents
        )
        try:
            return self._retry_with_free_memory(start)
        except torch.AcceleratorError:
            self._queue.appendleft(request)
            raise
        except Exception as error:  # noqa: BLE001 - reported as the request's own result
            self._fail(request, _error_text(error))
            return None

    def _table(self, request: PaintRequest) -> SolverTable:
        schedule = request.settings.num_inference_steps, request.settings.timestep_spacing
        if schedule not in self._tables:
            while len(self._tables) >= _MAX_TABLES:
                del self._tables[next(iter(self._tables))]  # the oldest
            self._tables[schedule] = solver_table(self.model.noise_config, *schedule)
        return self._tables[schedule]

    def _step(self, chosen: Sequence[Trajectory]) -> None:
        """One step of each; after a fault in halves, so that one bad picture fails alone."""
        groups = deque([chosen])
        while groups:
            group = groups.popleft()
            try:
                evaluated = denoise_step(self.model, group, self.max_batch_rows)
                self.progress += 1
                self.meter.stepped(evaluated, self.max_batch_rows)
                continue
            except torch.OutOfMemoryError:
                error_text = _OUT_OF_MEMORY
            except torch.AcceleratorError:
                raise
            except Exception as error:  # noqa: BLE001 - reported as the request's own result
                error_text = _error_text(error)
            # Out of the except blocks: the traceback, and with it the tensors it holds, is gone.
            rows = min(sum(1 + each.guided for each in group), self.max_batch_rows)
            if error_text == _OUT_OF_MEMORY and rows > 1:
                self._shrink(rows)
                groups.appendleft(group)  # in calls of fewer rows
            elif len(group) > 1:
                middle = (len(group) + 1) // 2
                groups.extendleft([group[middle:], group[:middle]])
            else:
                self._trajectories.remove(group[0])
                self._fail(group[0].request, error_text)

    def _shrink(self, failed_rows: int) -> None:
        torch.cuda.empty_cache()
        self.max_batch_rows = failed_rows // 2
        # Compiling for fewer rows would take a minute, in which this process seems to hang.
        self.model = replace(self.model, compiled_unet=None)
        logger.warning(
            "out of GPU memory with %d rows; a call has at most %d now, not compiled",
            *(failed_rows, self.max_batch_rows),
        )

    def _finish(self, done: Sequence[Trajectory]) -> None:
        """Decode what is done, picture by picture, and send it on its way to host memory."""
        for each in done:
            self._trajectories.remove(each)
            decode = functools.partial(decode_to_uint8, self.model, each.latents[None])
            try:
                copy = copy_to_host_async(*self._retry_with_free_memory(decode))
                self._copies.append((each.request, copy))
            except torch.AcceleratorError:
                # Back where `poll` takes it from: it is in no other list now.
                self._trajectories.append(each)
                raise
            except Exception as error:  # noqa: BLE001 - reported as the request's own result
                self._fail(each.request, _error_text(error))
            self.progress += 1

    def _collect(self, wait: bool) -> None:
        """Hand out the pictures that have arrived; ``wait`` for all of them."""
        while self._copies:
            request, copy = self._copies[0]
            if wait:
                copy.wait()
            elif not copy.arrived():
                return
            self._copies.popleft()
            images, finite = copy.tensors  # uint8 (1, S, S, 3), bool (1,)
            image, error_text = (images.numpy()[0], None) if finite else (None, NON_FINITE)
            self._ready.append(PaintResult(request.request_id, image, error_text))

    def _retry_with_free_memory(self, work: Callable[[], Result]) -> Result:
        """``work``; if memory runs out, once more with all cached memory given back."""
        try:
            return work()
        except torch.OutOfMemoryError:
            pass  # retried outside of the block: the traceback would keep tensors alive
        self._latents.clear()
        torch.cuda.empty_cache()
        return work()

    def _fail(self, request: PaintRequest, error_text: str) -> None:
        logger.warning("request %s failed: %s", request.request_id, error_text)
        self._ready.append(PaintResult(request.request_id, None, error_text))


def _error_text(error: Exception) -> str:
    if isinstance(error, torch.OutOfMemoryError):
        return f"{_OUT_OF_MEMORY}: {error}"
    return f"{type(error).__name__}: {error}"
