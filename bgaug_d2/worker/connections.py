"""Connections to the painting processes, one for each process, thread and worker.

A connection is made at its first use, and again after a worker's restart or a fork.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from typing import Any

from bgaug_d2.worker.protocol import STARTED, ProtocolError, check_peer, receive_frame, send_frame

# Seconds from the first byte of an answer to its last.
_FRAME_S = 2.0


class WorkerRemoved(Exception):  # noqa: N818 - an event that the client handles, not a mistake
    """There is no worker at this address any more."""


class WorkerRestarting(Exception):  # noqa: N818
    """No worker answers at this address at the moment."""


class WorkerDied(Exception):  # noqa: N818
    """The connection ended without an answer.

    Attributes:
        started: Whether the worker had begun to paint the job.
    """

    def __init__(self, started: bool) -> None:
        super().__init__("the worker closed the connection")
        self.started = started


class Connections:
    """Exchanges frames with the workers at ``addresses``; worker ``index`` is at the index-th."""

    def __init__(self, addresses: list[str]) -> None:
        self._addresses = addresses
        # A connection carries one message and its answer at a time, so threads cannot share one.
        self._local = threading.local()

    def close(self) -> None:
        """Close this thread's connections; the next exchange makes new ones."""
        connections = self._connections()
        while connections:
            connections.popitem()[1].close()

    def exchange(self, index: int, frame: bytes, deadline: float) -> dict[str, Any]:
        """Send worker ``index`` a frame and read its final answer.

        Raises:
            TimeoutError: The answer did not come by ``deadline`` (``time.monotonic()``).
            WorkerRemoved, WorkerRestarting, WorkerDied: See each.
        """
        connection = self._connections().pop(index, None)
        if connection is not None:
            try:
                return self._exchange_once(index, connection, frame, deadline)
            except WorkerDied as error:
                if error.started:
                    raise
                # Most likely the worker restarted since the last call, so this job did not kill it:
                # once more over a new connection.
        return self._exchange_once(index, self._connect(index, deadline), frame, deadline)

    def _exchange_once(
        self, index: int, connection: socket.socket, frame: bytes, deadline: float
    ) -> dict[str, Any]:
        """``exchange`` over one connection, which is kept only if the answer was read to its end.

        After a timeout or Ctrl-C the answer could still come; the next call would take it for its
        own.
        """
        started = False
        try:
            send_frame(connection, frame, deadline)
            while (answer := receive_frame(connection, deadline, _FRAME_S)) == STARTED:
                started = True
            if answer is None:
                raise WorkerDied(started)
            self._connections()[index] = connection
            return answer
        except TimeoutError:  # an OSError, too: without this line it would count as a death
            raise
        except (ProtocolError, OSError):
            raise WorkerDied(started) from None
        finally:
            if self._connections().get(index) is not connection:
                connection.close()

    def _connect(self, index: int, deadline: float) -> socket.socket:
        address = self._addresses[index]
        try:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                # 0 would switch to a socket that does not block.
                connection.settimeout(max(deadline - time.monotonic(), 0.001))
                connection.connect(address)
                check_peer(connection)
            except BaseException:
                connection.close()
                raise
        except TimeoutError:
            raise
        except FileNotFoundError:
            # A worker that was given up has lost its socket, so waiting would not help.
            raise WorkerRemoved(f"there is no worker at {address}") from None
        except (OSError, ProtocolError) as error:
            raise WorkerRestarting(f"{address}: {error}") from None
        return connection

    def _connections(self) -> dict[int, socket.socket]:
        """This thread's connections; a forked child closes those it inherited and makes its own."""
        local = self._local
        # Two processes on one socket would read each other's answers.
        if getattr(local, "pid", None) != os.getpid():
            for connection in getattr(local, "connections", {}).values():
                connection.close()
            local.pid, local.connections = os.getpid(), {}
        connections: dict[int, socket.socket] = local.connections
        return connections
