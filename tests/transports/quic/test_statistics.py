"""What is counted by code is bounded in codes."""

from __future__ import annotations

from gateway.transports.quic.statistics import CODES, OTHER, Counts


def test_a_client_may_close_with_any_code_and_only_so_many_are_told_apart() -> None:
    closed = Counts().closed
    for code in range(CODES + 50):
        closed[code] += 1
    closed[0] += 1
    assert len(closed) == CODES + 1
    assert (closed[0], closed[OTHER], closed.total()) == (2, 50, CODES + 51)
