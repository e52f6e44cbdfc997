"""The engine: continuous batching, where no fault loses a request.

A UNet call has W rows, one per picture and guidance branch. Each picture is at its own step of its
own schedule; what finishes leaves, and the next call takes new pictures into its place. So calls
are full whatever T_hat the pictures have and whenever they were asked for.
"""

from __future__ import annotations

import functools
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TypeVar

import torch

from bgaug_d2.errors import ModelError
from bgaug_d2.inpaint.check_request import fault_of
from bgaug_d2.inpaint.denoise.dpm_solver import SolverTable, solver_table
from bgaug_d2.inpaint.denoise.latent_cache import LatentMemory
from bgaug_d2.inpaint.denoise.trajectory import Walk, begin, is_guided, step
from bgaug_d2.inpaint.denoise.unet_calls import predict
from bgaug_d2.inpaint.denoise.vae import pictures
from bgaug_d2.inpaint.meter import Meter
from bgaug_d2.inpaint.model.load import InpaintModel
from bgaug_d2.painting.engine_interface import PaintRequest, PaintResult

logger = logging.getLogger(__name__)

NON_FINITE = "non-finite"
_TABLES = 64  # schedules kept; a recipe has one
_OUT_OF_MEMORY = "out of GPU memory"

T = TypeVar("T")


@dataclass(eq=False)
class _Copy:
    """Pictures on their way from the device."""

    walks: Sequence[Walk]
    images: torch.Tensor  # uint8 (B, S, S, 3), in host memory
    finite: torch.Tensor  # bool (B,)
    arrived: torch.cuda.Event | None  # None: they are there


