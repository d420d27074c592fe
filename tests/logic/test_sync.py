"""Sync: pages of a user's timeline, in order, that fit a frame."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.lowlevel

from gateway._framing import HEADER
from gateway.logic.settings import LogicSettings
from gateway.protocol.messages import SyncRequest, SyncResponse, encode
from gateway.protocol.types import MsgType
from tests.logic.world import World, open_world


async def fill(world: World, count: int, content: str = "x") -> None:
    alice = world.device(1)
    for i in range(count):
        alice.chat(f"m{i}", 2, content)
    await world.settle()


async def test_pages_by_limit(world: World) -> None:
    await fill(world, 25)
    bob = world.device(2)
    page = await bob.sync(0, 10)
    assert [chat.server_seq for chat in page.messages] == list(range(1, 11))
    assert (page.code, page.next_cursor, page.has_more) == (0, 10, True)
    page = await bob.sync(20, 10)
    assert [chat.server_seq for chat in page.messages] == list(range(21, 26))
    assert (page.next_cursor, page.has_more) == (25, False)
    assert not (await bob.sync(15, 10)).has_more
    assert (await bob.sync(14, 10)).has_more


async def test_nothing_new(world: World) -> None:
    await fill(world, 3)
    bob = world.device(2)
    assert await bob.sync(3) == SyncResponse(next_cursor=3)
    assert await world.device(9).sync(0) == SyncResponse()


@pytest.mark.parametrize("cursor", [4, 1_000_000, 2**63, 2**64 - 1])
async def test_a_cursor_from_another_life_is_told_where_the_timeline_ends(world: World, cursor: int) -> None:
    await fill(world, 3)
    assert await world.device(2).sync(cursor) == SyncResponse(next_cursor=3)


@pytest.mark.parametrize(("asked", "given"), [(0, 100), (1, 1), (150, 150), (65_535, 200)])
async def test_the_limit_is_capped(world: World, asked: int, given: int) -> None:
    await fill(world, 250)
    page = await world.device(2).sync(0, asked)
    assert len(page.messages) == given
    assert page.has_more


@pytest.mark.parametrize("size", [32_768, 20_000, 3_000, 100])
async def test_an_answer_fits_the_largest_frame(world: World, size: int) -> None:
    await fill(world, 30, "x" * size)
    bob = world.device(2)
    cursor, seen = 0, 0
    while True:
        page = await bob.sync(cursor, 200)
        assert len(encode(page, seq=2**63)) - HEADER <= 65_536
        assert page.messages
        seen += len(page.messages)
        cursor = page.next_cursor
        if not page.has_more:
            break
    assert seen == 30


async def test_the_largest_messages_with_the_widest_fields(path: Path) -> None:
    async with open_world(path, LogicSettings(content_bytes=49_152)) as world:
        top = 2**63 - 1
        alice, bob = world.device(top), world.device(top - 1)
        for i in range(3):
            alice.chat(f"{i}" * 64, top - 1, "☃" * 16_384, sent_at=top)
        await world.settle()
        for page in [await bob.sync(cursor) for cursor in range(3)]:
            assert len(page.messages) == 1
            assert len(encode(page, seq=2**64 - 1, timestamp=2**64 - 1)) - HEADER <= 65_536
        for i in range(300):
            alice.chat(f"{i:064}", top - 1, "", sent_at=top)
        await world.settle()
        page = await bob.sync(3, 200)
        assert len(page.messages) == 200
        assert len(encode(page, seq=2**64 - 1, timestamp=2**64 - 1)) - HEADER <= 65_536


async def test_own_messages_are_in_the_timeline(world: World) -> None:
    alice, bob = world.device(1), world.device(2)
    alice.chat("a", 2)
    await world.settle()
    bob.chat("b", 1)
    await world.settle()
    assert [(chat.msg_id, chat.from_user) for chat in await alice.history()] == [("a", 1), ("b", 2)]
    assert await alice.history() == await bob.history()


async def test_sync_and_live_deliveries_together_leave_no_hole(world: World) -> None:
    """A user logs in while messages are coming: what was stored before the claim comes by Sync, the rest live."""
    alice, bob = world.device(1), world.device(2)
    for i in range(300):
        alice.chat(f"m{i}", 2)
        if i % 20 == 0:
            await trio.lowlevel.checkpoint()
        if i == 100:
            await bob.online()
            bob.say(SyncRequest(cursor=0, limit=200), MsgType.SYNC)
    await world.settle()
    live = [chat.server_seq for chat in bob.chats]
    synced = [chat.server_seq for page in bob.of(SyncResponse) for chat in page.messages]
    assert live == list(range(live[0], 301))
    assert synced == list(range(1, len(synced) + 1))
    assert len(synced) >= live[0] - 1


async def test_bounded(path: Path) -> None:
    async with open_world(path, LogicSettings(max_syncs=5)) as world:
        bob = world.device(2)
        for _ in range(50):
            bob.say(SyncRequest(cursor=7), MsgType.SYNC)
        await world.settle()
        answers = bob.of(SyncResponse)
        assert len(answers) == 50
        refused = [each for each in answers if each.code == 4402]
        assert len(refused) >= 30
        assert all(each.next_cursor == 7 and not each.has_more for each in refused)
