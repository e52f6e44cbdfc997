"""The pool of painting processes: starts them, and ends them with this process."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from bgaug_d2.config.bgaug import WorkerConfig
from bgaug_d2.errors import WorkerStartError
from bgaug_d2.worker.client import WorkerClient
from bgaug_d2.worker.protocol import WorkerSpec
from bgaug_d2.worker.supervisor import ProcessSupervisor

# Seconds that a worker has to end by itself before it is killed.
_STOP_S = 2.0
# The kernel's limit for the path of a socket is 107 bytes, names in the folder need about 20.
_MAX_SOCKET_FOLDER = 80


class WorkerPool:
    """Painting processes, one for each spec, that end with this process whatever ends it.

    ``stop`` abandons the queues, so wait for a picture's reply before it. A pool belongs to the
    process that made it; its copy in a forked process does nothing.

    Args:
        specs: One for each process; ``socket`` is filled in here. Relative paths are relative to
            the current folder of the call of ``start``, after restarts as well.
        settings: Time-outs and restarts.
        log_dir: Folder for the workers' logs, ``worker-<n>.log``; None deletes them at ``stop``.
    """

    def __init__(
        self, specs: list[WorkerSpec], settings: WorkerConfig, log_dir: str | None = None
    ) -> None:
        if not specs:
            raise ValueError("specs is empty; give at least one WorkerSpec")
        self._specs = list(specs)
        self._settings = settings
        self._log_dir = log_dir
        self._owner = os.getpid()
        self._folder: Path | None = None
        self._supervisors: list[ProcessSupervisor] = []

    def start(self) -> None:
        """Start all workers; return when they are ready.

        Raises:
            WorkerStartError: One is not; all are stopped again.
        """
        if self._supervisors:
            raise RuntimeError("the pool was started before; make a new one")
        try:
            self._folder = _socket_folder()
            log_dir = Path(self._log_dir or self._folder).absolute()
            log_dir.mkdir(parents=True, exist_ok=True)
            for number, spec in enumerate(self._specs):
                name = f"worker-{number}"
                spec = replace(spec, socket=str(self._folder / f"{name}.sock"))
                self._supervisors.append(
                    ProcessSupervisor(spec, self._settings, log_dir / f"{name}.log")
                )
            for supervisor in self._supervisors:
                supervisor.start()
            for supervisor in self._supervisors:
                # After all are started: they load their models side by side.
                supervisor.settled.wait()
                if supervisor.fault is not None:
                    raise WorkerStartError(f"{supervisor.name} did not start: {supervisor.fault}")
        # Ctrl-C as well must leave no process behind.
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End all workers within seconds; clients notice it at once. A second call does nothing."""
        if os.getpid() != self._owner or self._folder is None:
            return
        folder, self._folder = self._folder, None
        # First the sockets: without them no client waits for a restart.
        for address in self.addresses:
            Path(address).unlink(missing_ok=True)
        for supervisor in self._supervisors:
            supervisor.request_stop()
        deadline = time.monotonic() + _STOP_S
        for supervisor in self._supervisors:
            if supervisor.ident is not None:  # else it was never started
                supervisor.join(max(deadline - time.monotonic(), 0))
        for supervisor in self._supervisors:
            if supervisor.is_alive():
                supervisor.kill()
                supervisor.join(_STOP_S)
        shutil.rmtree(folder, ignore_errors=True)

    def __enter__(self) -> WorkerPool:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def addresses(self) -> list[str]:
        """Paths of the workers' sockets, which stay the same when a worker restarts."""
        return [supervisor.address for supervisor in self._supervisors]

    def client(self) -> WorkerClient:
        """A client with the settings' deadline and circuit breaker."""
        advanced = self._settings.advanced
        return WorkerClient(
            self.addresses,
            advanced.deadline_s,
            advanced.breaker_failures,
            advanced.breaker_cooldown_s,
        )

    def stats(self) -> dict[str, Any]:
        """``restarts`` and ``given_up`` of the pool, and each worker's counters in ``workers``."""
        with contextlib.closing(self.client()) as client:
            workers = client.stats()
        return {
            "restarts": sum(supervisor.restarts for supervisor in self._supervisors),
            "given_up": sum(supervisor.fault is not None for supervisor in self._supervisors),
            "workers": workers,
        }


def _socket_folder() -> Path:
    """A new folder that only this user can enter, with a path short enough for a socket."""
    folder = tempfile.mkdtemp(prefix="bgaug-")
    # TMPDIR of a batch system can be long.
    if len(folder) > _MAX_SOCKET_FOLDER:
        os.rmdir(folder)
        folder = tempfile.mkdtemp(prefix="bgaug-", dir="/tmp")
    return Path(folder)
