"""Logic and a stream: nothing of it is lost or turned away, whatever the store does; settled when it is answered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import trio

from gateway._framing import build_chat, build_upstream, parse_frame
from gateway.backends.memory import MemoryBus
from gateway.logic.function import FunctionLogic, Incoming, Stored
from gateway.logic.push import Push
from gateway.logic.service import FIRST_TRY
from gateway.logic.settings import LogicSettings
from gateway.logic.store import Outcome, Post, Store, StoreFailed, Write
from gateway.protocol.types import AckStatus, MsgType
from tests.logic.test_failures import Moody, outcomes
from tests.logic.world import PATIENCE, Device, World, open_world

STORED, REJECTED = AckStatus.STORED, AckStatus.REJECTED


class Allergic(Moody):
    """A Store that one message breaks."""

    async def write(self, writes: Sequence[Write], now_ms: int) -> list[Outcome]:
        if any(isinstance(each, Post) and each.content == "poison" for each in writes):
            raise KeyError("a bug")
        return await super().write(writes, now_ms)


def entrust(device: Device, *msg_ids: str, content: str = "hello") -> None:
    """Have the stream keep messages of a device, as its node does."""
    bus = device.world.bus
    assert isinstance(bus, MemoryBus)
    for msg_id in msg_ids:
        frame = build_chat(1, 0, msg_id, 0, 2, content, 0, 5, 0, 0)
        envelope = build_upstream(
            device.node, device.conn_id, device.user, device.name, "test", 1, parse_frame(MsgType.MESSAGE, frame[6:])
        )
        assert bus.publish_durable("im.logic.durable", envelope, f"{device.user}.{msg_id}", lambda _: None)


def held(world: World) -> int:
    """Messages in the stream, taken or not."""
    assert isinstance(world.bus, MemoryBus)
    return sum(stream.messages for stream in world.bus._streams.values())


async def until(true: Callable[[], bool]) -> None:
    with trio.fail_after(PATIENCE):
        while not true():
            await trio.sleep(0.01)


async def test_stored_answered_and_settled_in_order(path: Path) -> None:
    async with open_world(path, durable=True) as world:
        alice, bob = world.device(1), await world.device(2).online()
        names = [f"m{number}" for number in range(200)]
        entrust(alice, *names)
        await until(lambda: len(alice.acks) == 200 and held(world) == 0)
        assert outcomes(alice) == [(name, STORED, 0) for name in names]
        assert [chat.msg_id for chat in bob.chats] == [chat.msg_id for chat in await bob.history(limit=200)] == names
        assert all(account.balanced for account in world.service.books())


async def test_a_failing_store_is_waited_for_and_others_are_told_at_once(path: Path) -> None:
    moods: list[Moody] = []

    def wrap(store: Store) -> Store:
        moods.append(Moody(store))
        return moods[0]

    async with open_world(path, wrap=wrap, durable=True) as world:
        alice, bob = world.device(1), await world.device(2).online()
        moods[0].error = StoreFailed("gone")
        names = [f"m{number}" for number in range(300)]
        entrust(alice, *names)
        await until(lambda: world.service.statistics().store_failures > 2)
        assert alice.acks == []
        assert held(world) == 300
        assert all(account.balanced for account in world.service.books())
        moods[0].error = None
        await until(lambda: len(alice.acks) == 300 and held(world) == 0)
        assert outcomes(alice) == [(name, STORED, 0) for name in names]
        assert [chat.msg_id for chat in bob.chats] == names
        assert all(account.balanced for account in world.service.books())


async def test_what_is_sent_again_meanwhile_is_not_told_to_be_refused(path: Path) -> None:
    """It comes over the bus, and fails; but the stream has it, and its sender was told Accepted."""
    moods: list[Moody] = []

    def wrap(store: Store) -> Store:
        moods.append(Moody(store))
        return moods[0]

    async with open_world(path, LogicSettings(max_waiting=4), wrap=wrap, durable=True) as world:
        alice = world.device(1)
        moods[0].error = StoreFailed("gone")
        entrust(alice, "m")
        await until(lambda: world.service.statistics().store_failures > 0)
        for _ in range(20):  # some fail, some find no room
            alice.chat("m", 2)
        await world.bus.drain()
        await until(lambda: world.service.statistics().rejected == 20)
        assert alice.acks == []
        moods[0].error = None
        alice.chat("m", 2)
        await until(lambda: len(alice.acks) == 2)
        assert outcomes(alice) == [("m", STORED, 0)] * 2
        assert all(account.balanced for account in world.service.books())


async def test_a_store_that_comes_back_is_asked_for_little_at_first(path: Path) -> None:
    sizes: list[int] = []
    moods: list[Moody] = []

    class Measured(Moody):
        async def write(self, writes: Sequence[Write], now_ms: int) -> list[Outcome]:
            outcomes = await super().write(writes, now_ms)
            sizes.append(len(writes))
            return outcomes

    def wrap(store: Store) -> Store:
        moods.append(Measured(store))
        return moods[0]

    async with open_world(path, wrap=wrap, durable=True) as world:
        alice = world.device(1)
        moods[0].error = StoreFailed("gone")
        entrust(alice, *(f"m{number}" for number in range(1_000)))
        await until(lambda: world.service.statistics().store_failures > 1 and held(world) == 1_000)
        moods[0].error = None
        await until(lambda: len(alice.acks) == 1_000)
        assert sizes[0] <= FIRST_TRY
        assert max(sizes) <= world.service._settings.commit_messages


async def test_one_that_breaks_the_store_is_found_among_the_innocent(path: Path) -> None:
    async with open_world(path, wrap=Allergic, durable=True) as world:
        alice, bob = world.device(1), await world.device(2).online()
        entrust(alice, *(f"a{number}" for number in range(20)))
        entrust(alice, "bad", content="poison")
        entrust(alice, *(f"b{number}" for number in range(20)))
        await until(lambda: len(alice.acks) == 41 and held(world) == 0)
        innocent = [f"a{number}" for number in range(20)] + [f"b{number}" for number in range(20)]
        assert [(msg_id, code) for msg_id, status, code in outcomes(alice) if status == REJECTED] == [("bad", 4401)]
        assert [chat.msg_id for chat in bob.chats] == innocent
        alice.chat("plain", 2)  # and not only out of a stream
        await world.settle()
        assert outcomes(alice)[-1] == ("plain", STORED, 0)


async def test_it_is_never_turned_away_for_lack_of_room(path: Path) -> None:
    async with open_world(path, LogicSettings(max_waiting=5), durable=True) as world:
        alice = world.device(1)
        entrust(alice, *(f"m{number}" for number in range(100)))
        await until(lambda: len(alice.acks) == 100)
        assert {status for _, status, _ in outcomes(alice)} == {STORED}


@pytest.mark.parametrize("payload", [b"junk", b""])
async def test_what_is_no_message_is_counted_and_settled(path: Path, payload: bytes) -> None:
    async with open_world(path, durable=True) as world:
        assert isinstance(world.bus, MemoryBus)
        assert world.bus.publish_durable("im.logic.durable", payload, "1.junk", lambda _: None)
        alice = world.device(1)
        entrust(alice, "too-long", content="x" * 40_000)
        entrust(alice, "good")
        await until(lambda: held(world) == 0 and len(alice.acks) == 2)
        assert outcomes(alice) == [("too-long", REJECTED, 4004), ("good", STORED, 0)]
        assert world.service.statistics().malformed == 1
        assert all(account.balanced for account in world.service.books())


class Running(MemoryBus):
    """A bus that outlives two Logics: `run` by whoever made it, only lived with by them."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        if self.healthy:
            task_status.started()
            await trio.sleep_forever()
        await super().run(task_status=task_status)


