"""What user events cost a node of 20,000 users: one subscription to all of them, or one for each user.

    python benchmarks/events.py [--users 20000] [--events 50000]

On the memory bus, so that only our own work is counted. With a wildcard every node sees every event of the cluster
and throws away those of users elsewhere; with one subscription per user each login and each end changes the bus's
subscriptions, and on a network the server keeps one entry per user.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import trio
import trio.testing

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gateway.backends.memory import MemoryBus, MemoryLocationStore
from gateway.core.connection import Connection
from gateway.core.hub import Hub, HubSettings
from gateway.core.ids import ConnectionIds
from gateway.core.limits import TokenBucket
from gateway.core.ports import Credentials, Identity
from gateway.core.session import Session
from gateway.protocol.envelopes import EventKind, UserEvent
from gateway.transports.stream import StreamLink


class Anybody:
    """Nobody logs in here."""

    async def authenticate(self, credentials: Credentials) -> Identity:
        raise NotImplementedError


def seat(hub: Hub, ids: ConnectionIds, user_id: int) -> Connection:
    """A session without a socket."""
    ours, _ = trio.testing.memory_stream_pair()
    connection = Connection(hub, StreamLink(ours, ""), ids.issue(), 0.0)
    session = Session("s", user_id, "phone", "ios", 0, 1e9, TokenBucket(1, 1, 0.0))
    hub.registry.enter(connection)
    connection.session = session
    hub.registry.seat(connection, user_id)
    return connection


def timed(times: int, step: Callable[[int], object]) -> float:
    """Microseconds of processor time for one step."""
    started = time.process_time()
    for number in range(times):
        step(number)
    return (time.process_time() - started) / times * 1e6


async def measure(users: int, events: int) -> dict[str, float]:
    """Run it all and say what each part costs."""
    hub = Hub(HubSettings(node_id="node-1"), bus=MemoryBus(), locations=MemoryLocationStore(), authenticator=Anybody())
    ids = ConnectionIds()
    first = seat(hub, ids, 1)
    for user_id in range(2, users + 1):
        seat(hub, ids, user_id)
    session = first.session
    assert session is not None
    away = UserEvent(kind=EventKind.ONLINE, user_id=10**9, node_id="node-2", conn_id=7, device_id="phone").encode()
    here = UserEvent(kind=EventKind.ONLINE, user_id=1, node_id="node-2", conn_id=7, device_id="phone").encode()
    receive = hub.events.receive
    result = {
        "elsewhere_us": timed(events, lambda n: receive(f"im.user.{10**9 + n}.event", away)),
        "presence_here_us": timed(events // 10, lambda n: receive("im.user.1.event", here)),
        "publish_us": timed(events // 10, lambda n: hub.events.online(first, session)),
    }
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    subscriptions = [hub.bus.subscribe(f"im.user.{user}.event", receive) for user in range(1, users + 1)]
    result["bytes_per_subscription"] = (tracemalloc.get_traced_memory()[0] - before) / users
    tracemalloc.stop()
    result["subscribe_us"] = timed(events // 10, lambda n: hub.bus.subscribe("im.user.1.event", receive))
    result["close_us"] = timed(1000, lambda n: subscriptions[-1 - n].close())
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--events", type=int, default=50_000)
    arguments = parser.parse_args()
    measured = trio.run(measure, arguments.users, arguments.events)
    print(
        json.dumps({name: round(value, 2) for name, value in measured.items()} | {"python": platform.python_version()})
    )
