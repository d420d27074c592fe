"""What we build: read by the PyPI reader, accepted by the reference verifier, aligned as every language wants it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import _framing
from gateway._framing import (
    CEILING,
    HEADER,
    build_ack,
    build_chat,
    build_downstream,
    build_error,
    build_frame,
    build_heartbeat,
    build_upstream,
    encode_frame,
    parse_frame,
)
from gateway.protocol.fbs import internal_generated as internal
from gateway.protocol.fbs import message_generated as message
from tests.framing import reference
from tests.framing.strategies import int32, int64, packets, texts, uint64

int8 = st.integers(-128, 127)
uint32 = st.integers(0, 2**32 - 1)


def opened(frame: bytes, msg_type: int, seq: int, timestamp: int) -> bytes:
    """Check header and Packet with the PyPI reader; return the payload."""
    assert int.from_bytes(frame[:4]) == len(frame) - HEADER
    assert int.from_bytes(frame[4:6]) == msg_type
    body = frame[HEADER:]
    assert len(body) % 8 == 0
    assert reference.verdict(msg_type, body) == (0, "")
    packet = message.Packet.GetRootAs(body)
    assert (packet.MsgType(), packet.Seq(), packet.Timestamp()) == (msg_type, seq, timestamp)
    start = packet._tab.Vector(packet._tab.Offset(10))
    assert start % 8 == 0
    return body[start : start + packet.PayloadLength()]


def text(value: bytes | None) -> str:
    assert value is not None
    return value.decode()


@given(uint64, uint64)
def test_heartbeat(seq: int, timestamp: int) -> None:
    frame = build_heartbeat(seq, timestamp)
    assert frame[:HEADER] == b"\0\0\0\x28\0\0"
    assert reference.verdict(0, frame[HEADER:]) == (0, "")
    packet = message.Packet.GetRootAs(frame[HEADER:])
    assert (packet.MsgType(), packet.Seq(), packet.Timestamp()) == (0, seq, timestamp)
    assert packet.PayloadIsNone()


@given(uint64, uint64, texts, int8, int32, uint64, uint64)
def test_ack(seq: int, now: int, msg_id: str, status: int, code: int, server_seq: int, acked_at: int) -> None:
    payload = opened(build_ack(seq, now, msg_id, status, code, server_seq, acked_at), 11, seq, now)
    ack = message.MessageAck.GetRootAs(payload)
    assert (text(ack.MsgId()), ack.Status(), ack.Code()) == (msg_id, status, code)
    assert (ack.ServerSeq(), ack.Timestamp()) == (server_seq, acked_at)


@given(uint64, uint64, int32, texts, uint32)
def test_error(seq: int, now: int, code: int, words: str, retry: int) -> None:
    error = message.Error.GetRootAs(opened(build_error(seq, now, code, words, retry), 3, seq, now))
    assert (error.Code(), text(error.Message()), error.RetryAfterMs()) == (code, words, retry)


@given(uint64, uint64, texts, int64, int64, texts, int32, uint64, int64, uint64)
def test_chat(
    seq: int, now: int, msg_id: str, sender: int, to: int, content: str, kind: int, at: int, group: int, server: int
) -> None:
    frame = build_chat(seq, now, msg_id, sender, to, content, kind, at, group, server)
    chat = message.ChatMessage.GetRootAs(opened(frame, 10, seq, now))
    assert (text(chat.MsgId()), chat.FromUser(), chat.ToUser(), text(chat.Content())) == (msg_id, sender, to, content)
    assert (chat.ContentType(), chat.Timestamp(), chat.GroupId(), chat.ServerSeq()) == (kind, at, group, server)


@given(packets(), uint64, uint64)
def test_frame_around_any_payload(drawn: tuple[int, bytes, Any, Any], seq: int, now: int) -> None:
    msg_type, body, _, _ = drawn
    payload = parse_frame(msg_type, body).payload
    frame = parse_frame(msg_type, build_frame(msg_type, seq, now, payload)[HEADER:])
    assert (frame.seq, frame.timestamp, frame.payload) == (seq, now, payload)


def test_texts_of_every_length_are_terminated_and_padded() -> None:
    for size in range(40):
        words = "x" * size
        payload = opened(build_chat(1, 2, words, 3, 4, words, 5, 6, 7, 8), 10, 1, 2)
        assert len(payload) % 8 == 0
        assert payload.count(words.encode() + b"\0") >= 2
        opened(build_ack(1, 2, words, 3), 11, 1, 2)
        opened(build_error(1, 2, 3, words), 3, 1, 2)


def test_what_is_not_written_is_zero() -> None:
    """Padding never shows what was in memory: the same arguments give the same bytes."""
    frames = {build_ack(1, 2, "abcdef", 3, 4, 5, 6) for _ in range(20)} | {
        build_ack(1, 2, "abcdef", 3, 4, 5, 6) for junk in [b"\xff" * n for n in range(100, 200)] if junk
    }
    assert len(frames) == 1
    [frame] = frames
    assert b"\xff" not in frame


@given(texts, int64, int64, texts, texts, uint64, packets())
def test_upstream(
    node: str, conn: int, user: int, device: str, platform: str, at: int, drawn: tuple[int, bytes, Any, Any]
) -> None:
    msg_type, body, _, _ = drawn
    data = build_upstream(node, conn, user, device, platform, at, parse_frame(msg_type, body))
    assert reference.envelope_verdict("Upstream", data) == ""
    read = internal.Upstream.GetRootAs(data)
    assert (text(read.NodeId()), read.ConnId(), read.UserId()) == (node, conn, user)
    assert (text(read.DeviceId()), text(read.Platform()), read.ReceivedAt()) == (device, platform, at)
    assert read.MsgType() == msg_type
    start = read._tab.Vector(read._tab.Offset(18))
    assert start % 8 == 0
    assert data[start : start + read.PacketLength()] == body


@given(int64, st.lists(int64, max_size=9), texts, texts, int64, int8, int32, st.integers(-9, 99), st.binary(), uint64)
def test_downstream(
    user: int, ids: list[int], device: str, platform: str, exclude: int,
    action: int, code: int, kind: int, packet: bytes, expires: int,
) -> None:  # fmt: skip
    data = build_downstream(user, ids, device, platform, exclude, action, code, kind, packet, expires)
    assert reference.envelope_verdict("Downstream", data) == ""
    read = internal.Downstream.GetRootAs(data)
    assert (read.UserId(), [read.ConnIds(i) for i in range(read.ConnIdsLength())]) == (user, ids)
    assert (text(read.DeviceId()), text(read.Platform()), read.ExcludeConnId()) == (device, platform, exclude)
    assert (read.Action(), read.Code(), read.MsgType(), read.ExpiresAt()) == (action, code, kind, expires)
    start = read._tab.Vector(read._tab.Offset(20))
    assert start % 8 == 0
    assert data[start : start + read.PacketLength()] == packet


def test_encode_frame() -> None:
    assert encode_frame(0xABCD, b"body") == b"\0\0\0\4\xab\xcdbody"
    assert encode_frame(0, b"") == bytes(HEADER)
    with pytest.raises(ValueError, match="over 16777216"):
        encode_frame(10, bytes(CEILING + 1))
    assert len(encode_frame(10, bytes(CEILING))) == HEADER + CEILING
    with pytest.raises(ValueError, match="over 16777216"):
        build_frame(10, 0, 0, bytes(CEILING))


@pytest.mark.parametrize(
    "build",
    [
        lambda: build_heartbeat(-1, 0),
        lambda: build_heartbeat(2**64, 0),
        lambda: build_ack(0, 0, "m", 128),
        lambda: build_ack(0, 0, "m", 0, 2**31),
        lambda: build_chat(0, 0, "m", 2**63, 0, "", 0, 0, 0, 0),
        lambda: build_downstream(0, [2**63], "", "", 0, 0, 0, 0, b"", 0),
        lambda: build_downstream(0, [], "", "", 0, 0, 0, 2**15, b"", 0),
        lambda: encode_frame(2**16, b""),
        lambda: encode_frame(-1, b""),
    ],
)
def test_numbers_that_do_not_fit(build: Any) -> None:
    with pytest.raises(OverflowError):
        build()


def test_values_of_the_wrong_type() -> None:
    frame: Any = parse_frame(0, b"")
    wrong: Any
    for wrong in (None, b"bytes", 5):
        with pytest.raises(TypeError):
            build_ack(0, 0, wrong, 0)
        with pytest.raises(TypeError):
            build_upstream(wrong, 0, 0, "", "", 0, frame)
    for wrong in (None, "text", bytearray(b"x")):
        with pytest.raises(TypeError):
            encode_frame(0, wrong)
        with pytest.raises(TypeError):
            _framing.parse_frame(0, wrong)
    with pytest.raises(TypeError):
        build_upstream("", 0, 0, "", "", 0, None)  # type: ignore[arg-type]
    with pytest.raises(UnicodeEncodeError):
        build_ack(0, 0, "\ud800", 0)


def test_ids_may_come_from_any_iterable() -> None:
    data = build_downstream(0, (i for i in (3, 4)), "", "", 0, 1, 0, 0, b"", 0)
    assert internal.Downstream.GetRootAs(data).ConnIdsLength() == 2
