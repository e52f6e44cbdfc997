"""The painting process, ``python -m bgaug_d2.worker.process PARENT_PID``; ``supervisor`` starts it.

It reads its ``WorkerSpec`` from standard input, builds the engine, then binds its socket: a bound
socket means ready. The main thread runs the engine, ``threads`` CPU threads prepare and finish.

It ends by itself when its parent does: the kernel kills it (PR_SET_PDEATHSIG), standard input is
closed, its parent's number changes; each of the three works where another does not. What is queued
is then abandoned. That breaks nothing, because the cache takes whole pictures only.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib
import logging
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable

from bgaug_d2.cache.store import VariantCache
from bgaug_d2.painting.engine_interface import PaintEngine
from bgaug_d2.worker.counts import Counts
from bgaug_d2.worker.job_queue import TaskTable
from bgaug_d2.worker.paint_loop import PaintLoop
from bgaug_d2.worker.protocol import PAINTED, READY, WorkerSpec
from bgaug_d2.worker.server import JobServer

logger = logging.getLogger(__name__)

# Pictures between disk and cache: enough that the engine finds one for each row that falls free,
# not so many that one that somebody waits for comes late. Large images are held in check by bytes.
_STARTED_PER_ROW, _MIN_STARTED = 2, 4
_MAX_STARTED_BYTES = 1 << 30
# Time to end what is being written to the cache when the parent is gone.
_LAST_WORDS_S = 1.0
_PR_SET_PDEATHSIG = 1


def main(parent_pid: int) -> None:
    """Run the process that the line on standard input describes; returns never."""
    _die_with(parent_pid)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then ends this
    events = _take_over_stdout()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        # Unbuffered: what comes after the line is for _watch.
        with open(0, "rb", buffering=0, closefd=False) as stdin:
            spec = WorkerSpec.from_line(stdin.readline())
        _run(spec, parent_pid, events)
    except Exception:  # noqa: BLE001 - reported; other threads must not keep the process
        logger.exception("the painting process ends")
    os._exit(1)


def _run(spec: WorkerSpec, parent_pid: int, events: int) -> None:
    table: TaskTable | None = None
    threads: list[threading.Thread] = []

    def end() -> None:
        if table is not None:
            table.close()
        deadline = time.monotonic() + _LAST_WORDS_S
        for thread in threads:
            thread.join(max(deadline - time.monotonic(), 0))
        os._exit(0)

    threading.excepthook = _end_on_fault
    threading.Thread(target=_watch, args=(parent_pid, end), name="watch", daemon=True).start()
    cache = VariantCache(spec.cache_dir, spec.cache_max_bytes)
    engine = _build_engine(spec)
    max_started = spec.max_started or max(_STARTED_PER_ROW * engine.max_batch_rows, _MIN_STARTED)
    table = TaskTable(spec.queue_size, max_started, _MAX_STARTED_BYTES)
    counts = Counts()
    on_painted = functools.partial(_tell, events, PAINTED)
    loop = PaintLoop(engine, table, cache, spec.image_root, counts, on_painted)
    for number in range(spec.threads):
        thread = threading.Thread(target=loop.run_cpu, name=f"cpu-{number}", daemon=True)
        thread.start()
        threads.append(thread)
    JobServer(spec, table, loop, cache, counts).listen()
    _tell(events, READY)
    loop.run_engine()


def _build_engine(spec: WorkerSpec) -> PaintEngine:
    module, _, name = spec.engine.partition(":")
    engine: PaintEngine = getattr(importlib.import_module(module), name)(spec.engine_options)
    return engine


def _die_with(parent_pid: int) -> None:
    """Have the kernel kill this process when the thread that started it ends."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent_pid:  # it ended before the kernel was told
        os._exit(0)


def _watch(parent_pid: int, end: Callable[[], None]) -> None:
    """End this process when its parent ends or says so, by a byte or the end of standard input.

    The parent's number is looked at as well: a process that it forked may hold the pipe open.
    """
    stdin = select.poll()
    stdin.register(0, select.POLLIN)
    while os.getppid() == parent_pid and not stdin.poll(250):
        pass
    end()


def _take_over_stdout() -> int:
    """A descriptor for events to the parent; whatever libraries print goes to standard error."""
    events = os.dup(1)
    os.dup2(2, 1)
    os.set_blocking(events, False)
    return events


def _tell(events: int, event: bytes) -> None:
    # The parent may be busy (the pipe is full: signs enough) or gone (this process ends soon).
    with contextlib.suppress(BlockingIOError, BrokenPipeError):
        os.write(events, event)


def _end_on_fault(fault: threading.ExceptHookArgs) -> None:
    """A thread that ended by a fault would leave jobs waiting for ever: start anew instead."""
    thread = fault.thread.name if fault.thread else "unknown"
    error = fault.exc_value or fault.exc_type()
    logger.error("thread %s ended", thread, exc_info=error)
    os._exit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]))
