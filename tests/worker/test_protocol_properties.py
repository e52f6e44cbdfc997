"""Whatever bytes a peer sends: a message, an end, or an error that the caller expects."""

from __future__ import annotations

import json
import socket
import time

from hypothesis import given
from hypothesis import strategies as st

from bgaug_d2.worker.protocol import MAX_FRAME, ProtocolError, encode_frame, receive_frame

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=5,
)  # fmt: skip
messages = st.dictionaries(st.text(st.characters(codec="utf-8")), values, max_size=5)


def received(sent: bytes) -> list[dict[str, object]]:
    """All messages that a peer reads from ``sent`` until the end or an error it expects."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(sent)
        ours.close()
        found: list[dict[str, object]] = []
        try:
            while (message := receive_frame(theirs, time.monotonic() + 5, 5.0)) is not None:
                found.append(message)
        except ProtocolError:
            pass
        return found


@given(st.binary(max_size=200))
def test_random_bytes_are_messages_or_refused(sent: bytes) -> None:
    for message in received(sent):
        assert isinstance(message, dict)


@given(st.lists(messages, max_size=3))
def test_messages_come_back_in_order(sent: list[dict[str, object]]) -> None:
    frames = b"".join(encode_frame(message) for message in sent)
    assert received(frames) == json.loads(json.dumps(sent))


@given(messages, st.data())
def test_a_damaged_frame_is_refused_or_read_as_some_object(
    message: dict[str, object], data: st.DataObject
) -> None:
    frame = bytearray(encode_frame(message))
    position = data.draw(st.integers(0, len(frame) - 1))
    frame[position] ^= data.draw(st.integers(1, 255))
    for found in received(bytes(frame)):
        assert isinstance(found, dict)
        assert len(encode_frame(found)) <= MAX_FRAME + 4
