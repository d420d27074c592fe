"""The cheap clock is Trio's clock."""

import time

import trio
from trio.testing import MockClock

from gateway._clock import MonotonicClock
from gateway.core.clock import run_clock


async def test_it_is_the_time_of_the_run() -> None:
    now = run_clock()
    assert isinstance(now, MonotonicClock)
    before = trio.current_time()
    between = now()
    assert before <= between <= trio.current_time()


async def test_virtual_time_is_followed(autojump_clock: MockClock) -> None:
    now = run_clock()
    assert now() == trio.current_time()
    await trio.sleep(3600)
    assert now() == trio.current_time() >= 3600


def test_it_is_the_systems_monotonic_clock() -> None:
    before = time.perf_counter()
    between = MonotonicClock(0.0)()
    assert before <= between <= time.perf_counter()
