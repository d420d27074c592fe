"""Do the books of a whole cluster add up? Clients that race, vanish and misbehave on two nodes; then every account.

    python -m benchmarks.books [--seconds 10] [--users 20] [--set nats.uplink=jetstream]

The cluster is that of `make cluster`. Each user has two programs that log in on either node, as one of two devices,
send messages, receipts and Signals to the others, and end in any way: in order, by a reset, or by a newer login. When
nothing is on its way any more, the accounts of all processes are asked for over their consoles, summed, and printed.
Exits with 1 if one of them, or what is between the processes, does not add up.
"""

from __future__ import annotations

import argparse
import random
import socket
import struct
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import trio

from benchmarks.wire import Wire
from examples.cluster import Cluster
from gateway.backends.dev_keys import development_key, issue_token
from gateway.cli.books import ask
from gateway.core.books import Account, table
from gateway.core.books_cluster import Books, between, merged
from gateway.protocol.messages import ChatMessage, Heartbeat, Message, MessageAck, Signal, SyncRequest
from gateway.protocol.types import AckStatus

CONSOLES = ("node-1", "node-2", "logic-1", "logic-2")
QUIET = 30.0
"""Seconds in which everything must have come to rest."""


async def live(cluster: Cluster, user: int, users: int, until: float) -> None:
    """One program of a user: life after life."""
    key = development_key(cluster.folder)
    chance = random.Random()
    while trio.current_time() < until:
        node, device = chance.choice(("node-1", "node-2")), chance.choice(("phone", "desk"))
        stream = await trio.open_tcp_stream("127.0.0.1", int(cluster.addresses[node]["tcp"].rpartition(":")[2]))
        wire = Wire(stream)
        try:
            await wire.log_in(issue_token(key, user), device)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wire.drop_all)
                for _ in range(chance.randrange(60)):
                    await wire.send(word(chance, users))
                    await trio.sleep(chance.random() / 50)
                nursery.cancel_scope.cancel()
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # another login of the same device ended it
        if chance.random() < 0.5:
            stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset
        await trio.aclose_forcefully(stream)


def word(chance: random.Random, users: int) -> Message:
    """Something to say."""
    to = chance.randrange(1, users + 3)
    words: list[Message] = [
        ChatMessage(msg_id=f"m{chance.getrandbits(48)}", to_user=to, content="x" * chance.randrange(200)),
        ChatMessage(msg_id="the-same", to_user=to),
        ChatMessage(msg_id="not a name", to_user=to),
        MessageAck(msg_id="the-same", status=AckStatus.READ, server_seq=chance.randrange(1, 50)),
        Signal(to_user=to, kind="typing"),
        SyncRequest(cursor=chance.randrange(50)),
        Heartbeat(),
    ]
    return chance.choices(words, weights=[12, 1, 0.1, 4, 3, 1, 3])[0]


async def at_rest(cluster: Cluster, names: Sequence[str] = CONSOLES) -> Sequence[Books]:
    """The accounts of these processes, once they stay the same; what they are after QUIET otherwise."""
    found: list[Books] = []
    with trio.move_on_after(QUIET):
        while True:
            before = [numbers(books) for books in found]
            await trio.sleep(0.5)
            found = [await trio.to_thread.run_sync(ask, cluster.addresses[name]["console"]) for name in names]
            if before == [numbers(books) for books in found]:
                break
    return found


def numbers(books: Books) -> list[int]:
    """What tells whether anything has moved; the heartbeats of buses do not count here."""
    return [account.came for account in books]


async def traffic(cluster: Cluster, seconds: float, users: int) -> None:
    """All programs, on a cluster that serves."""
    until = trio.current_time() + seconds
    async with trio.open_nursery() as nursery:
        for user in range(1, users + 1):
            for _ in range(2):
                nursery.start_soon(live, cluster, user, users, until)


def wrong(processes: Sequence[Books]) -> list[Account]:
    """Every account that does not add up, in a process or between them."""
    return [account for account in (*merged(processes), *between(processes)) if not account.balanced]


async def measure(seconds: float, users: int, settings: Sequence[str]) -> int:
    """The whole of it; the exit code."""
    with tempfile.TemporaryDirectory(prefix="books-") as folder:
        cluster = Cluster(Path(folder), settings=settings)
        try:
            print("starting NATS, Redis, two Logics, two nodes", file=sys.stderr, flush=True)
            await cluster.start()
            print(f"{2 * users} programs for {seconds:g} s", file=sys.stderr, flush=True)
            await traffic(cluster, seconds, users)
            processes = await at_rest(cluster)
        finally:
            cluster.kill()
    print(table(merged(processes)))
    print("\nbetween the processes")
    print(table(between(processes)))
    off = wrong(processes)
    print("\n" + (f"{len(off)} accounts do NOT add up" if off else "all of it adds up"))
    return int(bool(off))


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0], allow_abbrev=False)
    parser.add_argument("--seconds", type=float, default=10.0, help="of traffic (10)")
    parser.add_argument("--users", type=int, default=20)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="for nodes and Logics")
    asked = parser.parse_args()
    return trio.run(measure, asked.seconds, asked.users, asked.set)


if __name__ == "__main__":
    raise SystemExit(main())
