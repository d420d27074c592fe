"""The client against a real node with the embedded Logic, over every link."""

from __future__ import annotations

import functools
import runpy
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from gateway.client import (
    Client,
    ClientSettings,
    Delivery,
    Receipt,
    Refused,
    Rejected,
    Signal,
    State,
    StateChange,
    Synced,
    connect,
)
from gateway.core.settings import DrainSettings, HeartbeatSettings, LimitSettings
from gateway.logic.groups import create_group
from gateway.logic.settings import STORE_FILE
from gateway.protocol.codes import Code
from gateway.protocol.types import AckStatus
from tests.client.server import next_notice, take
from tests.support.node import LINKS, LinkKind, RunningNode, client_tls, open_running

ANNA, BO = 1001, 1002
QUICK = ClientSettings(backoff_base=0.02, backoff_cap=0.2)
FREELY = LimitSettings(message_rate=100_000, message_burst=100_000)

either = pytest.mark.parametrize("kind", ["tcp", "ws", "quic", "https"])


@asynccontextmanager
async def user(node: RunningNode, user_id: int, device: str = "phone", **options: Any) -> AsyncIterator[Client]:
    defaults: dict[str, Any] = {
        "token": functools.partial(node.token, user_id),
        "device_id": device,
        "ssl_context": client_tls() if node.kind not in ("tcp", "ws") else None,
        "settings": QUICK,
    }
    with trio.fail_after(60):
        async with connect(options.pop("url", node.url), **(defaults | options)) as client:
            yield client


async def receipt(client: Client, status: AckStatus) -> Receipt:
    while (found := await next_notice(client, Receipt)).status is not status:
        pass
    return found


def texts(deliveries: list[Delivery]) -> list[str]:
    return [each.content for each in deliveries]


@pytest.mark.parametrize("kind", LINKS)
async def test_two_users_talk_and_see_how_far_it_came(kind: LinkKind, tmp_path: Path) -> None:
    async with open_running(tmp_path, kind) as node, user(node, ANNA) as anna, user(node, BO) as bo:
        stored = await anna.send("hej Bo", to_user=BO)
        assert stored is not None
        assert stored.status is AckStatus.STORED
        (heard,) = await take(bo, 1)
        assert (heard.content, heard.from_user, heard.to_user) == ("hej Bo", ANNA, BO)
        assert (await receipt(anna, AckStatus.DELIVERED)).msg_id == heard.msg_id
        await bo.mark_read(heard)
        assert (await receipt(anna, AckStatus.READ)).msg_id == heard.msg_id
        await bo.send("hej Anna", to_user=ANNA)
        assert texts(await take(anna, 1)) == ["hej Anna"]
        assert anna.signal(to_user=BO, kind="typing")
        assert (await next_notice(bo, Signal)).from_user == ANNA
        # Own messages have places in the own timeline: known, not asked for, not handed out.
        for client in (anna, bo):
            assert client.cursor == 2
            assert client.statistics().buffered == 0


@either
async def test_what_was_missed_comes_once(kind: LinkKind, tmp_path: Path) -> None:
    async with open_running(tmp_path, kind, limits=FREELY) as node, user(node, ANNA) as anna:
        async with user(node, BO) as bo:
            await anna.send("one", to_user=BO)
            assert texts(await take(bo, 1)) == ["one"]
            cursor = bo.cursor
        for number in range(130):
            await anna.send(f"missed {number}", to_user=BO, wait="accepted")
        await anna.send("last", to_user=BO)
        async with user(node, BO, cursor=cursor) as bo:
            found = await take(bo, 131)
            assert texts(found) == [*(f"missed {number}" for number in range(130)), "last"]
            assert all(each.missed for each in found)
            assert (await next_notice(bo, Synced)).missed == 131
            await anna.send("now", to_user=BO)
            assert [(each.content, each.missed) for each in await take(bo, 1)] == [("now", False)]
            cursor = bo.cursor
        async with user(node, BO, cursor=cursor) as bo:
            assert (await next_notice(bo, Synced)).missed == 0


@either
async def test_another_device_sees_both_sides(kind: LinkKind, tmp_path: Path) -> None:
    async with (
        open_running(tmp_path, kind) as node,
        user(node, ANNA, "phone") as phone,
        user(node, ANNA, "laptop") as laptop,
        user(node, BO) as bo,
    ):
        await phone.send("from the phone", to_user=BO)
        (copy,) = await take(laptop, 1)
        assert (copy.from_user, copy.to_user, copy.content) == (ANNA, BO, "from the phone")
        await bo.send("answer", to_user=ANNA)
        assert texts(await take(phone, 1)) == texts(await take(laptop, 1)) == ["answer"]


async def test_a_group(tmp_path: Path) -> None:
    create_group(tmp_path / STORE_FILE, 7, [ANNA, BO])
    async with open_running(tmp_path) as node, user(node, ANNA) as anna, user(node, BO) as bo:
        await anna.send("all", group_id=7)
        (heard,) = await take(bo, 1)
        assert (heard.group_id, heard.from_user) == (7, ANNA)
        with pytest.raises(Rejected):
            await anna.send("who", group_id=8)


@either
async def test_a_second_login_of_the_device_takes_its_place(kind: LinkKind, tmp_path: Path) -> None:
    async with open_running(tmp_path, kind) as node, user(node, ANNA) as first, user(node, ANNA) as second:
        with pytest.raises(Refused) as caught:
            await first.__anext__()
        assert caught.value.code == Code.REPLACED_BY_SAME_DEVICE
        assert second.state is State.ONLINE


