"""The asyncio thread: results, errors, cancellation, batching, and nothing left behind."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable

import pytest
import trio

from gateway.backends.asyncio_thread import AsyncioThread, AsyncioThreadBusy, AsyncioThreadClosed, _Call

PATIENCE = 20.0


@pytest.fixture(autouse=True)
def nothing_left() -> object:
    """The same threads as before."""
    threads = {each for each in threading.enumerate() if each.name == "gateway-asyncio"}
    yield
    assert {each for each in threading.enumerate() if each.name == "gateway-asyncio"} == threads


@pytest.fixture
async def thread() -> object:
    async with AsyncioThread() as thread:
        yield thread


async def echo(value: int) -> int:
    await asyncio.sleep(0)
    return value


async def forever(begun: Callable[[], None], ended: Callable[[], None]) -> None:
    begun()
    try:
        await asyncio.Event().wait()
    finally:
        ended()


async def test_a_result_arrives_from_another_thread(thread: AsyncioThread) -> None:
    async def where() -> int:
        return threading.get_ident()

    with trio.fail_after(PATIENCE):
        assert await thread.run(where) != threading.get_ident()
        assert await thread.run(echo, 17) == 17


async def test_an_error_arrives_with_its_traceback(thread: AsyncioThread) -> None:
    async def broken() -> None:
        await asyncio.sleep(0)
        raise KeyError("out of there")

    with trio.fail_after(PATIENCE):
        with pytest.raises(KeyError, match="out of there") as caught:
            await thread.run(broken)
        assert any(entry.name == "broken" for entry in caught.traceback)
        assert await thread.run(echo, 1) == 1


async def test_what_is_no_coroutine_function_is_the_callers_error(thread: AsyncioThread) -> None:
    with trio.fail_after(PATIENCE), pytest.raises(TypeError):
        await thread.run(lambda: 5)  # type: ignore[arg-type, return-value]


async def test_cancelling_ends_the_asyncio_task_first(thread: AsyncioThread) -> None:
    begun, ended = trio.Event(), threading.Event()
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(thread.run, forever, lambda: thread.call_trio(begun.set), ended.set)
            await begun.wait()
            nursery.cancel_scope.cancel()
        assert ended.is_set()
        assert thread.statistics().calls == 0


async def test_a_call_cancelled_before_it_begins_does_nothing(thread: AsyncioThread) -> None:
    ran = threading.Event()

    async def never() -> None:
        ran.set()

    with trio.fail_after(PATIENCE):
        thread.call_soon(time.sleep, 0.05)  # the loop is busy while both are queued
        async with trio.open_nursery() as nursery:
            nursery.start_soon(thread.run, never)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert await thread.run(echo, 3) == 3
    assert not ran.is_set()


async def test_a_task_cancelled_before_its_first_step_tells_its_caller(
    thread: AsyncioThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Made and cancelled in one turn of the loop: not a line of it runs that could say so."""
    ran: list[int] = []

    async def work() -> None:
        ran.append(1)

    begin = thread._begin

    def begin_and_cancel(call: _Call) -> None:
        begin(call)
        thread._cancel(call)

    monkeypatch.setattr(thread, "_begin", begin_and_cancel)
    with trio.fail_after(PATIENCE), pytest.raises(AsyncioThreadClosed, match="cancelled"):
        await thread.run(work)
    assert ran == []
    assert thread.statistics().calls == 0


async def test_a_deadline_is_kept_by_the_trio_side(thread: AsyncioThread) -> None:
    with trio.fail_after(PATIENCE):
        with trio.move_on_after(0.02) as scope:
            await thread.run(asyncio.sleep, 3600)
        assert scope.cancelled_caught


async def test_a_result_faster_than_the_cancellation_is_not_lost(thread: AsyncioThread) -> None:
    async def stubborn() -> str:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            return "done all the same"
        return ""

    with trio.fail_after(PATIENCE), trio.move_on_after(0.02):
        assert await thread.run(stubborn) == "done all the same"


