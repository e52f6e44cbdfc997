"""What a painting process and its clients say to each other: JSON over a Unix stream socket.

A frame is the length of its body in 4 bytes, big-endian, and a body of UTF-8 JSON, an object of at
most ``MAX_FRAME`` bytes. There is no pickle and no other format (rule 7). A client reads the answer
to a message before it sends the next one:

============================  ====================================================================
``{"op": "request", "job"}``  paint this; ``{"status": "started"}`` may come before the answer
``{"op": "enqueue", "job"}``  paint this some time; answered at once
``{"op": "ping"}``            idle: the model runs once before the answer; busy: answered at once
``{"op": "stats"}``           counters
============================  ====================================================================

A ``Reply`` answers the first two. ``request`` may say ``"isolated": true`` (see ``client``).
"""

from __future__ import annotations

import json
import os
import socket
import struct
import time
from dataclasses import asdict, dataclass
from typing import Any

# Bounds the memory that a faulty peer can make the other side use.
MAX_FRAME = 4 * 1024 * 1024

STATUSES = ("done", "rejected", "queued", "busy", "error", "timeout", "unavailable")
STARTED = {"status": "started"}

# What a worker writes to its parent, one byte for each event.
READY, PAINTED = b"r", b"p"

_LENGTH = struct.Struct(">I")
_UCRED = struct.Struct("3i")  # pid, uid, gid


class ProtocolError(ValueError):
    """A peer sent something else than a frame, or is another user's; its connection is closed."""


@dataclass(frozen=True)
class Reply:
    """The outcome of a job.

    Attributes:
        status: ``done`` (the cache has the picture), ``rejected`` (the cache has a rejection),
            ``queued``, ``busy`` (no room), ``error`` (this job fails; nothing is cached),
            ``timeout``, ``unavailable`` (no worker).
        reason: A sentence, or the rejection's reason; empty for ``done`` and ``queued``.
    """

    status: str
    reason: str = ""

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ProtocolError(f"status {self.status!r} is none of {', '.join(STATUSES)}")

    def to_dict(self) -> dict[str, str]:
        """The answer as JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Reply:
        """Read an answer. Raises ProtocolError if it is none."""
        return cls(str(content.get("status")), str(content.get("reason", "")))


@dataclass(frozen=True)
class WorkerSpec:
    """What a painting process has to know, as one line of JSON on its standard input.

    Attributes:
        engine: ``module:callable``, which makes a ``PaintEngine`` of ``engine_options``.
        engine_options: JSON values.
        cache_dir: Folder of the cache.
        image_root: Folder that the jobs' file names are relative to.
        recipe_model_sha256: Digest of the weights; jobs for other weights are refused.
        dtype: Number format; jobs for another one are refused.
        cache_max_bytes: Quota of the cache; 0 means none.
        threads: CPU threads that decode, build masks and encode.
        queue_size: Jobs held at most, those in memory included.
        max_running: Pictures in memory at most; 0 means two per row of a UNet call.
        socket: Path of its socket; the pool fills it in.
    """

    engine: str
    engine_options: dict[str, Any]
    cache_dir: str
    image_root: str
    recipe_model_sha256: str
    dtype: str
    cache_max_bytes: int = 0
    threads: int = 2
    queue_size: int = 512
    max_running: int = 0
    socket: str = ""

    def to_line(self) -> bytes:
        """One line of JSON."""
        return json.dumps(asdict(self), allow_nan=False).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> WorkerSpec:
        """Read such a line. Raises ValueError or TypeError if it is none."""
        return cls(**json.loads(line))


def encode_frame(message: dict[str, Any]) -> bytes:
    """One frame.

    Raises:
        ProtocolError: The message is over ``MAX_FRAME``, holds NaN or infinity, or is no JSON.
    """
    try:
        # allow_nan=False: by default json writes NaN, which is no JSON.
        body = json.dumps(message, separators=(",", ":"), allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise ProtocolError(f"the message cannot be sent as JSON: {error}") from error
    if len(body) > MAX_FRAME:
        raise ProtocolError(f"a message of {len(body)} bytes is over the limit of {MAX_FRAME}")
    return _LENGTH.pack(len(body)) + body


def send_frame(connection: socket.socket, frame: bytes, deadline: float) -> None:
    """Send a frame from ``encode_frame``.

    Args:
        connection: A stream socket.
        frame: Its bytes.
        deadline: ``time.monotonic()`` at which to give up.

    Raises:
        OSError: The peer is gone, or (TimeoutError) does not read.
    """
    connection.settimeout(_remaining(deadline))
    # The time-out of sendall is for the whole frame, not for each part of it.
    connection.sendall(frame)


def receive_frame(
    connection: socket.socket, deadline: float | None, frame_s: float
) -> dict[str, Any] | None:
    """Read one message, or None if the peer closed the connection between two frames.

    Args:
        connection: A stream socket.
        deadline: ``time.monotonic()`` by which the frame must be complete, or None to wait for its
            first byte as long as it takes.
        frame_s: Seconds from the first byte of a frame to its last.

    Raises:
        ProtocolError: Closed inside a frame, or the frame is too large or no JSON object.
        OSError: The peer is gone, or (TimeoutError) too slow.
    """
    connection.settimeout(None if deadline is None else _remaining(deadline))
    # One byte alone: silence between two frames is allowed, a pause inside one is not.
    first = connection.recv(1)
    if not first:
        return None
    end = time.monotonic() + frame_s
    end = end if deadline is None else min(end, deadline)
    head = first + _receive_exactly(connection, _LENGTH.size - 1, end)
    (length,) = _LENGTH.unpack(head)
    if length > MAX_FRAME:
        raise ProtocolError(f"a frame of {length} bytes is over the limit of {MAX_FRAME}")
    return _decode(_receive_exactly(connection, length, end))


def check_peer(connection: socket.socket) -> None:
    """Refuse a peer of another user, whatever the socket's folder allows.

    Raises:
        ProtocolError: The peer belongs to somebody else.
        OSError: The peer is gone.
    """
    # The kernel fills these in, so a peer cannot forge them.
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    _, uid, _ = _UCRED.unpack(credentials)
    if uid != os.geteuid():
        raise ProtocolError(f"the peer belongs to user {uid}, this process to user {os.geteuid()}")


def _receive_exactly(connection: socket.socket, count: int, deadline: float) -> bytes:
    # The buffer grows with what arrives, not with what the length promises.
    received = bytearray()
    while len(received) < count:
        connection.settimeout(_remaining(deadline))
        chunk = connection.recv(min(count - len(received), 1 << 16))
        if not chunk:
            raise ProtocolError("the peer closed the connection inside a frame")
        received += chunk
    return bytes(received)


def _remaining(deadline: float) -> float:
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise TimeoutError("the deadline has passed")
    return seconds


def _decode(body: bytes) -> dict[str, Any]:
    try:
        # Python's parser takes NaN and Infinity unless its callback refuses them.
        message = json.loads(body.decode(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:  # the latter from deep nesting
        raise ProtocolError(f"the frame is no JSON: {type(error).__name__}: {error}") from error
    if not isinstance(message, dict):
        raise ProtocolError(f"the frame is a {type(message).__name__}, not an object")
    return message


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
