"""The pump by itself: batches and turns, timers, fairness, a kernel that takes nothing."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from time import perf_counter

import trio
from trio.testing import MockClock

from gateway.transports.quic.pump import ROUNDS, STALE, Pump, Timed, Timer
from tests.transports.quic.client import PATIENCE


class Thing:
    """Something with turns and timers."""

    def __init__(self) -> None:
        self.armed: Timer | None = None
        self.due = False


class Owner:
    """Remembers what it was told, and does what a test says."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []
        self.turns: list[Timed] = []
        self.fired: list[tuple[Timed, float]] = []
        self.on_take: Callable[[bytes], object] = lambda _data: None
        self.on_turn: Callable[[Timed], object] = lambda _timed: None
        self.on_fire: Callable[[Timed], object] = lambda _timed: None

    def take(self, data: bytes, address: bytes, now: float) -> None:
        self.taken.append(data)
        self.on_take(data)

    def turn(self, timed: Timed, now: float) -> None:
        self.turns.append(timed)
        self.on_turn(timed)

    def fire(self, timed: Timed, now: float) -> None:
        self.fired.append((timed, now))
        self.on_fire(timed)


class Running:
    """A pump, its owner, and a socket that sends to it."""

    def __init__(self, pump: Pump, owner: Owner, peer: socket.socket) -> None:
        self.pump = pump
        self.owner = owner
        self.peer = peer

    async def until(self, true: Callable[[], object]) -> None:
        with trio.fail_after(PATIENCE):
            while not true():
                await trio.sleep(0.002)


@asynccontextmanager
async def open_pump() -> AsyncIterator[Running]:
    owner = Owner()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs:
        ours.setblocking(False)
        pump = Pump(ours, owner)
        async with trio.open_nursery() as nursery:
            await nursery.start(pump.run)
            yield Running(pump, owner, theirs)
            nursery.cancel_scope.cancel()


async def test_a_batch_gives_each_thing_one_turn_at_its_end() -> None:
    async with open_pump() as running:
        things = [Thing(), Thing()]
        running.owner.on_take = lambda data: running.pump.schedule(things[data[0] % 2])
        before: list[int] = []
        running.owner.on_turn = lambda _timed: before.append(len(running.owner.taken))
        for number in range(8):
            running.peer.send(bytes([number]))
        await running.until(lambda: len(running.owner.taken) == 8 and len(before) >= 2)
        assert before == [8, 8]


async def test_outside_of_a_batch_a_turn_comes_soon_and_once() -> None:
    async with open_pump() as running:
        thing = Thing()
        for _ in range(3):
            running.pump.schedule(thing)
        assert running.owner.turns == []
        await running.until(lambda: running.owner.turns)
        assert running.owner.turns == [thing]


async def test_who_asks_for_another_turn_each_time_starves_nobody() -> None:
    async with open_pump() as running:
        greedy, modest = Thing(), Thing()
        running.owner.on_turn = lambda timed: running.pump.schedule(greedy) if timed is greedy else None
        running.owner.on_take = lambda _data: running.pump.schedule(greedy)
        running.peer.send(b"go")
        await running.until(lambda: len(running.owner.turns) > 10 * ROUNDS)
        running.pump.schedule(modest)
        await running.until(lambda: modest in running.owner.turns)
        running.owner.on_turn = lambda _timed: None


async def test_other_tasks_run_during_a_flood() -> None:
    async with open_pump() as running:

        def work(_data: bytes) -> None:
            ends = perf_counter() + 0.0005
            while perf_counter() < ends:
                pass

        running.owner.on_take = work
        for number in range(100):
            try:
                running.peer.send(b"%d" % number, socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
        slept = 0
        with trio.fail_after(PATIENCE):
            while len(running.owner.taken) < number:
                await trio.lowlevel.checkpoint()
                slept += 1
        assert running.pump.slices > 0
        assert slept > 2


async def test_timers_fire_in_order_and_once(autojump_clock: MockClock) -> None:
    async with open_pump() as running:
        things = [Thing() for _ in range(5)]
        start = trio.current_time()
        for number, thing in reversed([*enumerate(things)]):
            running.pump.arm(thing, start + 1 + number)
        await trio.sleep(10)
        assert running.owner.fired == [(thing, start + 1 + number) for number, thing in enumerate(things)]
        assert running.pump.timers == 0


async def test_an_earlier_time_replaces_a_later_one_and_not_the_other_way_round(autojump_clock: MockClock) -> None:
    async with open_pump() as running:
        thing, start = Thing(), trio.current_time()
        running.pump.arm(thing, start + 50)
        running.pump.arm(thing, start + 5)
        for later in range(1_000):
            running.pump.arm(thing, start + 5 + later)
        assert running.pump.timers == 1
        await trio.sleep(100)
        assert running.owner.fired == [(thing, start + 5)]
        assert running.pump.timers == 0


async def test_a_timer_that_is_disarmed_neither_fires_nor_stays(autojump_clock: MockClock) -> None:
    async with open_pump() as running:
        things = [Thing() for _ in range(3 * STALE)]
        for thing in things:
            running.pump.arm(thing, trio.current_time() + 5)
        for thing in things[:-1]:
            running.pump.disarm(thing)
            running.pump.disarm(thing)
        assert running.pump.timers == 1
        assert len(running.pump._heap) <= STALE + 1
        await trio.sleep(10)
        assert [thing for thing, _ in running.owner.fired] == [things[-1]]
        assert (running.pump.timers, running.pump._heap) == (0, [])


async def test_a_timer_can_be_armed_when_it_fires(autojump_clock: MockClock) -> None:
    async with open_pump() as running:
        thing, start = Thing(), trio.current_time()
        running.owner.on_fire = lambda timed: running.pump.arm(timed, trio.current_time() + 1)
        running.pump.arm(thing, start + 1)
        await trio.sleep(10.5)
        assert [when - start for _, when in running.owner.fired] == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]


async def test_many_timers_at_once_let_others_run(autojump_clock: MockClock) -> None:
    async with open_pump() as running:

        def work(_timed: Timed) -> None:
            ends = perf_counter() + 0.0005
            while perf_counter() < ends:
                pass

        running.owner.on_fire = work
        for _ in range(20):
            running.pump.arm(Thing(), trio.current_time() + 1)
        await trio.sleep(5)
        assert len(running.owner.fired) == 20
        assert running.pump.slices > 0


async def test_what_the_kernel_would_not_take_leaves_later() -> None:
    async with open_pump() as running:
        thing = Thing()

        def much(_timed: Timed) -> None:
            for number in range(1_000):
                running.pump.send(b"%d" % number, b"")

        running.owner.on_turn = much
        running.pump.schedule(thing)
        await running.until(lambda: running.pump.sender.refused)
        running.owner.on_turn = lambda _timed: None
        got = 0
        with trio.fail_after(PATIENCE):
            while got < 1_000:
                try:
                    assert running.peer.recv(100, socket.MSG_DONTWAIT) == b"%d" % got
                except BlockingIOError:
                    await trio.sleep(0.002)
                else:
                    got += 1
        assert running.pump.sender.dropped == 0
