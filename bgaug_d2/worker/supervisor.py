"""Keeps one painting process running: starts it, watches it and restarts it.

The supervisor is a thread that lives as long as the pool. The kernel kills a worker when the
*thread* that started it ends, so no other thread may start one.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from bgaug_d2.config.bgaug import WorkerConfig
from bgaug_d2.worker.client import WorkerClient
from bgaug_d2.worker.protocol import PAINTED, READY, WorkerSpec

logger = logging.getLogger(__name__)

_LONGEST_BACKOFF_S = 60.0
# Seconds until a process has ended: by itself after its pipe closed, and after SIGKILL.
_END_S, _KILL_S = 2.0, 10.0
# Threads of GNU OpenMP wait for each other in a busy loop. If another process has the core of one
# of them, painting on a CPU gets over ten times slower. A short loop is as fast on an idle machine.
_SHORT_SPINS = {"GOMP_SPINCOUNT": "1000"}


class ProcessSupervisor(threading.Thread):
    """Keeps one worker running.

    Attributes:
        address: Path of its socket.
        settled: Set once the first start has succeeded or failed.
        fault: Why the worker was given up; None while it runs or restarts.
        restarts: Number of restarts so far.
    """

    def __init__(self, spec: WorkerSpec, settings: WorkerConfig, log_path: Path) -> None:
        super().__init__(name=Path(spec.socket).stem, daemon=True)
        self.address = spec.socket
        self.settled = threading.Event()
        self.fault: str | None = None
        self.restarts = 0
        self._spec = spec
        self._settings = settings.advanced
        self._log_path = log_path
        self._folder = os.getcwd()
        self._stopping = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._painted = False

    def run(self) -> None:
        in_a_row = 0
        while True:
            try:
                fault = self._run_once()
            except OSError as error:  # no process, no descriptor, no place for the log
                fault = f"it cannot be run: {error}"
            if self._stopping.is_set():
                return
            in_a_row = 1 if self._painted else in_a_row + 1
            if not self.settled.is_set() or in_a_row > self._settings.max_restarts:
                self._give_up(fault)
                return
            pause = min(self._settings.backoff_s * 2 ** (in_a_row - 1), _LONGEST_BACKOFF_S)
            logger.warning("%s: %s; it restarts in %.1f s", self.name, fault, pause)
            if self._stopping.wait(pause):
                return
            self.restarts += 1

    def request_stop(self) -> None:
        """Ask the worker to end; the thread ends after it."""
        self._stopping.set()
        process = self._process
        if process is not None and process.stdin is not None:
            # A byte, because a process forked from this one may hold the pipe open.
            with contextlib.suppress(OSError, ValueError):
                process.stdin.write(b"\n")

    def kill(self) -> None:
        """Kill the worker if it still runs."""
        process = self._process
        if process is not None:
            process.kill()

    def _give_up(self, fault: str) -> None:
        logger.error("%s: %s; it is given up", self.name, fault)
        self.fault = fault
        # Without its socket, clients stop waiting for it.
        Path(self._spec.socket).unlink(missing_ok=True)
        self.settled.set()

    def _run_once(self) -> str:
        """Start the worker and watch it until it ends; returns why it ended."""
        self._painted = False
        with open(self._log_path, "ab") as log:
            log_start = log.tell()
            process = self._process = self._spawn(log.fileno())
        try:
            if self._stopping.is_set():  # request_stop came before there was a process
                process.kill()
            fault = self._await_ready(process) or self._watch(process)
            if fault is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(_END_S)
        finally:
            _end(process)
        return fault or _describe_end(process.returncode, self._log_path, log_start)

    def _spawn(self, log: int) -> subprocess.Popen[bytes]:
        path = [os.environ.get("PYTHONPATH", "")]
        package_parent = Path(__file__).resolve().parents[2]
        if package_parent.name != "site-packages":  # not installed: a checkout
            path.insert(0, str(package_parent))
        process = subprocess.Popen(
            [sys.executable, "-m", "bgaug_d2.worker.process", str(os.getpid())],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=self._folder,
            start_new_session=True,  # Ctrl-C reaches only this process, which then ends the worker
            env={**_SHORT_SPINS, **os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))},
        )
        if process.stdin is None:
            raise RuntimeError("Popen gave no pipe")
        with contextlib.suppress(BrokenPipeError):  # it died at once; _await_ready sees that
            process.stdin.write(self._spec.to_line())
        return process

    def _await_ready(self, process: subprocess.Popen[bytes]) -> str | None:
        """Returns None once the worker is ready or has ended by itself, else what is wrong."""
        events = _read_events(process, self._settings.start_timeout_s)
        if events is None:
            return f"it was not ready after {self._settings.start_timeout_s:g} s"
        if READY in events:
            logger.info("%s is ready (pid %d)", self.name, process.pid)
            self.settled.set()
        return None

    def _watch(self, process: subprocess.Popen[bytes]) -> str | None:
        """Returns why once the worker hangs, or None once it has ended."""
        settings = self._settings
        progress, last_sign = None, time.monotonic()
        while True:
            events = _read_events(process, settings.heartbeat_s)
            if events == b"":
                return None
            if events is not None:
                self._painted = self._painted or PAINTED in events
                last_sign = time.monotonic()
                continue
            # An idle worker runs its model before it answers: a broken GPU is found between jobs.
            patience = last_sign + settings.hang_timeout_s - time.monotonic()
            with contextlib.closing(WorkerClient([self._spec.socket])) as client:
                answer = client.ping(max(patience, 0.1))[0]
            if answer and (not answer.get("busy") or answer.get("progress") != progress):
                progress, last_sign = answer.get("progress"), time.monotonic()
            if time.monotonic() - last_sign > settings.hang_timeout_s:
                return f"there was no progress for {settings.hang_timeout_s:g} s"


def _read_events(process: subprocess.Popen[bytes], timeout_s: float) -> bytes | None:
    """The events of the worker; None after ``timeout_s`` of silence, empty at its end."""
    if process.stdout is None:
        raise RuntimeError("Popen gave no pipe")
    events = select.poll()
    events.register(process.stdout, select.POLLIN)
    if not events.poll(timeout_s * 1000):
        return None
    return os.read(process.stdout.fileno(), 65536)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    try:
        process.wait(_KILL_S)
    except subprocess.TimeoutExpired:
        logger.error(
            "process %d does not end after SIGKILL; it may keep its GPU memory", process.pid
        )


def _describe_end(code: int | None, log_path: Path, log_start: int) -> str:
    if code is not None and code < 0:
        end = f"it was killed by {signal.Signals(-code).name}"
    else:
        end = f"it ended with code {code}"
    with open(log_path, "rb") as log:
        log.seek(max(log_start, log.seek(0, os.SEEK_END) - 4096))
        lines = log.read().decode(errors="replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "it wrote nothing")
    return f"{end}: {last}"
