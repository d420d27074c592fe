"""Files under random doings: whatever clients send, nothing raises, nothing is left, and the books are closed."""

from __future__ import annotations

import random
from typing import Any

import pytest
import trio
from trio.abc import Clock

from gateway._framing import build_downstream
from gateway.backends.memory_files import MemoryFileStore
from gateway.core.books import books
from gateway.core.settings import LimitSettings
from gateway.core.settings_files import FileSettings
from gateway.protocol.files import file_reference
from gateway.protocol.messages import FileAck, FileChunk, Message, decode, encode, packet
from gateway.protocol.types import Action, MsgType
from tests.core.test_files_streams import Given, Streams
from tests.support.files import offer_of, open_files
from tests.support.peer import Peer
from tests.support.world import World

USERS = range(1001, 1005)
CONTENTS = [random.Random(number).randbytes(number * 9_000) for number in range(5)]


def closed(world: World) -> None:
    for account in books(world.hub):
        assert account.balanced, account


class Clients:
    """Lives of clients that send, cut, repeat, lie, fetch and vanish."""

    def __init__(self, world: World, chance: random.Random) -> None:
        self.world = world
        self.chance = chance
        self._devices = 0

    def device(self) -> str:
        """A name for one more."""
        self._devices += 1
        return f"device-{self._devices}"

    def message(self) -> Message:
        """Anything about files."""
        chance = self.chance
        number = chance.randrange(5)
        content, file_id = CONTENTS[number], f"f-{number}"
        lies: list[dict[str, Any]] = [{}, {}, {}, {"size": 7}, {"sha256": b"x" * 32}, {"name": "../x"}, {"to_user": 0}]
        fields: dict[str, Any] = {"to_user": chance.choice(USERS)} | chance.choice(lies)
        offset = chance.choice([0, 0, 16_000, 32_000, 2**60])
        data = content[offset : offset + 16_000]
        what: list[Message] = [
            offer_of(content, file_id, **fields),
            offer_of(content, file_id, to_user=0, group_id=7),
            FileChunk(file_id=file_id, offset=offset, data=data, last=chance.random() < 0.1),
            FileAck(file_id=file_reference(chance.choice(USERS), file_id), received=chance.choice([0, 5, 10**9])),
            FileAck(file_id=file_reference(chance.choice(USERS), file_id), code=4400),
            FileAck(file_id=file_id),
        ]
        return chance.choices(what, weights=[5, 2, 12, 4, 1, 0.3])[0]

    async def chunks(self, user: int) -> None:
        """One life on a link of one lane."""
        peer = await self.world.seated(user, self.device())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read, peer)
            try:
                for _ in range(self.chance.randrange(60)):
                    await peer.send(self.message())
                    closed(self.world)
                    await trio.sleep(self.chance.choice([0, 0, 0.1, 3]))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass  # too many errors
            await peer.hang_up()
            nursery.cancel_scope.cancel()

    async def _read(self, peer: Peer) -> None:
        while not peer.ended:
            await peer.frame()

    async def streams(self, user: int) -> None:
        """One life on a link with lanes."""
        link = Streams()
        self.world.serve(link)
        await link.log_in(user, self.device())
        for _ in range(self.chance.randrange(20)):
            if link.aborted.is_set():
                return
            if self.chance.random() < 0.3:
                await link.say(self.message())
            else:
                await self._stream(await link.stream())
            closed(self.world)
            await trio.sleep(self.chance.choice([0, 0, 0.1, 3]))
        if not link.aborted.is_set():
            (await link.told()).lost("gone")

    async def _stream(self, given: Given) -> None:
        """An offer that may be broken, and bytes, cut anywhere, ended somehow."""
        if given.sink is None:
            return
        chance = self.chance
        number = chance.randrange(5)
        data = bytearray(encode(offer_of(CONTENTS[number], f"f-{number}"), seq=1) + CONTENTS[number])
        for _ in range(chance.choice([0, 0, 0, 1, 5])):
            data[chance.randrange(min(300, len(data)))] = chance.randrange(256)
        end = chance.choice([len(data), len(data), chance.randrange(len(data))])
        position = 0
        while position < end:
            step = chance.choice([1, 100, 20_000])
            given.sink.feed(bytes(data[position : min(end, position + step)]))
            position += step
            if chance.random() < 0.01:
                await trio.sleep(0.01)
        if chance.random() < 0.7:
            given.sink.end()
        elif chance.random() < 0.7:
            given.sink.reset(0)

    def logic(self, subject: str, payload: bytes) -> None:
        """Answers some of the questions about a group's file."""
        up = self.world.upstream[-1]
        ask = decode(up.frame)
        if isinstance(ask, FileAck) and self.chance.random() < 0.7:
            answer = packet(FileAck(file_id=ask.file_id, code=self.chance.choice([0, 4004, 4402])))
            down = build_downstream(
                up.user_id, (up.conn_id,), "", "", 0, Action.DELIVER, 0, MsgType.FILE_ACK, answer, 0
            )
            self.world.down(down)


@pytest.mark.parametrize("seed", range(6))
async def test_random_files_leave_nothing_and_are_accounted_for(autojump_clock: Clock, seed: int) -> None:
    chance = random.Random(seed)
    store = MemoryFileStore(room=chance.choice([100_000, 10**9]))
    settings = FileSettings(patience=5, max_open_per_user=2, bytes_per_second=chance.choice([65_536, 10**9]))
    limits = LimitSettings(protocol_errors_per_minute=30)
    async with open_files(settings, store, limits=limits) as world:
        clients = Clients(world, chance)
        heard = world.hub.bus.subscribe(world.hub.upstream, clients.logic)
        async with trio.open_nursery() as nursery:
            for user in USERS:
                for _ in range(3):
                    nursery.start_soon(chance.choice([clients.chunks, clients.streams]), user)
        await trio.sleep(200)
        heard.close()
        metrics = world.hub.metrics
        assert metrics.faults == 0
        assert 4401 not in metrics.files_refused
        assert 4401 not in metrics.fetches_refused
        assert metrics.files_offered > 10
        assert metrics.files_sending == metrics.files_fetching == 0
