"""Stand-ins for the engine, with the faults of a real one; workers build them by import string.

A job gets a square of noise, unless its prompt begins with an order: ``exit``, ``once PATH``,
``signal NAME``, ``raise TEXT``, ``hang``, ``work SECONDS`` and ``until PATH`` strike when its batch
is painted; ``lose``, ``error``, ``flat``, ``shape`` and ``stray`` spoil its result.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from bgaug_d2.cache import store as cache
from bgaug_d2.painting.engine_interface import PaintRequest, PaintResult

HANG_S = 3600.0


class FakeEngine:
    """Paints noise.

    Options: ``max_batch_rows`` (1), ``delay_s`` per batch (0), ``record``, a file that gets the
    prompts of each batch as a line of JSON, and ``probe``, an order for ``probe``.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.max_batch_rows = int(options.get("max_batch_rows") or 1)
        self.delay_s = float(options.get("delay_s", 0.0))
        self.record = options.get("record")
        self.probe_order = str(options.get("probe", ""))
        self.progress = 0
        self.queue: deque[PaintRequest] = deque()

    @property
    def pending(self) -> int:
        return len(self.queue)

    def submit(self, request: PaintRequest) -> None:
        self.queue.append(request)

    def poll(self) -> list[PaintResult]:
        batch = [self.queue.popleft() for _ in range(min(self.max_batch_rows, len(self.queue)))]
        if self.record and batch:
            with open(self.record, "a") as file:
                file.write(json.dumps([request.prompt for request in batch]) + "\n")
        time.sleep(self.delay_s if batch else 0)
        for request in batch:
            self.obey(request.prompt)
        self.progress += 1
        results = [_result(request) for request in batch]
        return [result for result in results if result is not None]

    def metrics(self) -> dict[str, float | None]:
        return {"queue": len(self.queue)}

    def probe(self) -> None:
        self.obey(self.probe_order)
        self.progress += 1

    def obey(self, prompt: str) -> None:
        """Do what may end or stop this process."""
        order, _, argument = prompt.partition(" ")
        if order == "exit":
            os._exit(3)
        elif order == "once":  # the argument is a file that remembers
            if not Path(argument).exists():
                Path(argument).touch()
                os._exit(3)
        elif order == "signal":
            os.kill(os.getpid(), getattr(signal, argument))
            time.sleep(HANG_S)
        elif order == "raise":
            raise RuntimeError(f"CUDA error: {argument}")
        elif order == "hang":
            time.sleep(HANG_S)
        elif order == "work":  # slow, but with signs of life
            end = time.monotonic() + float(argument)
            while time.monotonic() < end:
                self.progress += 1
                time.sleep(0.05)
        elif order == "until":  # the same, for as long as there is no such file
            while not Path(argument).exists():
                self.progress += 1
                time.sleep(0.01)


def _result(request: PaintRequest) -> PaintResult | None:
    order = request.prompt.partition(" ")[0]
    S = len(request.image)
    noise = np.random.default_rng(request.seed).integers(0, 256, (S, S, 3), dtype=np.uint8)
    if order == "lose":
        return None
    if order == "error" or (order == "error-at-first" and request.request_id.endswith("/0")):
        return PaintResult(request.request_id, None, "non-finite")
    if order == "flat" or (order == "flat-at-first" and request.request_id.endswith("/0")):
        return PaintResult(request.request_id, np.full_like(request.image, 7), None)
    if order == "shape":
        return PaintResult(request.request_id, noise[:-1], None)
    if order == "stray":
        return PaintResult("nobody/0", noise, None)
    return PaintResult(request.request_id, noise, None)


def build(options: Mapping[str, Any]) -> FakeEngine:
    return FakeEngine(options)


def build_loudly(options: Mapping[str, Any]) -> FakeEngine:
    """Writes to standard output, as libraries do."""
    print("p" * 100_000)  # noqa: T201 - that is the point
    os.write(1, b"r" * 100_000)
    return FakeEngine(options)


def refuse(options: Mapping[str, Any]) -> FakeEngine:
    raise ValueError(f"no model at {options.get('path')}")


def end_in_silence(options: Mapping[str, Any]) -> FakeEngine:
    sys.exit(0)


def never_ready(options: Mapping[str, Any]) -> FakeEngine:
    """Loads for ever; ``<record>.<pid>`` says that it has begun."""
    Path(f"{options['record']}.{os.getpid()}").touch()
    time.sleep(HANG_S)
    return FakeEngine(options)


def hold_the_interpreter(options: Mapping[str, Any]) -> FakeEngine:
    """The same in a library that lets no other thread of this process run."""
    Path(f"{options['record']}.{os.getpid()}").touch()
    ctypes.PyDLL(None).sleep(int(HANG_S))
    return FakeEngine(options)


def die_at_second_start(options: Mapping[str, Any]) -> FakeEngine:
    """Starts once, then never again; the option ``marker`` is a file that remembers."""
    marker = Path(options["marker"])
    if marker.exists():
        raise ValueError("the GPU is gone")
    marker.touch()
    return FakeEngine(options)


def build_on_full_disk(options: Mapping[str, Any]) -> FakeEngine:
    """In this process no file can be written to the cache, which exists already."""
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    mock.patch.object(cache, "write_atomically", side_effect=full).start()
    return FakeEngine(options)


def build_deaf(options: Mapping[str, Any]) -> FakeEngine:
    """Takes back what the process asked of the kernel for its parent's death."""
    ctypes.CDLL(None).prctl(1, 0, 0, 0, 0)
    return FakeEngine(options)
