"""What the tests of NatsBus share: a running bus with short patience, and waiting for what it says of itself."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio

from gateway.backends.asyncio_thread import AsyncioThread
from gateway.backends.nats_bus import NatsBus
from gateway.backends.nats_statistics import NatsBusStatistics
from gateway.backends.settings_nats import NatsSettings, NatsStreamSettings

PATIENCE = 30.0
"""Seconds until a wait is given up: far more than any needs on a busy machine."""


def settings(*servers: str, **changes: Any) -> NatsSettings:
    """Short intervals, so that an outage is noticed while a test waits; a busy machine still answers in time."""
    values = {"connect_timeout": 2.0, "reconnect_cap": 0.2, "ping_interval": 0.2, "ping_timeout": 1.5, **changes}
    return NatsSettings(servers=servers, **values)


def durable(*servers: str, prefix: str = "im", **stream: Any) -> NatsSettings:
    """The same with a durable uplink: a small stream, and little patience with the dead."""
    values = {"max_bytes": 16_777_216, "ack_wait": 1.0, **stream}
    return settings(*servers, prefix=prefix, uplink="jetstream", stream=NatsStreamSettings(**values))


@asynccontextmanager
async def running_bus(settings: NatsSettings, *, connected: bool = True, **bounds: Any) -> AsyncIterator[NatsBus]:
    """A bus that runs on a thread of its own, by default once it is connected."""
    async with AsyncioThread() as thread, trio.open_nursery() as nursery:
        bus = NatsBus(settings, thread, **bounds)
        await nursery.start(bus.run)
        if connected:
            with trio.fail_after(PATIENCE):
                await bus.wait_healthy()
        yield bus
        nursery.cancel_scope.cancel()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that nobody announces."""
    with trio.fail_after(PATIENCE):
        while not condition():
            await trio.sleep(0.01)


def balanced(counts: NatsBusStatistics) -> bool:
    """The books: whatever was taken is confirmed, dropped or held; whatever arrived is handed on or waits."""
    return (
        counts.published == counts.confirmed + counts.dropped + counts.held_messages
        and counts.received == counts.handed_on + counts.waiting_messages
    )


def in_order(payloads: list[bytes], count: int) -> bool:
    """Whether 0 to count-1 came, first in this order; a payload may come again after an outage."""
    return list(dict.fromkeys(payloads)) == [b"%d" % i for i in range(count)]
