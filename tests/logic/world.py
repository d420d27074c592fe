"""A world for Logic: a memory bus, locations, a real SQLite file, and devices on access nodes that exist only here."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import trio

from gateway._framing import HEADER, Frame, build_ack, build_chat, build_upstream, parse_downstream, parse_frame
from gateway.backends.memory import MemoryBus, MemoryLocationStore
from gateway.core.ports import Bus, Location, LocationStore, LoginPolicy
from gateway.logic.service import LogicService
from gateway.logic.settings import LogicSettings
from gateway.logic.store import Store
from gateway.logic.store_sqlite import SqliteStore
from gateway.protocol.messages import (
    ChatMessage,
    ErrorMessage,
    Message,
    MessageAck,
    Signal,
    SyncRequest,
    SyncResponse,
    decode,
    packet,
)
from gateway.protocol.subjects import Subjects
from gateway.protocol.types import AckStatus, MsgType

PATIENCE = 20.0
M = TypeVar("M", bound=Message)

_conn_ids = itertools.count(1)


class Device:
    """One connection of a user: what it says goes upstream, what is sent to it is kept."""

    def __init__(self, world: World, user: int, name: str, node: str) -> None:
        self.world = world
        self.user = user
        self.name = name
        self.node = node
        self.conn_id = next(_conn_ids)
        self.received: list[tuple[int, Message]] = []
        """(Packet.seq, message), in the order they came."""
        self._seqs = itertools.count(1)

    @property
    def location(self) -> Location:
        return Location(
            user_id=self.user,
            access_node=self.node,
            conn_id=self.conn_id,
            device_id=self.name,
            platform="test",
            login_time=1,
        )

    async def online(self) -> Device:
        await self.world.locations.claim(self.location, LoginPolicy.MULTI_DEVICE)
        return self

    async def offline(self) -> None:
        await self.world.locations.release(self.location)

    def up(self, frame: Frame) -> bool:
        payload = build_upstream(self.node, self.conn_id, self.user, self.name, "test", 1_700_000_000_000, frame)
        return self.world.bus.publish(self.world.subjects.upstream, payload)

    def chat(
        self, msg_id: str, to: int = 0, content: str = "hello", *, group: int = 0, from_user: int = 0, sent_at: int = 5
    ) -> int:
        """Send a Message; its seq."""
        seq = next(self._seqs)
        frame = build_chat(seq, 0, msg_id, from_user, to, content, 0, sent_at, group, 0)
        assert self.up(parse_frame(MsgType.MESSAGE, frame[HEADER:]))
        return seq

    def ack(self, msg_id: str, status: AckStatus, server_seq: int) -> None:
        frame = build_ack(next(self._seqs), 0, msg_id, status, 0, server_seq, 5)
        assert self.up(parse_frame(MsgType.MESSAGE_ACK, frame[HEADER:]))

    def say(self, message: Message, msg_type: MsgType) -> int:
        seq = next(self._seqs)
        assert self.up(parse_frame(msg_type, packet(message, seq=seq)))
        return seq

    def signal(
        self, *, to: int = 0, group: int = 0, kind: str = "typing", data: bytes = b"", from_user: int = 0
    ) -> int:
        return self.say(Signal(to_user=to, group_id=group, kind=kind, data=data, from_user=from_user), MsgType.SIGNAL)

    def of(self, kind: type[M]) -> list[M]:
        """What was received of one kind."""
        return [message for _, message in self.received if isinstance(message, kind)]

    @property
    def chats(self) -> list[ChatMessage]:
        return self.of(ChatMessage)

    @property
    def acks(self) -> list[MessageAck]:
        return self.of(MessageAck)

    async def sync(self, cursor: int = 0, limit: int = 100) -> SyncResponse:
        """One Sync, answered."""
        seq = self.say(SyncRequest(cursor=cursor, limit=limit), MsgType.SYNC)
        await self.world.settle()
        answers = [each for at, each in self.received if at == seq and isinstance(each, SyncResponse)]
        assert len(answers) == 1
        return answers[0]

    async def history(self, cursor: int = 0, limit: int = 100) -> list[ChatMessage]:
        """All that Sync has after `cursor`."""
        found: list[ChatMessage] = []
        while True:
            page = await self.sync(cursor, limit)
            assert page.code == 0
            found += page.messages
            cursor = page.next_cursor
            if not page.has_more:
                return found


class World:
    def __init__(
        self, bus: Bus, locations: LocationStore, store: Store, service: LogicService, subjects: Subjects
    ) -> None:
        self.bus = bus
        self.locations = locations
        self.store = store
        self.service = service
        self.subjects = subjects
        self.devices: dict[int, Device] = {}
        bus.subscribe("im.access.*.downstream", self._downstream)
        self.envelopes: list[tuple[str, Sequence[int]]] = []
        self.strays = 0
        self.expiries: list[int] = []

    def device(self, user: int, name: str = "phone", node: str = "node-1") -> Device:
        device = Device(self, user, name, node)
        self.devices[device.conn_id] = device
        return device

    async def settle(self) -> None:
        """Everything said so far is done and its answers have arrived."""
        with trio.fail_after(PATIENCE):
            await self.bus.drain()
            await self.service.drain()
            await self.bus.drain()

    def _downstream(self, subject: str, payload: bytes) -> None:
        down = parse_downstream(payload)
        self.envelopes.append((subject, down.conn_ids))
        self.expiries.append(down.expires_at)
        message = decode(down.frame)
        for conn_id in down.conn_ids:
            device = self.devices.get(conn_id)
            if device is None or subject != self.subjects.downstream(device.node) or device.user != down.user_id:
                self.strays += 1
            else:
                device.received.append((down.frame.seq, message))


@asynccontextmanager
async def open_world(
    kept: Path | Store,
    settings: LogicSettings | None = None,
    *,
    bus: Bus | None = None,
    locations: LocationStore | None = None,
    wrap: Callable[[Store], Store] = lambda store: store,
    busy: float = 5.0,
    durable: bool = False,
) -> AsyncIterator[World]:
    """Everything running on a SQLite file or a store of yours; closed in the order a node closes it."""
    bus = MemoryBus() if bus is None else bus
    locations = MemoryLocationStore() if locations is None else locations
    subjects = Subjects()
    async with contextlib.AsyncExitStack() as stack, trio.open_nursery() as nursery:
        opened: Store
        if isinstance(kept, Path):
            opened = await stack.enter_async_context(SqliteStore.open(kept, busy=busy))
        else:
            opened = kept
        store = wrap(opened)
        service = LogicService(bus, locations, store, settings, subjects=subjects, durable=durable)
        await nursery.start(bus.run)
        await nursery.start(service.run)
        world = World(bus, locations, store, service, subjects)
        yield world
        assert world.strays == 0
        nursery.cancel_scope.cancel()


def errors(device: Device) -> list[ErrorMessage]:
    return device.of(ErrorMessage)
