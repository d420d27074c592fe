"""What waits to be written or answered: order, bounds, and what a new connection finds."""

from __future__ import annotations

from gateway._framing import HEADER, AckFrame, ChatFrame, parse_frame
from gateway.client.messages import Receipt
from gateway.client.outgoing import RECENT, Acknowledgements, Outgoing, Pending
from gateway.protocol.types import AckStatus, MsgType


def message(msg_id: str, content: str = "x") -> Pending:
    return Pending(msg_id, 5, 0, content, 0, 1, AckStatus.STORED)


def written(outgoing: Outgoing, seq: int) -> str:
    frame = outgoing.next_frame(seq, 1)
    assert frame is not None
    parsed = parse_frame(MsgType.MESSAGE, frame[HEADER:])
    assert isinstance(parsed, ChatFrame)
    assert parsed.valid
    assert parsed.seq == seq
    return parsed.msg_id


def acks(line: Acknowledgements, first: int) -> list[int]:
    found: list[int] = []
    while (frame := line.next_frame(first + len(found), 1)) is not None:
        parsed = parse_frame(MsgType.MESSAGE_ACK, frame[HEADER:])
        assert isinstance(parsed, AckFrame)
        found.append(parsed.server_seq)
    return found


def test_a_new_connection_writes_what_is_unanswered_first() -> None:
    outgoing = Outgoing(10, 1000)
    for name in "abc":
        outgoing.add(message(name))
    assert [written(outgoing, seq) for seq in (1, 2)] == ["a", "b"]
    assert outgoing.written_under(2) == "b"
    outgoing.acknowledged(Receipt(msg_id="a", status=AckStatus.STORED), 0.0)
    outgoing.logged_in()
    assert outgoing.written_under(2) is None
    outgoing.add(message("d"))
    assert [written(outgoing, seq) for seq in (1, 2, 3)] == ["b", "c", "d"]
    assert outgoing.next_frame(4, 1) is None
    assert (outgoing.sent, outgoing.resent) == (5, 1)


def test_room_is_counted_in_messages_and_bytes_and_given_back() -> None:
    outgoing = Outgoing(2, 100)
    assert outgoing.has_room(10_000)
    first, second = message("a", "x" * 10), message("b", "x" * 10)
    outgoing.add(first)
    assert outgoing.has_room(60)
    assert not outgoing.has_room(61)
    outgoing.add(second)
    assert not outgoing.has_room(1)
    outgoing.withdraw(first)
    outgoing.withdraw(first)
    assert outgoing.has_room(60)
    assert written(outgoing, 1) == "b"


def test_own_ids_are_remembered_in_bounded_memory() -> None:
    outgoing = Outgoing(10, 1000)
    for number in range(RECENT + 10):
        pending = message(f"m{number}")
        outgoing.add(pending)
        outgoing.withdraw(pending)
    assert not outgoing.is_own("m0")
    assert outgoing.is_own("m10")
    assert outgoing.is_own(f"m{RECENT + 9}")


def test_only_what_was_accepted_is_overdue() -> None:
    outgoing = Outgoing(10, 1000)
    for name in "ab":
        outgoing.add(message(name))
    assert [written(outgoing, seq) for seq in (1, 2)] == ["a", "b"]
    outgoing.acknowledged(Receipt(msg_id="b", status=AckStatus.ACCEPTED), 3.0)
    assert outgoing.overdue(5.0, 10.0, 15.0) == 13.0
    assert outgoing.next_frame(3, 1) is None
    outgoing.overdue(13.0, 10.0, 15.0)
    assert written(outgoing, 3) == "b"
    assert outgoing.next_frame(4, 1) is None
    outgoing.acknowledged(Receipt(msg_id="b", status=AckStatus.ACCEPTED), 14.0)
    assert outgoing.overdue(24.0, 10.0, 15.0) == 29.0
    assert outgoing.next_frame(4, 1) is None


def test_acknowledgements_stay_until_they_are_proven() -> None:
    line = Acknowledgements()
    for seq in (1, 2, 3):
        line.add("m", AckStatus.DELIVERED, seq)
    assert acks(line, 10) == [1, 2, 3]
    line.proven(12)
    line.add("m", AckStatus.READ, 4)
    line.logged_in()
    assert acks(line, 1) == [3, 4]
    line.proven(9)
    line.logged_in()
    assert acks(line, 1) == []


def test_acknowledgements_are_bounded() -> None:
    line = Acknowledgements(bound=3)
    for seq in range(1, 6):
        line.add("m", AckStatus.DELIVERED, seq)
    assert line.dropped == 2
    assert acks(line, 1) == [3, 4, 5]
    for seq in (6, 7):
        line.add("m", AckStatus.DELIVERED, seq)
    line.logged_in()
    assert acks(line, 1) == [5, 6, 7]
    assert line.dropped == 4
