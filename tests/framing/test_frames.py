"""Field reads: what a frame says is what the PyPI builder wrote, and frames outlive what they were cut from."""

from __future__ import annotations

import gc
import random
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import _framing
from gateway._framing import (
    AckFrame,
    ChatFrame,
    DispatchTable,
    Downstream,
    Frame,
    FrameDecoder,
    SignalFrame,
    Upstream,
    is_name,
    parse_frame,
)
from tests.framing import strategies, writer

CHAT = {
    "msg_id": "msg_id", "from_user": "from_user", "to_user": "to_user", "content": "content",
    "content_type": "content_type", "timestamp": "sent_at", "group_id": "group_id", "server_seq": "server_seq",
}  # fmt: skip
ACK = {"msg_id": "msg_id", "status": "status", "code": "code", "server_seq": "server_seq", "timestamp": "acked_at"}
SIGNAL = {"to_user": "to_user", "from_user": "from_user", "group_id": "group_id", "kind": "kind", "data": "data"}
HOT: list[tuple[int, str, dict[str, str]]] = [
    (10, "ChatMessage", CHAT),
    (11, "MessageAck", ACK),
    (12, "Signal", SIGNAL),
]
EMPTY: dict[str, Any] = {"msg_id": "", "content": "", "kind": "", "data": b""}


@pytest.mark.parametrize(("msg_type", "table", "names"), HOT)
@given(st.data())
def test_every_field_reads_as_written(msg_type: int, table: str, names: dict[str, str], data: st.DataObject) -> None:
    fields = data.draw(strategies.fields(table))
    newer = data.draw(st.integers(0, 2))
    frame = parse_frame(msg_type, writer.packet(msg_type, fields, newer))
    for field, name in names.items():
        assert getattr(frame, name) == fields.get(field, EMPTY.get(field, 0)), field


@given(strategies.packets())
def test_the_packets_own_fields(drawn: tuple[int, bytes, dict[str, Any], dict[str, int]]) -> None:
    msg_type, body, _, head = drawn
    frame = parse_frame(msg_type, body)
    assert (frame.type, frame.seq, frame.timestamp) == (msg_type, head.get("seq", 0), head.get("timestamp", 0))
    assert frame.body == body
    assert frame.encode() == writer.frame(msg_type, body)
    assert frame.payload in body


@given(st.text(max_size=70), st.sampled_from([0, 1, -1, 2**63 - 1]), st.sampled_from([0, 1, -1, 2**63 - 1]))
def test_a_valid_message_has_a_name_and_one_target(msg_id: str, to_user: int, group_id: int) -> None:
    frame = parse_frame(10, writer.packet(10, {"msg_id": msg_id, "to_user": to_user, "group_id": group_id}))
    assert isinstance(frame, ChatFrame)
    one = sorted((to_user, group_id))[0] == 0 < max(to_user, group_id)
    assert frame.valid == (is_name(msg_id) and one)


@pytest.mark.parametrize("msg_id", ["a", "A-z_09", "x" * 64])
def test_good_names(msg_id: str) -> None:
    assert is_name(msg_id)
    frame = parse_frame(10, writer.packet(10, {"msg_id": msg_id, "group_id": 3}))
    assert isinstance(frame, ChatFrame)
    assert frame.valid


@pytest.mark.parametrize("msg_id", ["", "x" * 65, "a.b", "a b", "a\n", "a\0", "é", "a*", ">", "{a}", "a:b", "\ud800"])
def test_bad_names(msg_id: str) -> None:
    assert not is_name(msg_id)
    if msg_id.isprintable() or msg_id.isascii():
        frame = parse_frame(10, writer.packet(10, {"msg_id": msg_id, "group_id": 3}))
        assert isinstance(frame, ChatFrame)
        assert not frame.valid


def test_is_name_agrees_with_the_rule_on_every_character() -> None:
    allowed = set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")
    assert {chr(i) for i in range(0x3000) if is_name(chr(i))} == allowed
    assert is_name("x" * 200, 200)
    assert not is_name("x" * 5, 4)


