"""The flusher: each marked connection once, and the way down measured by two looks at the clock."""

from __future__ import annotations

from typing import cast

import trio
import trio.testing
from trio.abc import Clock

from gateway._framing import build_downstream
from gateway.core.connection import Connection
from gateway.core.flusher import SLICE, Flusher
from gateway.core.metrics import BOUNDS, Latency
from gateway.protocol.messages import ChatMessage, MessageAck, packet
from gateway.protocol.types import Action, MsgType
from tests.support.world import open_world


class Slow:
    """Stands in for a connection whose flush takes a hundredth of a second."""

    closing = False
    time = 100.0
    flushed = 0
    looks = 0

    def flush(self) -> None:
        Slow.flushed += 1
        Slow.time += 0.01

    @staticmethod
    def now() -> float:
        Slow.looks += 1
        return Slow.time


async def test_latency_counts_from_the_first_of_a_batch_and_once_for_each(autojump_clock: Clock) -> None:
    latency = Latency()
    flusher = Flusher(Slow.now, latency)
    for _ in range(2 * SLICE + 1):
        flusher.mark(cast(Connection, Slow()))
    Slow.time += 0.5  # the slice of the bus that brought them
    async with trio.open_nursery() as nursery:
        nursery.start_soon(flusher.run)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert Slow.flushed == sum(latency.counts) == 2 * SLICE + 1
    assert Slow.looks == 1 + 3  # one when they began, one for each slice
    assert sum(latency.counts[: BOUNDS.index(2.5)]) == 0
    first, second, last = 0.5 + 0.01 * SLICE, 0.5 + 0.02 * SLICE, 0.5 + 0.02 * SLICE + 0.01
    assert abs(latency.total - (SLICE * first + SLICE * second + last)) < 0.001


async def test_what_comes_down_is_in_the_latency_as_what_goes_up(autojump_clock: Clock) -> None:
    async with open_world() as world:
        peer = await world.seated(1001)
        latency = world.hub.metrics.latency
        before = sum(latency.counts)
        await peer.send(ChatMessage(msg_id="m-1", to_user=1002))
        await peer.receive(MessageAck)
        assert sum(latency.counts) == before + 1
        body = packet(ChatMessage(msg_id="d", to_user=1001))
        world.down(build_downstream(1001, (), "", "", 0, Action.DELIVER, 0, MsgType.MESSAGE, body, 0))
        assert (await peer.receive(ChatMessage)).msg_id == "d"
        assert sum(latency.counts) == before + 2
