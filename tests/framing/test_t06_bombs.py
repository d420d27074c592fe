"""Threat 6: FlatBuffers built to keep a verifier busy.

The work budget counts visited bytes, so these need no clock; `benchmarks/framing.py` shows the time of the worst.
"""

from __future__ import annotations

import pytest

from gateway._framing import FrameError, parse_frame
from tests.framing import bombs, reference
from tests.framing.outcome import outcome


@pytest.mark.parametrize("name", bombs.REFUSED)
def test_t06_a_bomb_is_refused_by_the_budget(name: str) -> None:
    msg_type, body = bombs.REFUSED[name]()
    assert len(body) <= 65536
    assert reference.verdict(msg_type, body) == (4000, reference.BUDGET)
    with pytest.raises(FrameError, match=reference.BUDGET) as caught:
        parse_frame(msg_type, body)
    assert caught.value.code == 4000


@pytest.mark.parametrize("name", bombs.ACCEPTED)
def test_t06_dense_but_honest_frames_pass(name: str) -> None:
    msg_type, body = bombs.ACCEPTED[name]()
    assert 60000 < len(body) <= 65536
    assert reference.verdict(msg_type, body) == (0, "")
    assert parse_frame(msg_type, body).type == msg_type


def test_t06_a_budget_of_exactly_four_is_enough_and_one_byte_less_is_not() -> None:
    """The same vector of references to one string, one entry apart, on both sides of the limit."""
    verdicts = []
    for count in range(1000):
        msg_type, body = bombs.shared_text(count, b"x" * 40)
        verdicts.append(reference.verdict(msg_type, body)[0])
        assert outcome(msg_type, body) == reference.verdict(msg_type, body)
    assert sorted(verdicts) == verdicts
    assert set(verdicts) == {0, 4000}


def test_t06_the_budget_follows_the_size_of_the_whole_body() -> None:
    """The same references in a body with enough bytes behind them pass: work is bounded per byte received."""
    msg_type, body = bombs.shared_table(8000, b"")
    with pytest.raises(FrameError, match=reference.BUDGET):
        parse_frame(msg_type, body)
    assert parse_frame(msg_type, body + bytes(len(body))).type == msg_type


@pytest.mark.parametrize(
    "bomb",
    [
        bombs.shared_table(60, b""),
        bombs.shared_table(60, b"x", 3),
        bombs.shared_scalar(60),
        bombs.shared_text(40, b"x" * 20),
    ],
)
def test_t06_every_kind_of_visit_is_charged_to_the_byte(bomb: bombs.Body) -> None:
    """Bytes that nothing points at raise the budget by four each: both verifiers change their mind at the same one."""
    msg_type, body = bomb
    verdicts = [reference.verdict(msg_type, body + bytes(padding)) for padding in range(400)]
    assert [outcome(msg_type, body + bytes(padding)) for padding in range(400)] == verdicts
    assert (verdicts[0][0], verdicts[-1][0]) == (4000, 0)
