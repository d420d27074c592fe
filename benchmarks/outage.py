"""What an outage costs: messages at a steady rate across two nodes while a part of the cluster is stopped or killed.

    python -m benchmarks.outage              # every outage, about three minutes
    python -m benchmarks.outage nats-killed  # one of them

The cluster is that of `make cluster`, a fresh one for each row. One user on node-1 sends to one on node-2; ten more on
each node only sit there, to see whether anybody is hung up on. A message that is Rejected (4402) is sent again by its
program, under its msg_id. Seconds count from the return: SIGCONT, the new server listening, the death of the Logic.
"""

from __future__ import annotations

import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import trio

from examples.cluster import Cluster, Process
from gateway.backends.dev_keys import development_key, issue_token
from gateway.client import Client, ClientSettings, Rejected, connect

MESSAGES, RATE = 2_000, 100.0
BEFORE, AWAY, DOWN = 4.0, 10.0, 3.0
"""Seconds of peace first, of a stopped server, of a killed one."""
PATIENCE = 60.0
"""Seconds that everything has to arrive in, after the last message was sent."""
SITTING = 10
SETTINGS = ClientSettings(
    start_timeout=PATIENCE, unacknowledged=2 * MESSAGES, buffered_deliveries=2 * MESSAGES, resend_after=2.0
)
ANNA, BO = 1, 2


class Run:
    """The numbers of one row."""

    def __init__(self) -> None:
        self.sent: dict[str, float] = {}
        """When each message was sent first; and so on, by its content."""
        self.stored: dict[str, float] = {}
        self.seen: dict[str, float] = {}
        self.times: Counter[str] = Counter()
        """How often the receiving program saw each message."""
        self.refused = 0
        self.kept: Counter[str] = Counter()
        """How often each stands in what a new device of the receiver is given."""
        self.hung_up = 0
        self.returned = 0.0

    def row(self) -> list[str]:
        """As the table has it."""
        lost = [each for each in self.stored if not self.times[each] or not self.kept[each]]
        twice = [each for each in self.sent if self.times[each] > 1 or self.kept[each] > 1]
        once = sum(count == 1 for count in self.times.values())
        numbers = [len(self.sent), len(self.stored), once, len(twice), len(lost), self.refused, self.hung_up]
        return [*map(str, numbers), self._first(self.stored), self._first(self.seen), self._caught_up()]

    def _first(self, when: dict[str, float]) -> str:
        after = [each - self.returned for each in when.values() if each > self.returned]
        return f"{min(after):.2f}" if after else "never"

    def _caught_up(self) -> str:
        """Until the last message from before the return was seen."""
        late = [at - self.returned for each, at in self.seen.items() if self.sent[each] <= self.returned]
        return f"{max([0.0, *late]):.2f}"


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
    """Kill a server and start it again on its port after DOWN seconds."""

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


async def measure(outage: Outage) -> Run:
    """One row, on a fresh cluster."""
    run = Run()
    with tempfile.TemporaryDirectory(prefix="outage-") as folder:
        cluster = Cluster(Path(folder), settings=["limits.message_rate=10000", "limits.message_burst=10000"])
        try:
            await cluster.start()
            async with AsyncExitStack() as stack:
                await _send(run, cluster, outage, stack)
        finally:
            cluster.kill()
    return run


async def _send(run: Run, cluster: Cluster, outage: Outage, stack: AsyncExitStack) -> None:
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
                await anna.send(text, to_user=BO, msg_id=text, timeout=PATIENCE)
            except Rejected:
                run.refused += 1
                await trio.sleep(0.5)
                continue
            run.stored[text] = trio.current_time()
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


def main(names: list[str]) -> None:
    """Print the table, row by row."""
    heads = ["sent", "stored", "once", "twice", "lost", "rejected", "hung up", "1st stored", "1st seen", "caught up"]
    print(f"{MESSAGES} messages at {RATE:g}/s; stopped for {AWAY:g} s, killed for {DOWN:g} s; seconds after the return")
    print(f"{'outage':<14}" + "".join(f"{each:>11}" for each in heads), flush=True)
    for name in names or list(OUTAGES):
        run = trio.run(measure, OUTAGES[name])
        print(f"{name:<14}" + "".join(f"{each:>11}" for each in run.row()), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
