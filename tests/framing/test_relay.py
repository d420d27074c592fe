"""From a chunk to the acknowledgement in C: what is published, what is answered, what is left to Python."""

from __future__ import annotations

from typing import Any

import pytest

from gateway._framing import (
    DispatchTable,
    FrameDecoder,
    Relay,
    Sender,
    TokenBucket,
    Uplink,
    build_ack,
    build_chat,
    parse_frame,
    parse_upstream,
)

MESSAGE = 10


class Bus:
    """Keeps what was published; says no when told to."""

    def __init__(self) -> None:
        self.published: list[tuple[str, bytes]] = []
        self.takes = True
        self.error: Exception | None = None

    def publish(self, subject: str, payload: bytes) -> bool:
        if self.error is not None:
            raise self.error
        if self.takes:
            self.published.append((subject, payload))
        return self.takes


class Line(Uplink):
    """An Uplink that remembers."""

    def __init__(self, bus: Bus, *, rate: float = 1.0, burst: float = 10.0, user: int = 1001) -> None:
        self.time = 100.0
        self.told: list[Any] = []
        table = DispatchTable(lambda _context, code, msg_type, _seq: self.told.append(("wrong", code, msg_type)))
        table.on(MESSAGE, Relay(bus, "im.logic.upstream", "node-1", self.refuse, self.overdrawn))
        super().__init__(FrameDecoder(table, 65_536), lambda: self.time)
        self.sender = Sender(77, user, "phone", "ios", TokenBucket(rate, burst, self.time))

    def refuse(self, context: Any, frame: Any, code: int) -> bytes:
        assert context is self
        self.told.append(("refused", frame.msg_id, code))
        return b"refused"

    def overdrawn(self, context: Any) -> None:
        assert context is self
        self.told.append("overdrawn")

    def reply(self, frames: bytes) -> None:
        self.told.append(("reply", frames))

    def handed_over(self, seconds: float, count: int) -> None:
        self.told.append(("handed over", count))

    def fault(self) -> None:
        self.told.append("fault")


def chat(msg_id: str = "m-1", *, from_user: int = 0, to_user: int = 1002, group_id: int = 0, seq: int = 7) -> bytes:
    return build_chat(seq, 1, msg_id, from_user, to_user, "hello", 0, 1, group_id, 0)


def test_a_message_is_published_and_acknowledged() -> None:
    bus = Bus()
    line = Line(bus)
    frame = chat()
    line.feed(0, frame)
    ((subject, payload),) = bus.published
    envelope = parse_upstream(payload)
    assert subject == "im.logic.upstream"
    assert (envelope.node_id, envelope.conn_id, envelope.user_id) == ("node-1", 77, 1001)
    assert (envelope.device_id, envelope.platform, envelope.received_at) == ("phone", "ios", line.wall_ms)
    assert envelope.frame.encode() == frame
    assert line.told == [("handed over", 1), ("reply", build_ack(7, line.wall_ms, "m-1", 0, 0, 0, line.wall_ms))]
    assert line.sender is not None
    assert line.sender.handed_over == 0
    assert line.seen == 100.0


def test_several_in_one_chunk_are_answered_together() -> None:
    bus = Bus()
    line = Line(bus)
    line.feed(0, b"".join(chat(f"m-{n}", seq=n) for n in range(5)))
    acks = b"".join(build_ack(n, line.wall_ms, f"m-{n}", 0, 0, 0, line.wall_ms) for n in range(5))
    assert line.told == [("handed over", 5), ("reply", acks)]


@pytest.mark.parametrize(
    "frame",
    [
        chat(""),
        chat("a b"),
        chat("x" * 65),
        chat(to_user=0),
        chat(to_user=-5),
        chat(group_id=9),
        chat(from_user=1002),
        chat(from_user=-1),
    ],
)
def test_what_is_not_valid_is_left_to_python(frame: bytes) -> None:
    bus = Bus()
    line = Line(bus)
    line.feed(0, frame)
    assert bus.published == []
    msg_id = parse_frame(MESSAGE, frame[6:]).msg_id  # type: ignore[attr-defined]
    assert line.told == [("refused", msg_id, 4004), ("reply", b"refused")]
    assert line.sender is not None
    assert line.sender.bucket.spend(100.0, 10.0), "a refused message costs nothing here"


@pytest.mark.parametrize("frame", [chat(from_user=1001), chat("x" * 64), chat(to_user=0, group_id=5)])
def test_what_is_valid(frame: bytes) -> None:
    bus = Bus()
    Line(bus).feed(0, frame)
    assert len(bus.published) == 1


def test_a_bus_that_says_no() -> None:
    bus = Bus()
    bus.takes = False
    line = Line(bus)
    line.feed(0, chat())
    assert line.told == [("refused", "m-1", 4402), ("reply", b"refused")]


def test_a_budget_that_is_spent() -> None:
    bus = Bus()
    line = Line(bus, burst=2.0)
    line.feed(0, chat() * 3)
    assert line.told.count("overdrawn") == 1
    assert len(bus.published) == 3
    line.time += 3.0
    line.feed(0, chat())
    assert line.told.count("overdrawn") == 1


def test_without_a_sender_nothing_passes() -> None:
    bus = Bus()
    line = Line(bus)
    line.sender = None
    line.feed(0, chat())
    assert bus.published == []
    assert line.told[0] == ("refused", "m-1", 4004)


def test_an_exception_is_a_fault_and_ends_the_decoder() -> None:
    bus = Bus()
    bus.error = RuntimeError("a bug")
    line = Line(bus)
    line.feed(0, chat())
    assert line.told == ["fault"]
    assert line.decoder.closed


def test_what_was_handed_over_before_an_exception_is_counted() -> None:
    bus = Bus()
    line = Line(bus)

    def publish(subject: str, payload: bytes) -> bool:
        if len(bus.published) == 2:
            raise RuntimeError("a bug")
        bus.published.append((subject, payload))
        return True

    bus.publish = publish  # type: ignore[method-assign]
    line.feed(0, chat() * 3)
    assert line.told == ["fault", ("handed over", 2)]


def test_who_is_deaf_hears_nothing_but_has_been_seen() -> None:
    bus = Bus()
    line = Line(bus)
    line.deaf = True
    line.time = 105.0
    line.feed(0, chat())
    assert (bus.published, line.told, line.seen) == ([], [], 105.0)


def test_arguments() -> None:
    with pytest.raises(TypeError):
        Line(Bus()).feed(0, None)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        Relay(Bus(), "s", "n", print, print)(object(), parse_frame(MESSAGE, chat()[6:]))  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        Sender(1, 2, "d", None, TokenBucket(1.0, 1.0, 0.0))  # type: ignore[arg-type]


def test_the_bucket() -> None:
    bucket = TokenBucket(10.0, 3.0, 0.0)
    assert [bucket.spend(0.0) for _ in range(4)] == [True, True, True, False]
    assert bucket.wait(0.0) == pytest.approx(0.2)
    assert bucket.wait(0.1, 3.0) == pytest.approx(0.3)
    assert bucket.wait(9.0) == 0.0
    assert bucket.spend(100.0, 3.0)
    assert (bucket.rate, bucket.burst) == (10.0, 3.0)