class Engine:
    """Paints requests.

    One thread calls ``submit``, ``poll`` and ``probe``; any thread may read the counters.

    Attributes:
        model: The loaded model.
        rows: W, the largest number of rows of a UNet call; halves, for good, when GPU memory runs
            out.
        progress: Grows with every unit of work: the sign of life for who watches the process.
        meter: Throughput, occupancy and latency.
    """

    def __init__(self, model: InpaintModel, rows: int) -> None:
        """Start with an empty queue.

        Args:
            model: The loaded model.
            rows: W, at least 1. A picture whose guidance branches do not fit into a call gets more
                than one.

        Raises:
            ValueError: ``rows`` is below 1.
        """
        if rows < 1:
            raise ValueError(f"rows={rows} must be at least 1")
        self.model = model
        self.rows = rows
        self.progress = 0
        self.meter = Meter()
        self._memory = LatentMemory()
        self._tables: dict[tuple[int, str], SolverTable] = {}
        self._queue: deque[PaintRequest] = deque()
        self._walks: list[Walk] = []
        self._copies: deque[_Copy] = deque()
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
        fault = fault_of(self.model, request)
        if fault is None:
            self._queue.append(request)
        else:
            self._ready.append(PaintResult(request.request_id, None, fault))

    def poll(self) -> list[PaintResult]:
        """Do one unit of work: one step of the pictures under way. Empty when idle.

        Raises:
            torch.AcceleratorError: The device is broken; the requests stay queued, but only a new
                process can paint them.
        """
        try:
            walks = self._choose()
            if walks:
                self._step(walks)
                self._finish([walk for walk in walks if walk.done])
            self._collect(wait=not self._walks and not self._queue)
        except torch.AcceleratorError:
            unpainted = [*(walk.request for each in self._copies for walk in each.walks)]
            unpainted += [walk.request for walk in self._walks]
            self._queue.extendleft(reversed(unpainted))
            self._walks, self._copies = [], deque()
            self._memory.clear()
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
            told = torch.full((1,), 500, device=self.model.device)
            # Not the compiled UNet: it would be compiled anew for so small a picture.
            plain = replace(self.model, static=None)
            answer = predict(plain, inputs, told, plain.prompts([""]))
            finite = bool(torch.isfinite(answer).all())  # waits for the device
        self.progress += 1
        if not finite:
            raise ModelError(
                f"model {self.model.identity.id!r} answers with values that are not finite in "
                f"{self.model.dtype}; its weights are broken, or it needs inpainter.dtype=float32"
            )

    def _choose(self) -> list[Walk]:
        """The pictures of the next call: the oldest under way, then new ones, W rows in all.

        A picture may need one row in some steps and two in others (``guidance_interval``); one that
        does not fit sits a step out. The squares of a call are of one size: another size waits,
        and so does all that is behind it, until the call is empty.
        """
        chosen: list[Walk] = []
        free = self.rows
        for walk in self._walks:
            if not chosen or 1 + walk.guided <= free:
                chosen.append(walk)
                free -= 1 + walk.guided
        while self._queue and free > 0:
            request = self._queue[0]
            need = 1 + is_guided(request, request.num_inference_steps - request.T_hat)
            if chosen and (need > free or len(request.image) != len(chosen[0].request.image)):
                break
            self._queue.popleft()
            begun = self._begin(request)
            if begun is not None:
                self._walks.append(begun)
                chosen.append(begun)
                free -= need
        return chosen

    def _begin(self, request: PaintRequest) -> Walk | None:
        settings = (request.num_inference_steps, request.timestep_spacing)
        if settings not in self._tables:
            while len(self._tables) >= _TABLES:
                del self._tables[next(iter(self._tables))]
            self._tables[settings] = solver_table(self.model.noise_config, *settings)
        table = self._tables[settings]
        try:
            start = functools.partial(begin, self.model, request, table, self._memory)
            return self._in_memory(start)
        except torch.AcceleratorError:
            self._queue.appendleft(request)
            raise
        except Exception as error:  # noqa: BLE001 - reported as the request's own result
            self._fail(request, _told(error))
            return None

    def _step(self, walks: Sequence[Walk]) -> None:
        """One step of each; after a fault in halves, so that one bad picture fails alone."""
        groups = deque([walks])
        while groups:
            group = groups.popleft()
            try:
                evaluated = step(self.model, group, self.rows)
                self.progress += 1
                self.meter.stepped(evaluated, self.rows)
                continue
            except torch.OutOfMemoryError:
                fault = _OUT_OF_MEMORY
            except torch.AcceleratorError:
                raise
            except Exception as error:  # noqa: BLE001 - reported as the request's own result
                fault = _told(error)
            # Out of the except blocks: the traceback, and with it the tensors it holds, is gone.
            needed = sum(1 + walk.guided for walk in group)
            if fault == _OUT_OF_MEMORY and min(needed, self.rows) > 1:
                self._shrink(min(needed, self.rows))
                groups.appendleft(group)  # in calls of fewer rows
            elif len(group) > 1:
                middle = (len(group) + 1) // 2
                groups.extendleft([group[middle:], group[:middle]])
            else:
                self._walks.remove(group[0])
                self._fail(group[0].request, fault)

    def _shrink(self, failed_rows: int) -> None:
        torch.cuda.empty_cache()
        self.rows = failed_rows // 2
        # Compiling for fewer rows would take a minute, in which this process seems to hang.
        self.model = replace(self.model, static=None)
        logger.warning(
            "out of GPU memory with %d rows; a call has at most %d now, not compiled",
            *(failed_rows, self.rows),
        )

    def _finish(self, walks: Sequence[Walk]) -> None:
        """Decode what is done, picture by picture, and send it on its way to host memory."""
        for walk in walks:
            self._walks.remove(walk)
            decode = functools.partial(pictures, self.model, walk.latents[None])
            try:
                images, finite = self._in_memory(decode)
                self._copies.append(_sent([walk], images, finite))
            except torch.AcceleratorError:
                self._walks.append(walk)
                raise
            except Exception as error:  # noqa: BLE001 - reported as the request's own result
                self._fail(walk.request, _told(error))
            self.progress += 1

    def _collect(self, wait: bool) -> None:
        """Hand out the pictures that have arrived; ``wait`` for all of them."""
        while self._copies:
            copy = self._copies[0]
            if copy.arrived is not None:
                if wait:
                    copy.arrived.synchronize()
                elif not copy.arrived.query():
                    return
            self._copies.popleft()
            for walk, image, finite in zip(
                copy.walks, copy.images.numpy(), copy.finite.tolist(), strict=True
            ):
                request_id = walk.request.request_id
                self._ready.append(
                    PaintResult(request_id, image, None)
                    if finite
                    else PaintResult(request_id, None, NON_FINITE)
                )

    def _in_memory(self, work: Callable[[], T]) -> T:
        """``work``, a second time with all cached memory given back if the first ran out."""
        try:
            return work()
        except torch.OutOfMemoryError:
            pass
        self._memory.clear()
        torch.cuda.empty_cache()
        return work()

    def _fail(self, request: PaintRequest, fault: str) -> None:
        logger.warning("request %s failed: %s", request.request_id, fault)
        self._ready.append(PaintResult(request.request_id, None, fault))


def _sent(walks: Sequence[Walk], images: torch.Tensor, finite: torch.Tensor) -> _Copy:
    """Start the way to host memory; on a GPU it goes on beside the next calls."""
    if images.device.type != "cuda":
        return _Copy(walks, images, finite, None)
    there, good = (
        torch.empty(each.shape, dtype=each.dtype, pin_memory=True) for each in (images, finite)
    )
    there.copy_(images, non_blocking=True)
    good.copy_(finite, non_blocking=True)
    arrived = torch.cuda.Event()
    arrived.record(torch.cuda.current_stream(images.device))
    return _Copy(walks, there, good, arrived)


def _told(error: Exception) -> str:
    if isinstance(error, torch.OutOfMemoryError):
        return f"{_OUT_OF_MEMORY}: {error}"
    return f"{type(error).__name__}: {error}"