async def test_what_a_cancelled_logic_held_comes_to_the_next(path: Path) -> None:
    bus = Running()
    moods: list[Moody] = []

    def wrap(store: Store) -> Store:
        moods.append(Moody(store))
        moods[-1].error = StoreFailed("gone")
        return moods[-1]

    async with trio.open_nursery() as nursery:
        await nursery.start(bus.run)
        async with open_world(path, wrap=wrap, durable=True, bus=bus) as first:
            alice = first.device(1)
            entrust(alice, "m")
            await until(lambda: first.service.statistics().store_failures > 0)
        async with open_world(path, durable=True, bus=bus) as second:
            second.devices[alice.conn_id] = alice
            await until(lambda: len(alice.acks) > 0 and held(second) == 0)
            assert ("m", STORED, 0) in outcomes(alice)
        nursery.cancel_scope.cancel()


async def test_functions_take_from_the_stream_too(path: Path) -> None:
    """Settled when the function has returned; when it is cancelled meanwhile, another gets it."""
    async with open_world(path) as world, trio.open_nursery() as nursery:
        world.service.part()
        alice = world.device(1)
        seen: list[str] = []
        hang = True

        async def handle(incoming: Incoming) -> Stored:
            seen.append(incoming.message.msg_id)
            if hang:
                await trio.sleep_forever()
            return Stored(server_seq=len(seen))

        def logic() -> FunctionLogic:
            push = Push(world.bus, world.locations, world.subjects)
            return FunctionLogic(world.bus, push, world.subjects, handle, durable=True)

        with trio.CancelScope() as scope:
            async with trio.open_nursery() as first:
                await first.start(logic().run)
                entrust(alice, *(f"m{number}" for number in range(300)))
                await until(lambda: seen == ["m0"])
                scope.cancel()
        assert held(world) == 300
        hang = False
        await nursery.start(logic().run)
        await until(lambda: held(world) == 0)
        assert seen == ["m0", *(f"m{number}" for number in range(300))]
        await world.bus.drain()
        assert [ack.status for ack in alice.acks] == [STORED] * 300
        nursery.cancel_scope.cancel()
