"""Connections to the painting processes, one for each process, thread and worker.

They are made when they are first needed, and again after a worker's restart or a fork.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from typing import Any

from bgaug_d2.worker.protocol import STARTED, ProtocolError, check_peer, receive_frame, send_frame

# From the first byte of an answer to its last.
_FRAME_S = 2.0


class GoneError(Exception):
    """Nobody will answer at this address any more."""


class RefusedError(Exception):
    """Nobody answers at this address at the moment."""


class DiedError(Exception):
    """The connection ended without an answer; ``started``: while the job was being painted."""

    def __init__(self, started: bool) -> None:
        super().__init__("the worker closed the connection")
        self.started = started


class Connections:
    """Exchanges frames with the workers at ``addresses``, which are numbered in their order."""

    def __init__(self, addresses: list[str]) -> None:
        self._addresses = addresses
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
            GoneError, RefusedError, DiedError: See there.
        """
        connection = self._connections().pop(index, None)
        if connection is not None:
            try:
                return self._converse(index, connection, frame, deadline)
            except DiedError as error:
                if error.started:
                    raise
                # Most likely the worker was restarted since the last call: not a fault of this one.
        return self._converse(index, self._connect(index, deadline), frame, deadline)

    def _converse(
        self, index: int, connection: socket.socket, frame: bytes, deadline: float
    ) -> dict[str, Any]:
        """``exchange`` over one connection, which is kept only if the answer was read to its end.

        Otherwise (a timeout, Ctrl-C) that answer could still come and be taken for the next one's.
        """
        started = False
        try:
            send_frame(connection, frame, deadline)
            while (answer := receive_frame(connection, deadline, _FRAME_S)) == STARTED:
                started = True
            if answer is None:
                raise DiedError(started)
            self._connections()[index] = connection
            return answer
        except TimeoutError:
            raise
        except (ProtocolError, OSError):
            raise DiedError(started) from None
        finally:
            if self._connections().get(index) is not connection:
                connection.close()

    def _connect(self, index: int, deadline: float) -> socket.socket:
        address = self._addresses[index]
        try:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                connection.settimeout(max(deadline - time.monotonic(), 0.001))
                connection.connect(address)
                check_peer(connection)
            except BaseException:
                connection.close()
                raise
        except TimeoutError:
            raise
        except FileNotFoundError:
            raise GoneError(f"there is no worker at {address}") from None
        except (OSError, ProtocolError) as error:
            raise RefusedError(f"{address}: {error}") from None
        return connection

    def _connections(self) -> dict[int, socket.socket]:
        """This thread's connections; a forked child closes what it inherited and starts anew."""
        local = self._local
        if getattr(local, "pid", None) != os.getpid():
            for connection in getattr(local, "connections", {}).values():
                connection.close()
            local.pid, local.connections = os.getpid(), {}
        connections: dict[int, socket.socket] = local.connections
        return connections