async def test_many_at_once_and_few_wakeups(thread: AsyncioThread) -> None:
    results: list[int] = []

    async def one(value: int) -> None:
        results.append(await thread.run(echo, value))

    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            for i in range(2_000):
                nursery.start_soon(one, i)
    assert sorted(results) == list(range(2_000))
    counts = thread.statistics()
    assert counts.to_asyncio >= 2_000
    assert counts.to_asyncio_wakeups < 200


async def test_crossings_keep_their_order_both_ways(thread: AsyncioThread) -> None:
    there: list[int] = []
    here: list[int] = []
    done = trio.Event()

    def both(value: int) -> None:
        there.append(value)
        thread.call_trio(here.append, value)

    with trio.fail_after(PATIENCE):
        for i in range(5_000):
            thread.call_soon(both, i)
        thread.call_soon(thread.call_trio, done.set)
        await done.wait()
    assert there == here == list(range(5_000))


async def test_more_than_may_be_in_flight_is_refused() -> None:
    with trio.fail_after(PATIENCE):
        async with AsyncioThread(max_calls=2) as thread, trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(thread.run, asyncio.sleep, 3600)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(AsyncioThreadBusy):
                await thread.run(echo, 1)
            nursery.cancel_scope.cancel()


async def test_what_a_crossing_raises_is_logged_and_harms_nobody(
    thread: AsyncioThread, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> None:
        raise KeyError("a bug")

    with trio.fail_after(PATIENCE):
        thread.call_soon(broken)
        thread.call_soon(thread.call_trio, broken)
        assert await thread.run(echo, 1) == 1
    assert [record.getMessage() for record in caplog.records] == ["crossing_failed"] * 2


async def test_an_error_that_nobody_awaits_is_logged(thread: AsyncioThread, caplog: pytest.LogCaptureFixture) -> None:
    async def orphaned() -> None:
        def broken() -> None:
            raise KeyError("a bug in a callback")

        asyncio.get_running_loop().call_soon(broken)
        await asyncio.sleep(0.01)

    with trio.fail_after(PATIENCE):
        await thread.run(orphaned)
    assert [record.getMessage() for record in caplog.records] == ["asyncio_error"]


async def test_the_end_of_the_block_ends_tasks_and_tells_callers() -> None:
    ended = threading.Event()
    begun = trio.Event()
    told: list[Exception] = []

    async def caller(thread: AsyncioThread) -> None:
        try:
            await thread.run(forever, lambda: thread.call_trio(begun.set), ended.set)
        except AsyncioThreadClosed as error:
            told.append(error)

    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery, AsyncioThread() as thread:
            nursery.start_soon(caller, thread)
            await begun.wait()
    assert ended.is_set()
    assert len(told) == 1
    with pytest.raises(AsyncioThreadClosed):
        thread.call_soon(print)
    with pytest.raises(AsyncioThreadClosed):
        await thread.run(echo, 1)


async def test_cancelled_from_outside_it_still_ends_in_order() -> None:
    ended = threading.Event()
    begun = trio.Event()

    async def life() -> None:
        async with AsyncioThread() as thread:
            await thread.run(forever, lambda: thread.call_trio(begun.set), ended.set)

    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(life)
            await begun.wait()
            nursery.cancel_scope.cancel()
    assert ended.is_set()


async def test_trio_is_not_held_up_by_a_busy_loop(thread: AsyncioThread) -> None:
    release = threading.Event()

    async def blocked() -> None:
        release.wait(PATIENCE)

    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(thread.run, blocked)
            for _ in range(100):
                await trio.lowlevel.checkpoint()
            release.set()


async def test_descriptors_return() -> None:
    def held() -> int:
        return len(os.listdir("/proc/self/fd"))

    with trio.fail_after(PATIENCE):
        async with AsyncioThread():
            pass
        before = held()
        for _ in range(5):
            async with AsyncioThread() as thread:
                await thread.run(echo, 1)
        assert held() == before
