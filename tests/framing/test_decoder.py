"""FrameDecoder and DispatchTable: what is called, with what, in which order, and when it ends."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from gateway._framing import (
    CEILING,
    HEADER,
    AckFrame,
    ChatFrame,
    DispatchTable,
    Frame,
    FrameDecoder,
    SignalFrame,
    build_heartbeat,
    encode_frame,
    parse_frame,
)
from tests.framing import writer
from tests.framing.schema import PAYLOADS


class Log:
    """A table whose every step is written down; replies are what `answer` says."""

    def __init__(self, answer: Callable[[Any, Any], bytes | None] | None = None, limit: int = 65536) -> None:
        self.seen: list[Any] = []
        self.answer = answer
        self.table = DispatchTable(self.refuse)
        for msg_type in PAYLOADS:
            self.table.on(msg_type, self.handle)
        self.table.echo(0)
        self.decoder = FrameDecoder(self.table, limit)

    def refuse(self, context: Any, code: int, msg_type: int, seq: int) -> bytes | None:
        self.seen.append((code, msg_type, seq))
        return b"<%d>" % code

    def handle(self, context: Any, frame: Frame) -> bytes | None:
        self.seen.append((frame.type, frame.seq))
        return self.answer(context, frame) if self.answer else None

    def feed(self, data: bytes, now: int = 0) -> bytes:
        return self.decoder.feed(self, data, now)


def chat(seq: int) -> bytes:
    return writer.frame(10, writer.packet(10, {"msg_id": "m", "to_user": 1}, seq=seq))


def heartbeat(seq: int) -> bytes:
    return writer.frame(0, writer.packet(0, seq=seq))


def test_a_handler_gets_context_and_the_frame_of_its_kind() -> None:
    kinds: dict[int, type] = {10: ChatFrame, 11: AckFrame, 12: SignalFrame}
    for msg_type in PAYLOADS:
        got: list[tuple[Any, Frame]] = []
        table = DispatchTable(lambda *_: None)
        table.on(msg_type, lambda *arguments, got=got: got.append(arguments))
        body = writer.packet(msg_type, {}, seq=7, timestamp=8)
        context = object()
        assert FrameDecoder(table, 1000).feed(context, writer.frame(msg_type, body)) == b""
        [(seen, frame)] = got
        assert seen is context
        assert type(frame) is kinds.get(msg_type, Frame)
        assert (frame.type, frame.seq, frame.timestamp, frame.body) == (msg_type, 7, 8, body)
        assert frame.encode() == writer.frame(msg_type, body)
        assert frame.payload == writer.table(PAYLOADS[msg_type], {})


def test_replies_are_joined_in_order() -> None:
    log = Log(lambda _, frame: None if frame.seq == 2 else b"[%d]" % frame.seq)
    assert log.feed(b"".join(chat(seq) for seq in (1, 2, 3))) == b"[1][3]"
    one = b"[4]"
    assert Log(lambda *_: one).feed(chat(4)) is one
    assert Log(lambda *_: b"").feed(chat(4) * 3) == b""


def test_mixed_replies_of_echo_handler_and_refusal() -> None:
    log = Log(lambda _, frame: b"[%d]" % frame.seq)
    data = chat(1) + heartbeat(2) + encode_frame(99, b"") + chat(3) + encode_frame(0, b"")
    assert log.feed(data, 77) == b"[1]" + build_heartbeat(2, 77) + b"<4002>" + b"[3]" + bytes(HEADER)
    assert log.decoder.frames == 5
    assert log.decoder.pending == 0


def test_many_replies_outgrow_every_buffer() -> None:
    log = Log(lambda _, frame: bytes([frame.seq]) * 700)
    assert log.feed(b"".join(map(chat, range(100)))) == b"".join(bytes([seq]) * 700 for seq in range(100))


def test_a_heartbeat_is_echoed_with_its_seq_and_now() -> None:
    log = Log()
    reply = log.feed(heartbeat(2**64 - 1), 2**63)
    echoed = parse_frame(0, reply[HEADER:])
    assert (echoed.seq, echoed.timestamp) == (2**64 - 1, 2**63)
    assert log.feed(b"\0\0\0\0\0\0") == b"\0\0\0\0\0\0"
    assert log.seen == []


def test_an_unregistered_type_is_unknown_and_echoes_its_seq() -> None:
    seen: list[Any] = []
    table = DispatchTable(lambda *arguments: seen.append(arguments))
    decoder = FrameDecoder(table, 1000)
    assert decoder.feed("c", chat(5)) == b""
    assert decoder.feed("c", writer.frame(99, writer.table("Packet", {"msg_type": 99, "seq": 6}))) == b""
    assert decoder.feed("c", writer.frame(99, b"noise")) == b""
    assert seen == [("c", 4002, 10, 5), ("c", 4002, 99, 6), ("c", 4002, 99, 0)]
    assert not decoder.closed
    assert decoder.feed("c", writer.frame(10, b"noise")) == b""
    assert seen[3:] == [("c", 4000, 10, 0)]
    assert decoder.closed


def test_forbid_verifies_then_refuses_with_its_code() -> None:
    log = Log()
    log.table.forbid(10, 4005)
    assert log.feed(chat(5) + heartbeat(6), 1) == b"<4005>" + build_heartbeat(6, 1)
    assert log.seen == [(4005, 10, 5)]
    log.table.on(10, log.handle)
    log.feed(chat(7))
    assert log.seen[1:] == [(10, 7)]


@pytest.mark.parametrize(
    ("bad", "expected"),
    [
        (writer.frame(10, b"\0" * 20), (4000, 10, 0)),
        (writer.frame(10, b""), (4000, 10, 0)),
        (writer.frame(11, writer.packet(10, {"msg_id": "m"}, seq=3)), (4003, 11, 3)),
        (b"\x00\x01\x00\x01\x00\x0a", (4001, 10, 0)),
    ],
)
def test_what_closes(bad: bytes, expected: tuple[int, int, int]) -> None:
    log = Log(lambda *_: b"ok")
    assert log.feed(chat(1) + bad + chat(2)) == b"ok<%d>" % expected[0]
    assert log.seen == [(10, 1), expected]
    assert log.decoder.closed
    assert log.decoder.pending == 0
    assert log.feed(chat(3)) == b""
    assert log.seen[2:] == []


def test_close_from_a_handler_drops_the_rest_and_keeps_the_replies() -> None:
    def answer(log: Log, frame: Frame) -> bytes:
        if frame.seq == 2:
            log.decoder.close()
        return b"[%d]" % frame.seq

    log = Log(answer)
    cut = chat(1) + chat(2) + chat(3)
    assert log.feed(cut[:5]) == b""
    assert log.feed(cut[5:] + b"part") == b"[1][2]"
    assert (log.decoder.closed, log.decoder.pending) == (True, 0)
    assert log.feed(chat(4)) == b""


def test_feed_from_a_handler_is_refused_and_harmless() -> None:
    def answer(log: Log, frame: Frame) -> bytes:
        with pytest.raises(RuntimeError, match="called by a handler"):
            log.decoder.feed(log, chat(9))
        return b"[%d]" % frame.seq

    log = Log(answer)
    assert log.feed(chat(1) + chat(2)) == b"[1][2]"
    assert log.seen == [(10, 1), (10, 2)]


def test_another_decoder_may_be_fed_from_a_handler() -> None:
    inner = Log(lambda *_: b"inner")
    log = Log(lambda *_: inner.feed(chat(9)))
    assert log.feed(chat(1) + chat(2)) == b"innerinner"


def test_a_handlers_exception_passes_and_closes() -> None:
    def answer(log: Log, frame: Frame) -> bytes:
        if frame.seq == 3:
            raise ZeroDivisionError
        return b"[%d]" % frame.seq

    log = Log(answer)
    with pytest.raises(ZeroDivisionError):
        log.feed(chat(1) + chat(2) + chat(3) + chat(4))
    assert log.seen == [(10, 1), (10, 2), (10, 3)]
    assert log.decoder.closed
    assert log.feed(chat(5)) == b""


def test_a_refusals_exception_passes_and_closes() -> None:
    def refuse(*_: object) -> None:
        raise ZeroDivisionError

    decoder = FrameDecoder(DispatchTable(refuse), 1000)
    with pytest.raises(ZeroDivisionError):
        decoder.feed(None, encode_frame(99, b""))
    assert decoder.closed


def test_a_reply_that_is_no_bytes_is_a_type_error() -> None:
    log = Log(lambda *_: "text")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="must return bytes or None, not str"):
        log.feed(chat(1))
    assert log.decoder.closed


def test_pause_stops_after_the_current_frame_and_retains_the_rest() -> None:
    def answer(log: Log, frame: Frame) -> bytes:
        log.decoder.paused = frame.seq % 2 == 0
        return b"[%d]" % frame.seq

    log = Log(answer)
    frames = [chat(seq) for seq in range(1, 7)]
    assert log.feed(b"".join(frames[:5])) == b"[1][2]"
    rest = len(b"".join(frames[2:5]))
    assert (log.decoder.pending, log.decoder.paused) == (rest, True)
    assert log.feed(frames[5][:9]) == b""
    assert log.decoder.pending == rest + 9
    log.decoder.paused = False
    assert log.feed(b"") == b"[3][4]"
    assert log.feed(b"") == b""
    log.decoder.paused = False
    assert log.feed(frames[5][9:]) == b"[5][6]"
    assert (log.decoder.pending, log.decoder.frames) == (0, 6)


def test_pause_with_a_partial_frame_before_it() -> None:
    def answer(log: Log, frame: Frame) -> None:
        log.decoder.paused = True

    log = Log(answer)
    data = chat(1) + chat(2) + chat(3)
    for size in range(len(data)):
        log = Log(answer)
        log.feed(data[:size])
        for _ in range(4):
            log.decoder.paused = False
            log.feed(b"")
        log.feed(data[size:])
        for _ in range(4):
            log.decoder.paused = False
            log.feed(b"")
        assert log.seen == [(10, 1), (10, 2), (10, 3)]


def test_table_and_limit_may_change_between_two_frames_of_one_chunk() -> None:
    after = Log(lambda *_: b"after")

    def answer(log: Log, frame: Frame) -> bytes:
        log.decoder.table = after.table
        log.decoder.limit = len(chat(2)) - HEADER
        return b"before"

    log = Log(answer, limit=65536)
    big = writer.frame(10, writer.packet(10, {"content": "x" * 200}))
    assert log.feed(chat(1) + chat(2) + big) == b"beforeafter<4001>"
    assert after.seen == [(10, 2), (4001, 10, 0)]


@pytest.mark.parametrize("limit", [-1, CEILING + 1])
def test_a_limit_beyond_the_ceiling_is_refused(limit: int) -> None:
    table = DispatchTable(lambda *_: None)
    with pytest.raises(ValueError, match="a frame limit must be 0 to 16777216 bytes"):
        FrameDecoder(table, limit)
    decoder = FrameDecoder(table, CEILING)
    with pytest.raises(ValueError, match="a frame limit"):
        decoder.limit = limit
    assert decoder.limit == CEILING


def test_registering_what_does_not_exist() -> None:
    table = DispatchTable(lambda *_: None)
    for msg_type in (-1, 6, 63, 64, 70000):
        for register in (
            lambda t: table.on(t, lambda *_: None), table.echo, lambda t: table.forbid(t, 4005),
        ):  # fmt: skip
            with pytest.raises(ValueError, match="no frame type has the number"):
                register(msg_type)
    with pytest.raises(ValueError, match="only a Heartbeat"):
        table.echo(10)
    with pytest.raises(TypeError, match="must be callable"):
        table.on(10, None)  # type: ignore[arg-type]


def test_a_cycle_through_a_decoder_is_collected() -> None:
    """A connection holds its decoder, whose table holds the connection's methods."""

    class Holder:
        def __init__(self) -> None:
            self.table = DispatchTable(self.refuse)
            self.table.on(10, self.handle)
            self.decoder = FrameDecoder(self.table, 1000)

        def refuse(self, context: Any, code: int, msg_type: int, seq: int) -> None: ...
        def handle(self, context: Any, frame: Frame) -> None: ...

    holder = Holder()
    holder.decoder.feed(holder, chat(1) + b"part")
    gone = weakref.ref(holder)
    del holder
    gc.collect()
    assert gone() is None
