"""Logic's books: whatever traffic comes and whenever one looks, every envelope is accounted for."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pytest
import trio

from gateway._framing import HEADER, build_chat, build_downstream
from gateway.core.books import Account
from gateway.logic.service import LogicService
from gateway.logic.settings import LogicSettings
from gateway.logic.store import Outcome, Store, StoreFailed, Write
from gateway.protocol.envelopes import Undelivered
from gateway.protocol.messages import FileAck
from gateway.protocol.types import AckStatus, Action, MsgType
from tests.logic.test_messages import FullBus
from tests.logic.world import Device, World, open_world

USERS = range(1, 7)


def closed(service: LogicService) -> dict[str, Account]:
    """Every account, each of which must be balanced."""
    accounts = {account.name: account for account in service.books()}
    for account in accounts.values():
        assert account.balanced, account
    return accounts


class Moody:
    """A store that fails now and then, and never takes more than a few."""

    def __init__(self, inner: Store, chance: random.Random) -> None:
        self._inner = inner
        self._chance = chance
        self.read = inner.read
        self.members = inner.members
        self.prune = inner.prune

    async def write(self, writes: Sequence[Write], now_ms: int) -> list[Outcome]:
        if self._chance.random() < 0.1:
            raise StoreFailed("a bad day")
        if self._chance.random() < 0.05:
            raise RuntimeError("a bug")
        return await self._inner.write(writes[: self._chance.randrange(1, 9)], now_ms)


def say(device: Device, chance: random.Random, number: int) -> None:
    """One thing that a node might hand up, or that nobody should."""
    to = chance.choice(USERS)
    match chance.randrange(10):
        case 0 | 1 | 2 | 3:
            device.chat(f"m{device.user}-{chance.randrange(number + 1)}", to)
        case 4:
            device.chat("x" * 65 if chance.random() < 0.5 else "ok", to, from_user=to + 1)
        case 5 | 6:
            device.ack(f"m{to}-{number}", chance.choice([AckStatus.READ, AckStatus.STORED]), chance.randrange(9))
        case 7:
            device.signal(to=chance.choice([0, to]))
        case 8:
            device.say(FileAck(file_id="f"), MsgType.FILE_ACK)
        case _:
            device.world.bus.publish(device.world.subjects.upstream, b"junk")


def report(world: World, chance: random.Random) -> None:
    """What a node could not place."""
    user, conn_id = chance.choice([*USERS, 99]), chance.randrange(1, 12)
    body = build_chat(0, 1, "m", 1, user, "x", 0, 1, 0, 1)[HEADER:]
    action = chance.choice([Action.DELIVER, Action.DELIVER, Action.KICK])
    down = build_downstream(user, (conn_id,), "", "", 0, action, 0, MsgType.MESSAGE, body, 0)
    told = Undelivered(node_id="node-1", user_id=user, conn_id=conn_id, reason="gone", downstream=down)
    world.bus.publish(world.subjects.undelivered, b"junk" if chance.random() < 0.1 else told.encode())


@pytest.mark.parametrize("seed", range(4))
async def test_random_traffic_is_accounted_for_at_every_moment(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    settings = LogicSettings(max_waiting=chance.choice([5, 1000]), max_signals=4, send_patience=0.01)
    bus = FullBus()

    def wrap(store: Store) -> Store:
        return Moody(store, chance)

    async with open_world(tmp_path / "logic.sqlite", settings, bus=bus, wrap=wrap) as world:
        devices = [world.device(user) for user in USERS]
        for device in devices[:4]:
            await device.online()
        sent = before = 0
        for number in range(300):
            before = bus.statistics().published
            say(chance.choice(devices), chance, number)
            if chance.random() < 0.2:
                report(world, chance)
            sent += bus.statistics().published - before
            bus.full = chance.random() < 0.1
            closed(world.service)
            if chance.random() < 0.3:
                await trio.lowlevel.checkpoint()
                closed(world.service)
        bus.full = False
        await world.settle()
        accounts = closed(world.service)
        assert accounts["logic_upstreams"].came + accounts["logic_undelivered"].came == sent
        assert [account.became["waiting"] for account in accounts.values()] == [0, 0, 0]
        counts = bus.statistics()
        assert counts.published == sent + accounts["logic_downstreams"].became["sent"]
        seen = world.service.statistics()
        assert seen.received == accounts["logic_upstreams"].came
        assert min(seen.stored, seen.rejected, seen.dropped, seen.malformed, seen.syncs + 1) > 0