@pytest.mark.parametrize("kind", LINKS)
async def test_a_refused_token_is_told(kind: LinkKind, tmp_path: Path) -> None:
    async with open_running(tmp_path, kind) as node:
        with pytest.raises(Refused, match="4100 token_invalid") as caught:
            async with user(node, ANNA, token="rubbish"):
                pass
        assert caught.value.code == Code.TOKEN_INVALID


@either
async def test_an_expiring_token_is_renewed(kind: LinkKind, tmp_path: Path) -> None:
    lifetimes = iter([1.2, 3600])
    async with open_running(tmp_path, kind) as node, user(node, BO) as bo:

        def fresh() -> str:
            return node.token(ANNA, ttl=next(lifetimes))

        async with user(node, ANNA, token=fresh) as anna:
            while (change := await next_notice(anna, StateChange)).state is not State.WAITING:
                pass
            assert change.code == Code.TOKEN_EXPIRED
            await anna.send("still here", to_user=BO)
            assert texts(await take(bo, 1)) == ["still here"]


@either
async def test_a_program_that_takes_nothing_is_not_thrown_out(kind: LinkKind, tmp_path: Path) -> None:
    """More than the node keeps for a slow reader: the client reads on, forgets, and fetches later."""
    limits = LimitSettings(message_rate=1e6, message_burst=1_000_000, outbox_bytes=70_000)
    settings = ClientSettings(buffered_deliveries=20)
    async with (
        open_running(tmp_path, kind, limits=limits) as node,
        user(node, ANNA) as anna,
        user(node, BO, settings=settings) as bo,
    ):
        for _ in range(20):
            for _ in range(30):
                await anna.send("x" * 500, to_user=BO, wait=None)
            await anna.wait_acknowledged()
        assert bo.statistics().buffered <= 20
        assert [each.server_seq for each in await take(bo, 600)] == list(range(1, 601))
        assert bo.statistics().logins == 1


@either
async def test_heartbeats_keep_an_idle_connection(kind: LinkKind, tmp_path: Path) -> None:
    heartbeat = HeartbeatSettings(interval=0.1, timeout=0.5)
    async with open_running(tmp_path, kind, heartbeat=heartbeat) as node, user(node, ANNA) as anna:
        await trio.sleep(1.2)
        statistics = anna.statistics()
        assert (statistics.state, statistics.logins) == (State.ONLINE, 1)
        assert 0 < statistics.round_trip < 10


@pytest.mark.parametrize("manner", ["drained", "cut off"])
@either
async def test_a_node_that_restarts_loses_and_doubles_nothing(kind: LinkKind, manner: str, tmp_path: Path) -> None:
    """Both users go on sending while the node goes and comes back on the same port, twice."""
    section = {"tcp": "tcp", "ws": "websocket", "quic": "quic", "https": "quic"}[kind]
    drain = DrainSettings(timeout=3, reconnect_after=0.05, jitter=0.1)
    ports = {"port": 0}
    running: list[RunningNode] = []
    count = 60

    async def nodes() -> None:
        for _ in range(3):
            sections: dict[str, Any] = {"limits": FREELY, "drain": drain, section: dict(ports)}
            async with open_running(tmp_path, kind, **sections) as node:
                ports["port"] = int(node.node.addresses[section].rpartition(":")[2])
                running.append(node)
                rounds = len(running)
                if rounds == 3:
                    await finished.wait()
                    return
                with trio.fail_after(60):
                    while min(sent.values()) < rounds * count // 3:
                        await trio.sleep(0.01)
                if manner == "drained":
                    await node.node.drain()

    async def write(client: Client, to_user: int) -> None:
        for number in range(count):
            while number >= len(running) * count // 3 + 5:  # some into the change, the others after it
                await trio.sleep(0.01)
            await client.send(f"{number}", to_user=to_user)
            sent[to_user] += 1

    async def read(client: Client, user_id: int) -> None:
        async for delivery in client:
            got[user_id].append(delivery.content)

    finished = trio.Event()
    sent = {ANNA: 0, BO: 0}
    got: dict[int, list[str]] = {ANNA: [], BO: []}
    with trio.fail_after(90):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(nodes)
            while not running:
                await trio.sleep(0.01)
            url, first = running[0].url, running[0]
            async with user(first, ANNA, url=url) as anna, user(first, BO, url=url) as bo:
                async with trio.open_nursery() as talk:
                    talk.start_soon(read, anna, ANNA)
                    talk.start_soon(read, bo, BO)
                    async with trio.open_nursery() as writing:
                        writing.start_soon(write, anna, BO)
                        writing.start_soon(write, bo, ANNA)
                    while min(map(len, got.values())) < count:
                        await trio.sleep(0.01)
                    talk.cancel_scope.cancel()
                assert anna.statistics().logins >= 3
            finished.set()
    expected = [f"{number}" for number in range(count)]
    assert got == {ANNA: expected, BO: expected}


async def test_the_example_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example = runpy.run_path(str(Path(__file__).parents[2] / "examples" / "chat_client.py"))
    async with open_running(tmp_path) as node, user(node, ANNA) as anna, trio.open_nursery() as nursery:
        nursery.start_soon(example["main"], node.url, ANNA, node.token(2001))
        assert texts(await take(anna, 1)) == ["hello, say something"]
        await anna.send("hej", to_user=2001)
        assert texts(await take(anna, 1)) == ["you said: hej"]
        await receipt(anna, AckStatus.READ)
        nursery.cancel_scope.cancel()
    assert "online" in capsys.readouterr().out
