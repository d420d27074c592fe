"""What the reference Logic costs: CPU per stored message, delivery, receipt and Sync, and how many a second.

    python -m benchmarks.logic [--store sqlite|redis] [--rounds N] [--dir DIRECTORY] [--json]

One process: a MemoryBus, a MemoryLocationStore and a SQLite file (WAL, synchronous FULL) in DIRECTORY, by default
the system's temporary one; whether that is a disk decides the rates of what waits for fsync. With `--store redis` a
Valkey server beside it (appendfsync always, in DIRECTORY). CPU is that of the whole process, store thread included,
from the Upstream's bytes on the bus to the Downstream's bytes at the node; the server's is a column of its own. Shown
is the median of the rounds.
"""

from __future__ import annotations

import argparse
import json
import platform
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import msgspec
import trio

from gateway._framing import HEADER, Frame, build_ack, build_chat, build_upstream, parse_frame
from gateway.backends.memory import MemoryBus, MemoryLocationStore
from gateway.core.ports import Location, LoginPolicy
from gateway.logic.groups import create_group
from gateway.logic.service import LogicService
from gateway.logic.store import Store
from gateway.logic.store_sqlite import SqliteStore
from gateway.protocol.messages import SyncRequest, packet
from gateway.protocol.types import AckStatus, MsgType

CONTENT = "x" * 100
USERS = 200
GROUP = 100
SENDER, FIVE_DEVICES, NOBODY = 10_001, 10_002, 10_003
MEMBERS = (SENDER, *range(1, GROUP))


class Row(msgspec.Struct, frozen=True):
    """One line of the table."""

    what: str
    window: int
    """Requests in flight."""
    cpu_us: float
    server_us: float
    """CPU of the Redis server."""
    rate: float
    """A second, by the wall clock."""


class Bench:
    """A running Logic; `exchange` sends prepared Upstreams and waits for their answers."""

    def __init__(self, bus: MemoryBus) -> None:
        self.bus = bus
        self._arrived = self._goal = self._made = 0
        self._reached = trio.Event()
        bus.subscribe("im.access.*.downstream", self._downstream)

    def _downstream(self, subject: str, payload: bytes) -> None:
        self._arrived += 1
        if self._arrived == self._goal:
            self._reached.set()

    def chats(self, count: int, targets: Sequence[int] = (), group: int = 0) -> list[bytes]:
        made = []
        for i in range(count):
            self._made += 1
            to = 0 if group else targets[i % len(targets)]
            frame = build_chat(1, 0, f"m{self._made:020}", 0, to, CONTENT, 0, 1, group, 0)
            made.append(_up(SENDER, parse_frame(MsgType.MESSAGE, frame[HEADER:])))
        return made

    def receipts(self, count: int, user: int) -> list[bytes]:
        """For the last `count` messages, which were all the ones sent to `user`."""
        made = []
        for i in range(count):
            frame = build_ack(0, 0, f"m{self._made - count + 1 + i:020}", AckStatus.READ, 0, i + 1, 1)
            made.append(_up(user, parse_frame(MsgType.MESSAGE_ACK, frame[HEADER:])))
        return made

    async def exchange(self, upstreams: Sequence[bytes], answers: int, window: int) -> None:
        """Keep up to `window` in flight until each has had its `answers`."""
        for start in range(0, len(upstreams), window):
            part = upstreams[start : start + window]
            self._goal = self._arrived + answers * len(part)
            self._reached = trio.Event()
            for payload in part:
                assert self.bus.publish("im.logic.upstream", payload)
            with trio.fail_after(60):
                await self._reached.wait()


def _up(user: int, frame: Frame) -> bytes:
    return build_upstream("node-1", user, user, "phone", "bench", 1, frame)


Work = Callable[[], Awaitable[None]]


class Opened(msgspec.Struct, frozen=True):
    """A store with the group in it, and what its server has used so far, in seconds."""

    store: Store
    server_cpu: Callable[[], float]


async def measure(what: str, window: int, count: int, work: Work, server_cpu: Callable[[], float]) -> Row:
    server, cpu, wall = server_cpu(), time.process_time(), time.perf_counter()
    await work()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return Row(what, window, cpu / count * 1e6, (server_cpu() - server) / count * 1e6, count / wall)


@asynccontextmanager
async def open_sqlite(directory: Path) -> AsyncIterator[Opened]:
    path = directory / "logic.sqlite"
    create_group(path, 7, MEMBERS)
    async with SqliteStore.open(path) as store:
        yield Opened(store, lambda: 0.0)


