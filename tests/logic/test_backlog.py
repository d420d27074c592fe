"""Bounds, batches, and several who wait for idleness."""

from __future__ import annotations

import trio
from trio.testing import wait_all_tasks_blocked

from gateway.logic.backlog import Backlog


async def test_what_was_taken_counts_until_it_is_finished() -> None:
    backlog: Backlog[int] = Backlog(3, 10)
    assert [backlog.offer(i, 4) for i in range(3)] == [True, True, False]
    assert await backlog.take(1) == [0]
    assert not backlog.offer(9, 4)
    backlog.finish(1, 4)
    assert [backlog.offer(i) for i in range(3)] == [True, True, False]
    assert await backlog.take(10) == [1, 0, 1]
    assert (backlog.held, backlog.held_bytes) == (3, 4)
    backlog.finish(3, 4)
    assert (backlog.held, backlog.held_bytes) == (0, 0)


async def test_take_waits_for_something(nursery: trio.Nursery) -> None:
    backlog: Backlog[int] = Backlog(10)
    taken: list[list[int]] = []

    async def taker() -> None:
        taken.append(await backlog.take(10))

    nursery.start_soon(taker)
    await wait_all_tasks_blocked()
    assert taken == []
    backlog.offer(1)
    backlog.offer(2)
    await wait_all_tasks_blocked()
    assert taken == [[1, 2]]


async def test_all_who_wait_for_idleness_go_on() -> None:
    backlog: Backlog[int] = Backlog(10)
    with trio.fail_after(5):
        await backlog.wait_idle()
        for _ in range(2):
            backlog.offer(1)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(backlog.wait_idle)
                await wait_all_tasks_blocked()
                nursery.start_soon(backlog.wait_idle)
                await wait_all_tasks_blocked()
                await backlog.take(1)
                backlog.finish(1)
