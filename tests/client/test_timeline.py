"""Order, once each, bounded: whatever arrives in whatever order."""

from __future__ import annotations

import random
from collections.abc import Iterable

from gateway.client import Delivery
from gateway.client.timeline import Timeline


def d(seq: int) -> Delivery:
    return Delivery(msg_id=f"m{seq}", from_user=1, server_seq=seq)


def timeline(cursor: int = 0, capacity: int = 10, *, automatic: bool = True) -> Timeline:
    line = Timeline(cursor, capacity)
    line.logged_in(automatic)
    if automatic:
        line.answered(line.asked(), [], cursor, has_more=False)
    return line


def drain(line: Timeline) -> list[int]:
    taken = []
    while (delivery := line.take()) is not None:
        taken.append(delivery.server_seq)
    return taken


def arrive(line: Timeline, seqs: Iterable[int]) -> None:
    for seq in seqs:
        line.arrived(d(seq))


def test_in_order_is_ready_at_once() -> None:
    line = timeline(5)
    arrive(line, [6, 7])
    assert not line.behind
    assert drain(line) == [6, 7]
    assert line.cursor == line.position == 7


def test_cursor_is_what_was_taken() -> None:
    line = timeline()
    arrive(line, [1, 2])
    line.take()
    assert (line.cursor, line.position) == (1, 2)


def test_duplicates_are_dropped() -> None:
    line = timeline(5)
    arrive(line, [5, 6, 6, 3])
    assert drain(line) == [6]
    assert line.duplicates == 3


def test_a_gap_wants_a_sync_and_keeps_the_order() -> None:
    line = timeline()
    arrive(line, [1, 4, 3])
    assert line.behind
    assert line.gaps == 1
    assert drain(line) == [1]
    line.answered(line.asked(), [d(2), d(3), d(4)], 4, has_more=False)
    assert not line.behind
    assert drain(line) == [2, 3, 4]


def test_a_gap_that_closes_by_itself_is_in_order() -> None:
    line = timeline()
    arrive(line, [2, 3, 1, 4])
    assert drain(line) == [1, 2, 3, 4]


def test_held_before_the_sync_and_not_in_its_answer_is_handed_out() -> None:
    """The server's store has forgotten what is between, or numbers with holes: no endless asking."""
    line = timeline()
    arrive(line, [10, 20])
    line.answered(line.asked(), [], 0, has_more=False)
    assert drain(line) == [10, 20]
    assert not line.behind


def test_held_after_the_sync_was_sent_is_asked_for_again() -> None:
    line = timeline()
    arrive(line, [3])
    stamp = line.asked()
    arrive(line, [6])
    line.answered(stamp, [d(1), d(2), d(3)], 3, has_more=False)
    assert drain(line) == [1, 2, 3]
    assert line.behind
    line.answered(line.asked(), [d(4), d(5), d(6)], 6, has_more=False)
    assert drain(line) == [4, 5, 6]
    assert not line.behind


def test_pages_go_on_while_there_is_more() -> None:
    line = timeline()
    line.logged_in(True)
    assert line.answered(line.asked(), [d(1), d(2)], 2, has_more=True) == 2
    assert line.behind
    assert line.answered(line.asked(), [d(3)], 3, has_more=False) == 1
    assert not line.behind


def test_more_without_progress_ends() -> None:
    line = timeline(7)
    line.logged_in(True)
    line.answered(line.asked(), [], 7, has_more=True)
    assert not line.behind


def test_next_cursor_may_pass_over_holes() -> None:
    line = timeline()
    line.logged_in(True)
    line.answered(line.asked(), [d(2)], 9, has_more=False)
    arrive(line, [10])
    assert drain(line) == [2, 10]
    assert not line.behind


def test_no_room_is_asked_for_later() -> None:
    line = timeline(capacity=2)
    arrive(line, [1, 2, 3, 4, 5, 6])
    assert len(line) == 2
    assert line.behind
    assert drain(line) == [1, 2, 3, 4]
    assert line.behind
    line.answered(line.asked(), [d(5)], 5, has_more=True)
    assert drain(line) == [5]
    line.answered(line.asked(), [d(6)], 6, has_more=False)
    assert drain(line) == [6]
    assert not line.behind


