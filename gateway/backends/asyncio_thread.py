"""The one thread for asyncio libraries (nats-py, redis-py, grpc.aio), and how Trio and it speak to each other.

No library, message or reconnection lives here. How to use it:

    async with AsyncioThread() as thread:
        connection = await thread.run(library.connect, url)   # runs there; its result or error arrives here
        thread.call_soon(function, argument)                  # there, soon, in order; never waits
        thread.call_trio(function, argument)                  # called there: here, soon, in order; never waits

- `run` takes an `async def` of asyncio. Cancelling it cancels the asyncio task and waits for its end, so nothing goes
  on behind its caller's back; a result that was faster than the cancellation is returned. Give every call a deadline:
  `with trio.fail_after(1): await thread.run(...)`. A backend that must always be connected runs its whole asyncio side
  as one such call, for as long as its own Trio `run` lives.
- Objects of an asyncio library are made, used and closed on the thread only, inside functions given to `run`.
- `call_soon` and `call_trio` are for news ("there is something in this deque"), one per batch rather than one per
  item: one wake-up carries everything that waits, but what waits is bounded by whoever queues it.
- The thread ends with its block: tasks that still run there are cancelled, their callers are told, it is joined.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from functools import partial
from types import TracebackType
from typing import Any, Final, Self, TypeVar, TypeVarTuple

import msgspec
import outcome
import trio
import uvloop

log = logging.getLogger("gateway.asyncio")

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

SLICE: Final = 256
"""Functions that one wake-up runs before others have their turn."""
GRACE: Final = 5.0
"""Seconds that cancelled asyncio tasks have to end with the thread."""


class AsyncioThreadClosed(Exception):
    """The thread is not running, or ended before the call did."""


class AsyncioThreadBusy(Exception):
    """As many calls are in flight as may be; the caller refuses what it was asked for."""


class AsyncioThreadStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """What crossed between the two threads."""

    calls: int
    """Calls of `run` that are in flight."""
    to_asyncio: int
    """Functions run there for us."""
    to_asyncio_wakeups: int
    to_trio: int
    to_trio_wakeups: int


class _Call:
    """One `run`, from its start to the rescheduling of its Trio task."""

    __slots__ = ("begun", "done", "function", "raise_cancel", "task", "waiter")

    def __init__(self, function: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        self.function = function
        self.waiter = trio.lowlevel.current_task()
        self.raise_cancel: Callable[[], Any] | None = None
        """Set on the Trio side once it was cancelled."""
        self.task: asyncio.Task[Any] | None = None
        """Belongs to the asyncio side, as does the next."""
        self.begun = False
        """Whether its task has run at all."""
        self.done = False


class AsyncioThread:
    """One thread with one uvloop event loop, for as long as its `async with` block lives.

    Everything but `call_trio` and `loop` belongs to the Trio thread that entered the block.
    """

    def __init__(self, *, max_calls: int = 4_096) -> None:
        """
        Args:
            max_calls: calls of `run` that may be in flight; one more raises AsyncioThreadBusy.
        """
        self._max_calls = max_calls
        self._calls: set[_Call] = set()
        self._to_asyncio: deque[Callable[[], object]] = deque()
        self._to_trio: deque[Callable[[], object]] = deque()
        self._asyncio_woken = self._trio_woken = False
        self._open = False
        self._carried = [0, 0, 0, 0]

    # -- life ----------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Start the thread; raises what kept its loop from starting. May be entered once."""
        self._token = trio.lowlevel.current_trio_token()
        self._started, self._ended = trio.Event(), trio.Event()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._main, name="gateway-asyncio", daemon=True)
        self._thread.start()
        with trio.CancelScope(shield=True):  # bounded: the loop starts, or fails and ends
            await self._started.wait()
        if self._failure is not None:
            self._thread.join()
            raise self._failure
        self._open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Cancel what still runs there, tell its callers, and join the thread, also while being cancelled."""
        self._open = False
        with contextlib.suppress(RuntimeError):  # its loop has ended by itself
            self.loop.call_soon_threadsafe(self._stop.set)
        with trio.CancelScope(shield=True, deadline=trio.current_time() + GRACE):
            await self._ended.wait()
        if self._ended.is_set():
            self._thread.join()  # its last deed was to say so
        else:
            log.critical("asyncio_thread_stuck", extra={"seconds": GRACE})
            self._fail_calls()

    def _main(self) -> None:
        """The thread, from its first to its last line."""
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(self._serve())
        except Exception as error:
            self._failure = error
            log.critical("asyncio_thread_failed", exc_info=error)
        finally:
            with contextlib.suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._end)

    async def _serve(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.loop.set_exception_handler(_log_unclaimed)
        self._stop = asyncio.Event()
        self._token.run_sync_soon(self._started.set)
        await self._stop.wait()
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        if rest:
            await asyncio.wait(rest, timeout=GRACE)
        await asyncio.sleep(0)  # whatever they still had to tell is on its way

    def _end(self) -> None:
        """On the Trio side, when the loop is closed: nothing will be answered any more."""
        self._open = False
        self._hand_to_trio(len(self._to_trio))
        self._fail_calls()
        self._started.set()
        self._ended.set()

    def _fail_calls(self) -> None:
        for call in list(self._calls):
            self._finish(call, outcome.Error(AsyncioThreadClosed("the asyncio thread ended before the call did")))

    # -- from Trio -----------------------------------------------------------------------------------------

    async def run(self, function: Callable[[*Ts], Coroutine[Any, Any, T]], *args: *Ts) -> T:
        """Await `function(*args)` on the thread; its result, or what it raised.

        Raises:
            AsyncioThreadClosed: the thread is not running, or ended meanwhile.
            AsyncioThreadBusy: `max_calls` are in flight.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        self._check_open()
        if len(self._calls) >= self._max_calls:
            raise AsyncioThreadBusy(f"{self._max_calls} calls are in flight")
        call = _Call(partial(function, *args))
        self._calls.add(call)
        self.call_soon(self._begin, call)

        def abort(raise_cancel: Callable[[], Any]) -> trio.lowlevel.Abort:
            call.raise_cancel = raise_cancel
            if self._open:
                self.call_soon(self._cancel, call)
            return trio.lowlevel.Abort.FAILED  # its end reschedules us

        result: T = await trio.lowlevel.wait_task_rescheduled(abort)
        return result

    def call_soon(self, function: Callable[[*Ts], object], *args: *Ts) -> None:
        """Have `function` run on the thread, after what was given before; what it raises is logged.

        Raises:
            AsyncioThreadClosed: the thread is not running.
        """
        self._check_open()
        self._to_asyncio.append(partial(function, *args))
        if not self._asyncio_woken:
            self._asyncio_woken = True
            try:
                self.loop.call_soon_threadsafe(self._hand_to_asyncio)
            except RuntimeError:
                raise AsyncioThreadClosed("the asyncio thread has ended") from None

    def statistics(self) -> AsyncioThreadStatistics:
        """Counters since the start, and what is in flight now."""
        to_asyncio, asyncio_wakeups, to_trio, trio_wakeups = self._carried
        return AsyncioThreadStatistics(
            calls=len(self._calls),
            to_asyncio=to_asyncio,
            to_asyncio_wakeups=asyncio_wakeups,
            to_trio=to_trio,
            to_trio_wakeups=trio_wakeups,
        )

    def _check_open(self) -> None:
        if not self._open:
            raise AsyncioThreadClosed("the asyncio thread is not running")

    def _finish(self, call: _Call, result: outcome.Outcome[Any]) -> None:
        if call.done:
            return
        call.done = True
        self._calls.discard(call)
        trio.lowlevel.reschedule(call.waiter, result)

    # -- on the asyncio thread -----------------------------------------------------------------------------

    def call_trio(self, function: Callable[[*Ts], object], *args: *Ts) -> None:
        """Have `function` run on the Trio thread, after what was given before; what it raises is logged."""
        self._to_trio.append(partial(function, *args))
        if not self._trio_woken:
            self._trio_woken = True
            with contextlib.suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._hand_to_trio)

    def _begin(self, call: _Call) -> None:
        if call.raise_cancel is not None:  # cancelled before it began
            self.call_trio(self._conclude, call, None)
            return
        call.task = self.loop.create_task(self._perform(call))

    async def _perform(self, call: _Call) -> None:
        """The whole task of a call; it says itself what came of it, since a callback for that is a turn of the loop."""
        call.begun = True
        result: outcome.Outcome[Any] | None = None
        try:
            result = outcome.Value(await call.function())
        except Exception as error:
            result = outcome.Error(error)
        finally:  # without a result: it was cancelled
            self.call_trio(self._conclude, call, result)

    def _cancel(self, call: _Call) -> None:
        if call.task is not None:
            call.task.cancel()
            if not call.begun:  # it never will
                self.call_trio(self._conclude, call, None)

    def _conclude(self, call: _Call, result: outcome.Outcome[Any] | None) -> None:
        """On the Trio side; no result means that it was cancelled."""
        if result is None and call.raise_cancel is not None:
            result = outcome.capture(call.raise_cancel)
        self._finish(call, result or outcome.Error(AsyncioThreadClosed("cancelled on the asyncio thread")))

    # -- wake-ups ------------------------------------------------------------------------------------------
    # The flag falls before the queue is read: whoever appends later finds it down and wakes again.

    def _hand_to_asyncio(self) -> None:
        self._asyncio_woken = False
        self._carried[1] += 1
        self._carried[0] += _run(self._to_asyncio, SLICE)
        if self._to_asyncio and not self._asyncio_woken:
            self._asyncio_woken = True
            self.loop.call_soon(self._hand_to_asyncio)

    def _hand_to_trio(self, limit: int = SLICE) -> None:
        self._trio_woken = False
        self._carried[3] += 1
        self._carried[2] += _run(self._to_trio, limit)
        if self._to_trio and not self._trio_woken:
            self._trio_woken = True
            self._token.run_sync_soon(self._hand_to_trio)


def _run(waiting: deque[Callable[[], object]], limit: int) -> int:
    count = min(len(waiting), limit)
    for _ in range(count):
        function = waiting.popleft()
        try:
            function()
        except Exception:
            log.exception("crossing_failed")
    return count


def _log_unclaimed(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What asyncio could tell nobody else: an error in a callback, or in a task that nobody awaited."""
    log.error("asyncio_error", extra={"what": context.get("message", "")}, exc_info=context.get("exception"))