@pytest.mark.parametrize(("status", "valid"), [(0, True), (4, True), (5, False), (-1, False), (127, False)])
def test_a_valid_ack_has_a_name_and_a_known_status(status: int, valid: bool) -> None:
    frame = parse_frame(11, writer.packet(11, {"msg_id": "m", "status": status}))
    assert isinstance(frame, AckFrame)
    assert frame.status == status
    assert frame.valid == valid
    nameless = parse_frame(11, writer.packet(11, {"status": 1}))
    assert isinstance(nameless, AckFrame)
    assert not nameless.valid


def test_frames_cannot_be_made_by_hand() -> None:
    for kind in (Frame, ChatFrame, AckFrame, SignalFrame, Upstream, Downstream):
        with pytest.raises(TypeError, match="made by"):
            kind()


def test_an_empty_handed_frame_reads_as_defaults() -> None:
    """`__new__` cannot be forbidden, so it must be harmless."""
    for kind in (Frame, ChatFrame, AckFrame, SignalFrame, Upstream, Downstream):
        empty = kind.__new__(kind)
        for name in dir(empty):
            if not name.startswith("_") and name not in ("encode", "frame"):
                assert getattr(empty, name) in (0, "", b"", (), False)
    assert Frame.__new__(Frame).encode() == bytes(6)
    assert Upstream.__new__(Upstream).frame is None
    with pytest.raises(_framing.FrameError):
        _ = Downstream.__new__(Downstream).frame


def test_frames_outlive_their_decoder_and_never_change() -> None:
    """What a frame pins is never written to again, however the stream goes on."""
    rng = random.Random(1)
    kept: list[tuple[ChatFrame, str]] = []
    table = DispatchTable(lambda *_: None)
    texts = iter([str(i) * rng.randrange(300) for i in range(400)])
    expected: list[str] = []
    table.on(10, lambda _, frame: kept.append((frame, expected[len(kept)])))
    decoder = FrameDecoder(table, 65536)
    stream = b""
    for text in texts:
        expected.append(text)
        stream += writer.frame(10, writer.packet(10, {"content": text}))
    at = 0
    while at < len(stream):
        size = rng.choice((1, 7, 100, 1000, 5000))
        decoder.feed(None, stream[at : at + size])
        at += size
    del decoder, stream
    gc.collect()
    assert len(kept) == 400
    for frame, text in kept:
        assert frame.content == text


def test_the_fed_bytes_are_released() -> None:
    table = DispatchTable(lambda *_: None)
    kept: list[Frame] = []
    table.on(10, lambda _, frame: kept.append(frame))
    decoder = FrameDecoder(table, 65536)
    chunk = writer.frame(10, writer.packet(10, {"content": "x"})) * 3 + b"\0"
    before = sys.getrefcount(chunk)
    decoder.feed(None, chunk)
    assert sys.getrefcount(chunk) == before + 3
    kept.clear()
    assert sys.getrefcount(chunk) == before


def test_nothing_leaks_on_any_path() -> None:
    """Replies, refusals, exceptions and frames: the count of living objects is what it was."""

    def handle(context: int, frame: Frame) -> bytes | None:
        if frame.seq == 3:
            raise ZeroDivisionError
        return b"reply" * 50 if frame.seq else None

    table = DispatchTable(lambda *_: b"refused")
    table.on(10, handle)
    frames = [writer.frame(10, writer.packet(10, {"msg_id": "m"}, seq=seq)) for seq in range(4)]
    bad = writer.frame(10, b"bad")

    def round_trip() -> None:
        for stream in (
            b"".join(frames[:3]) * 3,
            frames[1],
            frames[1] + frames[3],
            frames[1] * 2 + frames[3],
            frames[1] + bad,
            frames[1][:9],
        ):
            decoder = FrameDecoder(table, 65536)
            try:
                decoder.feed(0, stream)
            except ZeroDivisionError:
                assert decoder.closed

    for _ in range(3):
        round_trip()
    gc.collect()
    before = sys.getallocatedblocks()
    for _ in range(200):
        round_trip()
    gc.collect()
    assert sys.getallocatedblocks() - before < 50


def test_a_frame_says_what_it_is() -> None:
    assert repr(parse_frame(10, writer.packet(10, {"msg_id": "m"}, seq=5))).startswith("<ChatFrame type=10 seq=5 ")
