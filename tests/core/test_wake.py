"""The wake-up of one task."""

import pytest
import trio

from gateway.core.wake import Wake


async def test_a_wake_before_the_wait_is_kept_once(autojump_clock: trio.abc.Clock) -> None:
    wake = Wake()
    wake.wake()
    wake.wake()
    await wake.wait()
    with trio.move_on_after(1) as scope:
        await wake.wait()
    assert scope.cancelled_caught


async def test_a_waiting_task_goes_on(nursery: trio.Nursery, autojump_clock: trio.abc.Clock) -> None:
    wake = Wake()
    woken: list[float] = []

    async def wait() -> None:
        for _ in range(3):
            await wake.wait()
            woken.append(trio.current_time())

    nursery.start_soon(wait)
    for _ in range(3):
        await trio.sleep(1)
        wake.wake()
    await trio.testing.wait_all_tasks_blocked()
    assert len(woken) == 3


async def test_a_cancelled_wait_can_be_followed_by_another(autojump_clock: trio.abc.Clock) -> None:
    wake = Wake()
    with trio.move_on_after(1):
        await wake.wait()
    wake.wake()
    with trio.fail_after(1):
        await wake.wait()


async def test_two_waiters_are_a_mistake(nursery: trio.Nursery) -> None:
    wake = Wake()
    nursery.start_soon(wake.wait)
    await trio.testing.wait_all_tasks_blocked()
    with pytest.raises(trio.BusyResourceError):
        await wake.wait()
    wake.wake()
