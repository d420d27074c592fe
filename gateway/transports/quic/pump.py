"""The datagram pump: batches in, batches out, one deadline for all timers. Knows no QUIC: an owner says what to do.

One task receives, one keeps the time. Whatever a batch touched has its turn once, when the batch ends; whatever is
touched outside of a batch has it in the next pass of the scheduler. Neither task runs longer than a slice at a time.
"""

from __future__ import annotations

import heapq
import logging
import math
import socket
from itertools import count
from time import perf_counter
from typing import Any, Final, Protocol

import trio

from gateway._datagrams import Receiver, Sender
from gateway.core.wake import Wake

log = logging.getLogger("gateway.quic")

SLICE: Final = 0.001
"""Seconds of work after which every other Trio task gets its turn."""
ROUNDS: Final = 4
"""Turns of one peer in one slice: what it is given to send while its congestion window takes more."""
AGAIN: Final = 0.002
"""Seconds until the kernel is asked again, when it took no more datagrams. Waiting for the descriptor would not do:
ENOBUFS is about the device, and a UDP socket counts as writable meanwhile."""
GRAIN: Final = 0.001
"""Seconds that a timer may be late; closer ones are not told apart."""


STALE: Final = 1_000
"""Timers that do not count any more, and may stay until their time comes."""
Timer = list[Any]
"""When, a number that no two share, and whose: None once it does not count any more."""


class Timed(Protocol):
    """What has a timer or a turn."""

    armed: Timer | None
    """When the pump looks at it next; the pump's own."""
    due: bool
    """Whether it has a turn coming; the pump's own."""


class Owner(Protocol):
    """Who knows what datagrams mean. Synchronous; never raises."""

    def take(self, data: bytes, address: bytes, now: float) -> None:
        """A datagram arrived."""

    def turn(self, timed: Timed, now: float) -> None:
        """The batch that touched it has ended: handle, send."""

    def fire(self, timed: Timed, now: float) -> None:
        """The time for which it was armed has come."""


class Pump:
    """Moves datagrams between a UDP socket and its owner. `sock` must not block, and stays the caller's."""

    def __init__(self, sock: socket.socket, owner: Owner, *, segmenting: bool = True) -> None:
        self._sock = sock
        self._owner = owner
        self.receiver = Receiver(sock.fileno())
        self.sender = Sender(sock.fileno(), segmenting=segmenting)
        self.slices = 0
        """How often others were let in while there was more to do."""
        self._due: list[Timed] = []
        self._within = False
        self._wake = Wake()
        self._heap: list[Timer] = []
        self._stale = 0
        self._number = count()
        self._next = math.inf
        self._scope: trio.CancelScope | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Pump until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_time)
            task_status.started()
            await self._receive()

    # -- for the owner ---------------------------------------------------------------------------------------

    def send(self, data: bytes, address: bytes) -> None:
        """Have a datagram leave at the end of the slice."""
        self.sender.add(data, address)

    def schedule(self, timed: Timed) -> None:
        """Give it a turn at the end of this batch, or soon."""
        if not timed.due:
            timed.due = True
            self._due.append(timed)
            if not self._within:
                self._wake.wake()

    def arm(self, timed: Timed, when: float) -> None:
        """Fire no later than `when`. A timer that would fire earlier stays: its owner then looks, and arms again."""
        if timed.armed is not None:
            if timed.armed[0] <= when + GRAIN:
                return
            self.disarm(timed)
        timed.armed = [when, next(self._number), timed]
        heapq.heappush(self._heap, timed.armed)
        if when < self._next:
            self._next = when
            if self._scope is not None:
                self._scope.deadline = when

    def disarm(self, timed: Timed) -> None:
        """Do not fire; nothing of it is kept. Idempotent."""
        if timed.armed is None:
            return
        timed.armed[2] = None
        timed.armed = None
        self._stale += 1
        if self._stale > STALE and self._stale * 2 > len(self._heap):
            self._heap = [timer for timer in self._heap if timer[2] is not None]
            heapq.heapify(self._heap)
            self._stale = 0

    def flush(self, now: float) -> None:
        """Turns for all that are due, then everything to the kernel."""
        self._within = True
        for _ in range(ROUNDS):
            if not self._due:
                break
            due, self._due = self._due, []
            for timed in due:
                timed.due = False
                self._owner.turn(timed, now)
        self._within = False
        if not self.sender.flush() or self._due:
            self._wake.wake()

    @property
    def timers(self) -> int:
        """Timers that may fire."""
        return len(self._heap) - self._stale

    # -- the two tasks ---------------------------------------------------------------------------------------

    async def _receive(self) -> None:
        receive, take = self.receiver.receive, self._owner.take
        while True:
            await trio.lowlevel.wait_readable(self._sock)
            batch = receive()
            while batch:
                now, ends = trio.current_time(), perf_counter() + SLICE
                self._within = True
                for data, address in batch:
                    take(data, address, now)
                    if perf_counter() > ends:
                        self.flush(now)
                        now, ends = await self._let_others()
                self.flush(now)
                # Asking the kernel again costs a tenth of waiting for the descriptor: under load most waits are saved.
                batch = receive()
                if batch:
                    await trio.lowlevel.checkpoint()

    async def _keep_time(self) -> None:
        while True:
            with trio.CancelScope(deadline=self._next) as self._scope:
                await self._wake.wait()
            self._scope = None
            await self._fire()
            await self._take_turns()
            while self._due:
                await trio.lowlevel.checkpoint()
                await self._take_turns()
            if not self.sender.flush():
                await trio.sleep(AGAIN)
                self._wake.wake()

    async def _fire(self) -> None:
        """Whatever time has come; in slices."""
        now, ends = trio.current_time(), perf_counter() + SLICE
        self._within = True
        while self._heap and self._heap[0][0] <= now:
            timed = heapq.heappop(self._heap)[2]
            if timed is None:
                self._stale -= 1
            else:
                timed.armed = None
                self._owner.fire(timed, now)
            if perf_counter() > ends:
                now, ends = await self._let_others()
        self._within = False
        self._next = self._heap[0][0] if self._heap else math.inf

    async def _take_turns(self) -> None:
        """Those that are due now, in slices; who becomes due meanwhile comes after the others."""
        due, self._due = self._due, []
        now, ends = trio.current_time(), perf_counter() + SLICE
        self._within = True
        for timed in due:
            timed.due = False
            self._owner.turn(timed, now)
            if perf_counter() > ends:
                self.sender.flush()
                now, ends = await self._let_others()
        self._within = False

    async def _let_others(self) -> tuple[float, float]:
        """Let every other task run; the time then, and when the next slice ends."""
        self._within = False
        self.slices += 1
        await trio.lowlevel.checkpoint()
        self._within = True
        return trio.current_time(), perf_counter() + SLICE
