"""Frames: what goes through, and that everything else is refused with a clear error, in time."""

from __future__ import annotations

import json
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator

import pytest

from bgaug_d2.worker import protocol
from bgaug_d2.worker.protocol import (
    MAX_FRAME,
    ProtocolError,
    Reply,
    WorkerSpec,
    check_peer,
    encode_frame,
    receive_frame,
    send_frame,
)

Pair = tuple[socket.socket, socket.socket]

# Far above what an exchange takes on a busy machine, and below the limits that must not apply.
PATIENT_S = 20.0


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def soon(seconds: float = PATIENT_S) -> float:
    return time.monotonic() + seconds


def framed(body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + body


@pytest.mark.parametrize("message", [{}, {"op": "ping"}, {"text": "Größe \x00 \U0001f600"}])
def test_a_message_arrives_as_it_was_sent(pair: Pair, message: dict[str, str]) -> None:
    ours, theirs = pair
    send_frame(ours, encode_frame(message), soon())
    assert receive_frame(theirs, soon(), PATIENT_S) == message


def test_messages_in_one_write_are_kept_apart(pair: Pair) -> None:
    ours, theirs = pair
    ours.sendall(encode_frame({"n": 1}) + encode_frame({"n": 2}))
    assert [receive_frame(theirs, soon(), PATIENT_S) for _ in range(2)] == [{"n": 1}, {"n": 2}]


def test_a_frame_in_single_bytes_arrives(pair: Pair) -> None:
    ours, theirs = pair

    def dribble() -> None:
        for byte in encode_frame({"op": "stats"}):
            ours.sendall(bytes([byte]))
            time.sleep(0.002)

    threading.Thread(target=dribble, daemon=True).start()
    assert receive_frame(theirs, soon(), PATIENT_S) == {"op": "stats"}


def test_the_largest_frame_arrives_and_a_larger_one_is_not_sent(pair: Pair) -> None:
    ours, theirs = pair
    text = "x" * (MAX_FRAME - len('{"t":""}'))
    frame = encode_frame({"t": text})
    assert len(frame) == MAX_FRAME + 4
    threading.Thread(target=send_frame, args=(ours, frame, soon()), daemon=True).start()
    assert receive_frame(theirs, soon(), PATIENT_S) == {"t": text}
    with pytest.raises(ProtocolError, match=r"over the limit of 4194304"):
        encode_frame({"t": text + "x"})


def test_a_length_over_the_limit_is_refused_before_the_body_is_read(pair: Pair) -> None:
    ours, theirs = pair
    ours.sendall(struct.pack(">I", MAX_FRAME + 1))
    with pytest.raises(ProtocolError, match="over the limit"):
        receive_frame(theirs, soon(), PATIENT_S)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"1",
        b"{",
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b"\xff\xfe",
        "{}".encode("utf-16"),
        b"[" * 50_000,
        b'{"a":' * 10_000,
        b'{"n": ' + b"9" * 5000 + b"}",
        b"\x80\x04}\x94.",  # a pickle
    ],
    ids=lambda body: repr(body[:12]),
)
def test_what_is_no_json_object_is_refused(pair: Pair, body: bytes) -> None:
    ours, theirs = pair
    ours.sendall(framed(body))
    with pytest.raises(ProtocolError, match="the frame is"):
        receive_frame(theirs, soon(), PATIENT_S)


def test_an_end_between_frames_is_none_and_inside_a_frame_an_error(pair: Pair) -> None:
    ours, theirs = pair
    ours.sendall(encode_frame({"op": "ping"}) + b"\x00\x00")
    ours.close()
    assert receive_frame(theirs, soon(), PATIENT_S) == {"op": "ping"}
    with pytest.raises(ProtocolError, match="inside a frame"):
        receive_frame(theirs, soon(), PATIENT_S)
    assert receive_frame(theirs, soon(), PATIENT_S) is None


@pytest.mark.parametrize("sent", [b"\x00", b"\x00\x00\x00\x09", b'\x00\x00\x00\x09{"op"'])
def test_a_half_frame_times_out_after_its_first_byte(pair: Pair, sent: bytes) -> None:
    ours, theirs = pair
    ours.sendall(sent)
    with pytest.raises(TimeoutError):  # it would wait without end
        receive_frame(theirs, None, 0.2)


def test_dribbling_does_not_stretch_the_time_of_a_frame(pair: Pair) -> None:
    ours, theirs = pair
    stop = threading.Event()

    def dribble() -> None:
        for byte in encode_frame({"t": "x" * 10_000}):  # would take over 200 s
            if stop.wait(0.02):
                return
            ours.sendall(bytes([byte]))

    thread = threading.Thread(target=dribble, daemon=True)
    thread.start()
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        receive_frame(theirs, None, 0.3)
    assert time.monotonic() - began < PATIENT_S
    stop.set()
    thread.join()


@pytest.mark.parametrize("deadline", [-1.0, 0.1])
def test_silence_times_out_at_the_deadline(pair: Pair, deadline: float) -> None:
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        receive_frame(pair[0], soon(deadline), 3 * PATIENT_S)
    assert time.monotonic() - began < PATIENT_S


def test_a_peer_that_does_not_read_times_out(pair: Pair) -> None:
    frame = encode_frame({"t": "x" * 4_000_000})
    with pytest.raises(TimeoutError):  # it would wait without end
        send_frame(pair[0], frame, soon(0.2))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), b"bytes"])
def test_what_json_cannot_say_is_not_sent(value: object) -> None:
    with pytest.raises(ProtocolError, match="cannot be sent as JSON"):
        encode_frame({"value": value})


def test_memory_follows_what_arrives_not_what_a_length_promises(pair: Pair) -> None:
    ours, theirs = pair
    sizes: list[int] = []

    class Counting:
        def settimeout(self, _: float) -> None: ...

        def recv(self, count: int) -> bytes:
            sizes.append(count)
            return b"x" if len(sizes) < 5 else b""

    with pytest.raises(ProtocolError):
        protocol._receive_exactly(Counting(), MAX_FRAME, soon())  # type: ignore[arg-type]
    assert max(sizes) <= 1 << 16


def test_a_peer_of_this_user_is_let_in_and_another_is_not(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_peer(pair[0])
    user = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: user + 1)
    with pytest.raises(ProtocolError, match=f"the peer belongs to user {user}"):
        check_peer(pair[0])


def test_replies_survive_the_wire_and_unknown_ones_are_refused() -> None:
    reply = Reply("rejected", "flat")
    assert Reply.from_dict(json.loads(json.dumps(reply.to_dict()))) == reply
    assert Reply.from_dict({"status": "done"}) == Reply("done")
    for content in ({}, {"status": "okay"}, {"status": None}, {"status": ["done"]}):
        with pytest.raises(ProtocolError, match="is none of done"):
            Reply.from_dict(content)


def test_a_spec_is_one_line_and_comes_back() -> None:
    spec = WorkerSpec(
        "m:f", {"path": "a\nb", "n": 1}, "/cache", "/root", "ab", "float32", threads=3
    )
    line = spec.to_line()
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert WorkerSpec.from_line(line) == spec
    with pytest.raises((ValueError, TypeError)):
        WorkerSpec.from_line(b"")
