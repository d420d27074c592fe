"""Several ways tried one after the other: who wins, who is cancelled, who is told goodbye."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import MockClock

from gateway.client.racing import STAGGER, first
from gateway.client.transport import TransportFailed


class Runner:
    """Notes what began, what was cut off and what was discarded."""

    def __init__(self) -> None:
        self.began: list[tuple[str, float]] = []
        self.cut: list[str] = []
        self.discarded: list[str] = []

    def way(self, name: str, seconds: float, failure: TransportFailed | None = None) -> Callable[[], Awaitable[str]]:
        async def attempt() -> str:
            self.began.append((name, trio.current_time()))
            try:
                await trio.sleep(seconds)
            except trio.Cancelled:
                self.cut.append(name)
                raise
            if failure is not None:
                raise failure
            return name

        return attempt

    def stubborn(self, name: str) -> Callable[[], Awaitable[str]]:
        """Succeeds though it was given up, and a little later."""

        async def attempt() -> str:
            with trio.CancelScope(shield=True):
                await trio.sleep(1)
            return name

        return attempt

    async def discard(self, name: str) -> None:
        await trio.sleep(0.1)
        self.discarded.append(name)


async def test_the_first_has_a_start_and_the_rest_is_not_even_begun(autojump_clock: MockClock) -> None:
    run = Runner()
    assert await first([run.way("a", 0.1), run.way("b", 0)], run.discard) == (0, "a")
    assert [name for name, _ in run.began] == ["a"]


async def test_a_slow_first_is_overtaken_and_cut_off(autojump_clock: MockClock) -> None:
    run = Runner()
    start = trio.current_time()
    assert await first([run.way("a", math.inf), run.way("b", 0.1), run.way("c", 9)], run.discard) == (1, "b")
    assert [(name, at - start) for name, at in run.began] == [("a", 0), ("b", STAGGER)]
    assert run.cut == ["a"]


async def test_after_a_failure_the_next_begins_at_once(autojump_clock: MockClock) -> None:
    run = Runner()
    start = trio.current_time()
    assert await first([run.way("a", 0.01, TransportFailed("no")), run.way("b", 5)], run.discard) == (1, "b")
    assert trio.current_time() - start == pytest.approx(5.01)


async def test_all_fail(autojump_clock: MockClock) -> None:
    run = Runner()
    ways = [
        run.way("a", 0, TransportFailed("no UDP", final=True)),
        run.way("b", 1, TransportFailed("HTTP 403", code=4100, final=True)),
        run.way("c", 0, TransportFailed("no UDP")),
    ]
    with pytest.raises(TransportFailed) as caught:
        await first(ways, run.discard)
    assert str(caught.value) == "no UDP; HTTP 403"
    assert caught.value.code == 4100
    assert not caught.value.final
    with pytest.raises(TransportFailed) as caught:
        await first(ways[:2], run.discard)
    assert caught.value.final


async def test_one_that_comes_too_late_is_told_goodbye(autojump_clock: MockClock) -> None:
    run = Runner()
    assert await first([run.stubborn("a"), run.way("b", 0.1)], run.discard) == (1, "b")
    assert run.discarded == ["a"]


async def test_cancelled_with_a_result_in_hand(autojump_clock: MockClock) -> None:
    run = Runner()
    with trio.move_on_after(0.5) as scope:
        await first([run.stubborn("a"), run.way("b", 9)], run.discard)
    assert scope.cancelled_caught
    assert run.discarded == ["a"]


async def test_a_goodbye_that_hangs_holds_nobody(autojump_clock: MockClock) -> None:
    run = Runner()

    async def hang(_: str) -> None:
        await trio.sleep_forever()

    with trio.fail_after(10):
        assert await first([run.stubborn("a"), run.way("b", 0.1)], hang) == (1, "b")
