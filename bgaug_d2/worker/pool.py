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
from bgaug_d2.worker.supervisor import Keeper

# A worker that was told to end has so long, in seconds, before it is killed.
_STOP_S = 2.0
# The kernel's limit for the path of a socket is 107 bytes, names in the folder need about 20.
_MAX_SOCKET_FOLDER = 80


class WorkerPool:
    """Painting processes, one for each spec, that end with this process whatever ends it.

    ``stop`` abandons what is queued: whoever wants a picture waits for its reply first. A pool
    belongs to the process that made it; its copy in a forked process does nothing.

    Args:
        specs: What each process is told; ``socket`` is filled in here. Relative paths mean the
            current folder of the call of ``start``, after restarts as well.
        settings: Patience and restarts.
        log_dir: Folder for the workers' logs, ``worker-<n>.log``; None keeps them until ``stop``.
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
        self._keepers: list[Keeper] = []

    def start(self) -> None:
        """Start all workers; return when they are ready.

        Raises:
            WorkerStartError: One is not; all are stopped again.
        """
        if self._keepers:
            raise RuntimeError("the pool was started before; make a new one")
        try:
            self._folder = _socket_folder()
            log_dir = Path(self._log_dir or self._folder).absolute()
            log_dir.mkdir(parents=True, exist_ok=True)
            for number, spec in enumerate(self._specs):
                name = f"worker-{number}"
                spec = replace(spec, socket=str(self._folder / f"{name}.sock"))
                self._keepers.append(Keeper(spec, self._settings, log_dir / f"{name}.log"))
            for keeper in self._keepers:
                keeper.start()
            for keeper in self._keepers:
                keeper.settled.wait()
                if keeper.fault is not None:
                    raise WorkerStartError(f"{keeper.name} did not start: {keeper.fault}")
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End all workers, within seconds; clients find nobody. Calling it again does nothing."""
        if os.getpid() != self._owner or self._folder is None:
            return
        folder, self._folder = self._folder, None
        for address in self.addresses:
            Path(address).unlink(missing_ok=True)
        for keeper in self._keepers:
            keeper.request_stop()
        deadline = time.monotonic() + _STOP_S
        for keeper in self._keepers:
            if keeper.ident is not None:
                keeper.join(max(deadline - time.monotonic(), 0))
        for keeper in self._keepers:
            if keeper.is_alive():
                keeper.kill()
                keeper.join(_STOP_S)
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
        """Paths of the workers' sockets, which stay the same when a worker is started anew."""
        return [keeper.address for keeper in self._keepers]

    def client(self) -> WorkerClient:
        """A client with the settings' deadline and circuit breaker."""
        settings = self._settings
        return WorkerClient(
            self.addresses,
            settings.deadline_s,
            settings.breaker_failures,
            settings.breaker_cooldown_s,
        )

    def stats(self) -> dict[str, Any]:
        """``restarts`` and ``given_up`` of the pool, and each worker's counters in ``workers``."""
        with contextlib.closing(self.client()) as client:
            workers = client.stats()
        return {
            "restarts": sum(keeper.restarts for keeper in self._keepers),
            "given_up": sum(keeper.fault is not None for keeper in self._keepers),
            "workers": workers,
        }


def _socket_folder() -> Path:
    """A new folder that only this user can enter, with a path short enough for a socket."""
    folder = tempfile.mkdtemp(prefix="bgaug-")
    if len(folder) > _MAX_SOCKET_FOLDER:
        os.rmdir(folder)
        folder = tempfile.mkdtemp(prefix="bgaug-", dir="/tmp")
    return Path(folder)