def test_memory_is_bounded() -> None:
    line = timeline(capacity=8)
    arrive(line, range(2, 10_000))
    assert len(line) == 0
    assert len(line._early) == 8
    line.answered(line.asked(), [d(1), d(2)], 2, has_more=False)
    assert len(line) <= 3 * line.capacity


def test_without_numbers_they_pass_while_there_is_room() -> None:
    line = timeline(capacity=2)
    arrive(line, [0, 0, 0])
    assert drain(line) == [0, 0]
    assert line.dropped == 1
    assert line.cursor == 0


def test_without_sync_holes_are_passed_over() -> None:
    line = timeline(automatic=False)
    arrive(line, [3, 5, 4])
    assert drain(line) == [3, 5]
    assert not line.behind


def test_abandon_hands_out_what_is_held() -> None:
    line = timeline()
    arrive(line, [7, 5])
    line.abandon()
    assert drain(line) == [5, 7]
    arrive(line, [9])
    assert drain(line) == [9]


def test_rewind_begins_again() -> None:
    line = timeline(50)
    line.rewind()
    assert line.behind
    line.answered(line.asked(), [d(1), d(2)], 2, has_more=False)
    assert drain(line) == [1, 2]
    assert line.cursor == 2


def test_own_messages_take_places_but_are_not_handed_out() -> None:
    line = timeline()
    line.sent(1)
    assert line.cursor == line.position == 1
    arrive(line, [2])
    line.sent(3)
    assert line.cursor == 1
    assert drain(line) == [2]
    assert line.cursor == 3
    arrive(line, [5])
    line.sent(4)
    assert drain(line) == [5]
    assert not line.behind


def test_own_messages_in_a_sync_are_not_handed_out() -> None:
    line = timeline()
    line.sent(3)
    assert line.behind
    assert line.answered(line.asked(), [d(1), 2, d(3), d(4), 5], 5, has_more=False) == 2
    assert drain(line) == [1, 4]
    assert line.cursor == 5


def test_own_messages_are_counted_in_bounded_memory() -> None:
    line = timeline()
    arrive(line, [1])
    for seq in range(2, 10_000):
        line.sent(seq)
    assert len(line._ready) == 2
    assert drain(line) == [1]
    assert line.cursor == 9_999


def test_any_order_loss_and_duplication_ends_in_order_once_each() -> None:
    for seed in range(200):
        rng = random.Random(seed)
        line = timeline(capacity=rng.choice([2, 5, 50]))
        stored = 0
        flight: list[int] = []
        own: set[int] = set()

        def push(line: Timeline, seq: int, own: set[int] = own) -> None:
            if seq in own:
                line.sent(seq)
            else:
                line.arrived(d(seq))

        taken: list[int] = []
        for _ in range(200):
            action = rng.random()
            if action < 0.5:
                stored += 1
                if rng.random() < 0.2:
                    own.add(stored)
                flight.append(stored)
                if rng.random() < 0.2:
                    flight.append(rng.randint(1, stored))
            if flight and rng.random() < 0.6:
                seq = flight.pop(rng.randrange(min(3, len(flight))))
                if rng.random() < 0.8:
                    push(line, seq)
            if rng.random() < 0.5:
                delivery = line.take()
                taken += [delivery.server_seq] if delivery else []
            if line.behind and line.room and rng.random() < 0.3:
                stamp, at = line.asked(), line.position
                if rng.random() < 0.5 and flight:
                    push(line, flight.pop(0))
                last = min(stored, at + 3)
                line.answered(
                    stamp,
                    [seq if seq in own else d(seq) for seq in range(at + 1, last + 1)],
                    last,
                    has_more=last < stored,
                )
        line.logged_in(True)
        while line.behind:
            taken += drain(line)
            at, last = line.position, min(stored, line.position + 3)
            line.answered(
                line.asked(),
                [seq if seq in own else d(seq) for seq in range(at + 1, last + 1)],
                last,
                has_more=last < stored,
            )
        taken += drain(line)
        assert taken == [seq for seq in range(1, stored + 1) if seq not in own], seed
        assert line.cursor == stored, seed