@asynccontextmanager
async def open_redis(directory: Path) -> AsyncIterator[Opened]:
    from gateway.backends.asyncio_thread import AsyncioThread
    from gateway.backends.settings_redis import RedisSettings
    from gateway.logic.groups_redis import RedisGroups
    from gateway.logic.store_redis import RedisStore
    from tests.support.redis_server import RedisServer

    sys.setswitchinterval(0.0005)  # as `python -m gateway` does
    server = RedisServer(directory, "--appendonly", "yes", "--appendfsync", "always")
    server.start()

    def server_cpu() -> float:
        used = client.info("cpu")
        return float(used["used_cpu_sys"]) + float(used["used_cpu_user"])

    try:
        client = server.client()
        settings = RedisSettings(port=server.port)
        async with AsyncioThread() as thread, RedisStore.open(settings, thread) as store:
            async with RedisGroups.open(settings, thread) as groups:
                await groups.create(7, MEMBERS)
            yield Opened(store, server_cpu)
    finally:
        server.close()


async def one_round(directory: Path, kind: str) -> list[Row]:
    opened = open_redis(directory) if kind == "redis" else open_sqlite(directory)
    bus, locations = MemoryBus(), MemoryLocationStore()
    devices = [(user, 1) for user in range(1, USERS + 1)] + [(SENDER, 1), (FIVE_DEVICES, 5)]
    for user, count in devices:
        for i in range(count):
            place = Location(
                user_id=user,
                access_node=f"node-{i + 1}",
                conn_id=user + 100_000 * i,
                device_id=f"device-{i}",
                platform="bench",
                login_time=1,
            )
            await locations.claim(place, LoginPolicy.MULTI_DEVICE)
    rows: list[Row] = []
    async with opened as kept, trio.open_nursery() as nursery:
        await nursery.start(bus.run)
        await nursery.start(LogicService(bus, locations, kept.store).run)
        bench = Bench(bus)

        async def run(what: str, window: int, ups: Sequence[bytes], answers: int, per: int = 1) -> None:
            work = partial(bench.exchange, ups, answers, window)
            rows.append(await measure(what, window, len(ups) * per, work, kept.server_cpu))

        everybody = range(1, USERS + 1)
        await bench.exchange(bench.chats(500, everybody), 2, 500)  # warm
        await run("message stored, acknowledged, delivered to one device", 1, bench.chats(100, everybody), 2)
        await run("the same", 16, bench.chats(800, everybody), 2)
        ups = bench.chats(4_000, everybody)
        await run("the same", 500, ups, 2)
        await run("the same message again: acknowledged only", 500, ups, 1)
        await run("message to five devices on five nodes", 500, bench.chats(2_000, [FIVE_DEVICES]), 6)
        ups = bench.chats(2_000, [NOBODY])
        await run("message to a user who is offline", 500, ups, 1)
        await run("receipt kept and told to the sender", 500, bench.receipts(2_000, NOBODY), 1)
        await run(f"delivery of a group message, {GROUP} members", 16, bench.chats(64, group=7), GROUP, GROUP)
        sync = _up(NOBODY, parse_frame(MsgType.SYNC, packet(SyncRequest(limit=100), seq=1)))
        await run("Sync answered with 100 messages", 16, [sync] * 128, 1)
        empty = _up(NOBODY, parse_frame(MsgType.SYNC, packet(SyncRequest(cursor=2_000), seq=1)))
        await run("Sync answered with nothing new", 16, [empty] * 512, 1)
        nursery.cancel_scope.cancel()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="CPU of the reference Logic")
    parser.add_argument("--store", choices=["sqlite", "redis"], default="sqlite")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dir", type=Path, default=None, help="where the store lies (default: temporary directory)")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rounds = []
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory(dir=options.dir) as directory:
            rounds.append(trio.run(one_round, Path(directory), options.store))
    rows = [
        Row(
            same[0].what,
            same[0].window,
            round(statistics.median(row.cpu_us for row in same), 1),
            round(statistics.median(row.server_us for row in same), 1),
            round(statistics.median(row.rate for row in same)),
        )
        for same in zip(*rounds, strict=True)
    ]
    versions = {"python": platform.python_version(), "sqlite": sqlite3.sqlite_version, "trio": trio.__version__}
    if options.json:
        print(
            json.dumps({"versions": versions, "rounds": options.rounds, "rows": [msgspec.to_builtins(r) for r in rows]})
        )
        return
    print(f"Python {versions['python']}, SQLite {versions['sqlite']}, Trio {versions['trio']}; 100-byte contents")
    print(f"{'':56}{'in flight':>10}{'CPU µs':>10}{'server µs':>11}{'per second':>12}")
    for row in rows:
        print(f"{row.what:56}{row.window:>10}{row.cpu_us:>10.1f}{row.server_us:>11.1f}{row.rate:>12,.0f}")


if __name__ == "__main__":
    main()
