"""Closed accounting over a cluster: two nodes and two Logics on one bus, clients that race, vanish and misbehave."""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trio

from gateway.backends.memory import MemoryBus, MemoryLocationStore
from gateway.core.books import Account, books, bus_books, publishers
from gateway.core.books_cluster import between, merged
from gateway.core.settings import LimitSettings
from gateway.logic.push import Push
from gateway.logic.service import LogicService
from gateway.logic.store_sqlite import SqliteStore
from gateway.protocol.messages import ChatMessage, Heartbeat, Message, MessageAck, Signal, SyncRequest
from gateway.protocol.subjects import Subjects
from gateway.protocol.types import AckStatus
from tests.support.peer import Peer
from tests.support.world import World, open_world

USERS = range(1001, 1007)
LIVES = 4


class Cluster:
    """Everything that keeps books here, and what each bus would be if each had its own."""

    def __init__(self, bus: MemoryBus, worlds: Sequence[World], logics: Sequence[LogicService], push: Push) -> None:
        self.bus = bus
        self.worlds = worlds
        self.logics = logics
        self.push = push

    def processes(self) -> list[list[Account]]:
        """Each one's accounts; the bus is of all of them, so its are looked at apart."""
        nodes = []
        for world in self.worlds:
            found = books(world.hub)
            own = publishers(self.bus.statistics(), world.hub, ())
            nodes.append([*found, Account("published", sum(own.became.values()), own.became)])
        return [*nodes, *(logic.books() for logic in self.logics), self.push.books()]

    def closed(self) -> dict[str, Account]:
        """Sums of all, each balanced; also those of the bus."""
        accounts = {account.name: account for account in (*merged(self.processes()), *bus_books(self.bus.statistics()))}
        for account in accounts.values():
            assert account.balanced, account
        published = sum(
            accounts[name].became["sent"]
            for name in ("logic_downstreams", "pushed", "pushed_to_everyone", "pushed_events")
        )
        assert accounts["bus_published"].came == accounts["published"].came + published
        return accounts

    async def rest(self) -> None:
        """Return when nothing is on its way."""
        with trio.fail_after(20):
            before = -1
            while before != (before := self.bus.statistics().published):
                await self.bus.drain()
                for logic in self.logics:
                    await logic.drain()
                await self.bus.drain()


async def live(cluster: Cluster, chance: random.Random, readers: trio.Nursery, user: int) -> None:
    """Lives of one user: on either node, on one of two devices, ended in any way."""
    for life in range(LIVES):
        peer = await chance.choice(cluster.worlds).connect()
        try:
            await peer.log_in(user, chance.choice(["phone", "desk"]), sync_cursor=chance.choice([0, 1]))
            readers.start_soon(read, peer)
            for number in range(chance.randrange(25)):
                await peer.send(word(chance, f"m-{user}-{life}-{number}"))
                cluster.closed()
                await trio.sleep(chance.random() / 500)
        except (trio.BrokenResourceError, trio.ClosedResourceError, AssertionError):
            cluster.closed()  # somebody else's login ended it
        if chance.random() < 0.7:
            await peer.hang_up()


async def read(peer: Peer) -> None:
    while await peer.frame() is not None:
        pass


def word(chance: random.Random, msg_id: str) -> Message:
    """Something to say."""
    user = chance.choice([*USERS, 9999])
    words: list[Message] = [
        ChatMessage(msg_id=msg_id, to_user=user, content="x"),
        ChatMessage(msg_id="the same", to_user=user),
        MessageAck(msg_id=msg_id, status=AckStatus.READ, server_seq=chance.randrange(1, 20)),
        Signal(to_user=user, kind="typing"),
        SyncRequest(cursor=chance.randrange(20)),
        Heartbeat(),
    ]
    return chance.choices(words, weights=[12, 1, 4, 3, 2, 3])[0]


async def push_around(cluster: Cluster, chance: random.Random) -> None:
    """A service of one's own: to users, to everyone, to connections that are no more."""
    for number in range(60):
        user = chance.choice(USERS)
        message = ChatMessage(msg_id=f"p{number}", to_user=user)
        match chance.randrange(5):
            case 0 | 1:
                await cluster.push(user, message)
            case 2:
                cluster.push.connection(chance.choice(["node-1", "node-2"]), 5, message, user_id=user)
            case 3:
                cluster.push.everyone(message)
            case _:
                cluster.push.event(user, "mail")
        await trio.sleep(chance.random() / 100)


async def stage(cluster: Cluster, readers: trio.Nursery) -> None:
    """What chance may have left out: a login displaces one elsewhere, a delivery has nowhere to go, another has."""
    one, two = cluster.worlds
    first = await one.seated(2001)
    readers.start_soon(read, first)
    for _ in range(2):
        await first.send(ChatMessage(msg_id="twice", to_user=1001))
    await first.send(Heartbeat())
    readers.start_soon(read, await two.seated(2001))
    for user in (2001, 9999):
        cluster.push.connection("node-1", 5, ChatMessage(msg_id="late", to_user=user), user_id=user)


@pytest.mark.parametrize("seed", range(3))
async def test_what_leaves_one_process_arrives_at_another_and_all_of_it_is_in_the_books(
    tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    bus, locations = MemoryBus(), MemoryLocationStore()
    limits = LimitSettings(message_rate=1_000, message_burst=1_000)
    async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
        await nursery.start(bus.run)
        logics = []
        for _ in range(2):
            store = await stack.enter_async_context(SqliteStore.open(tmp_path / "logic.sqlite"))
            logics.append(LogicService(bus, locations, store))
            await nursery.start(logics[-1].run)
        async with AsyncExitStack() as nodes:
            worlds = []
            for name in ("node-1", "node-2"):
                world = open_world(bus=bus, locations=locations, logic=False, node_id=name, limits=limits)
                worlds.append(await nodes.enter_async_context(world))
            cluster = Cluster(bus, worlds, logics, Push(bus, locations, Subjects()))
            async with trio.open_nursery() as readers:
                async with trio.open_nursery() as clients:
                    clients.start_soon(push_around, cluster, chance)
                    for user in USERS:
                        for _ in range(2):  # the same user at the same time, and often the same device
                            clients.start_soon(live, cluster, chance, readers, user)
                await stage(cluster, readers)
                await cluster.rest()
                accounts = cluster.closed()
                assert [account for account in between(cluster.processes()) if not account.balanced] == []
                readers.cancel_scope.cancel()
        await cluster.rest()
        cluster.closed()
        assert sum(account.became.get("waiting", 0) for account in accounts.values()) == 0
        for name, end in (
            ("published", "kicks"), ("published", "reports"), ("downstreams", "undelivered"), ("reports", "sent"),
            ("logic_undelivered", "offline"), ("logic_undelivered", "rerouted"), ("logic_upstreams", "repeated"),
            ("frames", "heartbeat"),
        ):  # fmt: skip
            assert accounts[name].became[end] > 0, (name, end)  # all of it was tried
        nursery.cancel_scope.cancel()
