"""The painting process, ``python -m bgaug_d2.worker.process PARENT_PID``; ``supervisor`` starts it.

It reads its ``WorkerSpec`` from standard input, builds the engine, then binds its socket: a bound
socket means ready. The main thread runs the engine, ``threads`` CPU threads prepare and finish.

It ends by itself when its parent does. Three signs show that, each where another fails: the kernel
kills it (PR_SET_PDEATHSIG), standard input is closed, the parent's process number changes. The
queue is then abandoned. That breaks nothing, because the cache takes whole pictures only.
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
from bgaug_d2.worker.job_queue import JobQueue
from bgaug_d2.worker.paint_loop import PaintLoop
from bgaug_d2.worker.protocol import PAINTED, READY, WorkerSpec
from bgaug_d2.worker.server import JobServer

logger = logging.getLogger(__name__)

# Pictures between disk and cache: enough that the engine finds one for each row that becomes free,
# few enough that one that a client waits for comes soon. For large images the bytes are the limit.
_RUNNING_PER_ROW, _MIN_RUNNING = 2, 4
_MAX_RUNNING_BYTES = 1 << 30
# Seconds to finish writing to the cache when the parent is gone.
_FINISH_S = 1.0
_PR_SET_PDEATHSIG = 1


def main(parent_pid: int) -> None:
    """Run the process that the line on standard input describes; never returns."""
    _die_with(parent_pid)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets Ctrl-C and ends this process
    events = _take_over_stdout()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        # Unbuffered, because what comes after the line is for _watch.
        with open(0, "rb", buffering=0, closefd=False) as stdin:
            spec = WorkerSpec.from_line(stdin.readline())
        _run(spec, parent_pid, events)
    except Exception:  # noqa: BLE001 - reported; other threads must not keep the process
        logger.exception("the painting process ends")
    os._exit(1)


def _run(spec: WorkerSpec, parent_pid: int, events: int) -> None:
    queue: JobQueue | None = None
    threads: list[threading.Thread] = []

    def end() -> None:
        if queue is not None:
            queue.close()
        deadline = time.monotonic() + _FINISH_S
        for thread in threads:
            thread.join(max(deadline - time.monotonic(), 0))
        os._exit(0)

    threading.excepthook = _end_on_fault
    threading.Thread(target=_watch, args=(parent_pid, end), name="watch", daemon=True).start()
    cache = VariantCache(spec.cache_dir, spec.cache_max_bytes)
    engine = _build_engine(spec)
    max_running = spec.max_running or max(_RUNNING_PER_ROW * engine.max_batch_rows, _MIN_RUNNING)
    queue = JobQueue(spec.queue_size, max_running, _MAX_RUNNING_BYTES)
    counts = Counts()
    on_painted = functools.partial(_report, events, PAINTED)
    loop = PaintLoop(engine, queue, cache, spec.image_root, counts, on_painted)
    for number in range(spec.threads):
        thread = threading.Thread(target=loop.run_cpu, name=f"cpu-{number}", daemon=True)
        thread.start()
        threads.append(thread)
    JobServer(spec, queue, loop, cache, counts).listen()
    _report(events, READY)
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
    if os.getppid() != parent_pid:  # it ended before the call above
        os._exit(0)


def _watch(parent_pid: int, end: Callable[[], None]) -> None:
    """Call ``end`` when the parent ends, or asks for it by a byte or the end of standard input.

    A process that the parent forked may hold the pipe open, so its process number counts as well.
    """
    stdin = select.poll()
    stdin.register(0, select.POLLIN)
    while os.getppid() == parent_pid and not stdin.poll(250):
        pass
    end()


def _take_over_stdout() -> int:
    """A descriptor for events to the parent; what libraries print goes to standard error."""
    events = os.dup(1)
    os.dup2(2, 1)
    os.set_blocking(events, False)
    return events


def _report(events: int, event: bytes) -> None:
    # The parent may be busy (a full pipe holds signs of life enough) or gone (this process ends).
    with contextlib.suppress(BlockingIOError, BrokenPipeError):
        os.write(events, event)


def _end_on_fault(fault: threading.ExceptHookArgs) -> None:
    """End the process: without this thread its jobs would wait without end; a restart helps."""
    thread = fault.thread.name if fault.thread else "unknown"
    error = fault.exc_value or fault.exc_type()
    logger.error("thread %s ended", thread, exc_info=error)
    os._exit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]))
