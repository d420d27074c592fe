"""Two nodes, Logic as a service of its own, NATS and Redis: one gateway, also while NATS is away (threat 36)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trio

from gateway.backends.nats_bus import NatsBus
from gateway.config import ConfigError, Flag, load
from gateway.core.ports import LoginPolicy
from gateway.core.settings import LoginSettings
from gateway.logic.settings import LogicSettings
from gateway.node import open_node
from gateway.protocol.codes import Code
from gateway.protocol.types import AckStatus
from tests.backends.nats import PATIENCE, settings, until
from tests.backends.nats_world import ANNA, BO, Cluster, user
from tests.backends.test_redis_nodes import kicked
from tests.client.server import take
from tests.support.nats_server import nats_server
from tests.support.node import test_config
from tests.support.redis_server import redis_server

REACHED_LOGIC = (AckStatus.STORED, AckStatus.DELIVERED)  # a loss may let the later news come first


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    folder = tmp_path / "nats"
    folder.mkdir()
    with redis_server() as redis:
        async with nats_server(folder) as nats:
            yield Cluster(nats, redis.port, tmp_path)


async def test_a_chat_across_nodes(cluster: Cluster) -> None:
    with trio.fail_after(PATIENCE):
        async with AsyncExitStack() as stack:
            enter = stack.enter_async_context
            first, second = await enter(cluster.node("node-1")), await enter(cluster.node("node-2"))
            await enter(cluster.logic("logic-1"))
            anna, bo = await enter(user(first, ANNA)), await enter(user(second, BO))
            stored = await anna.send("hej Bo", to_user=BO)
            assert stored is not None
            assert stored.status is AckStatus.STORED
            assert [each.content for each in await take(bo, 1)] == ["hej Bo"]
            await bo.send("hej Anna", to_user=ANNA)
            assert [each.content for each in await take(anna, 1)] == ["hej Anna"]


@pytest.mark.parametrize(
    ("policy", "device", "code"),
    [
        (LoginPolicy.MULTI_DEVICE, "phone", Code.REPLACED_BY_SAME_DEVICE),
        (LoginPolicy.SINGLE_DEVICE, "tablet", Code.KICKED_BY_POLICY),
        (LoginPolicy.SINGLE_PER_PLATFORM, "tablet", Code.KICKED_BY_POLICY),
    ],
)
async def test_a_login_displaces_on_another_node_also_when_nats_was_away_meanwhile(
    cluster: Cluster, policy: LoginPolicy, device: str, code: Code
) -> None:
    login = LoginSettings(policy=policy, backend_timeout=PATIENCE)
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(cluster.node("node-1", login=login))
        second = await stack.enter_async_context(cluster.node("node-2", login=login))
        older = await first.seated(ANNA, "phone")
        newer = await second.seated(ANNA, device)
        assert await kicked(older) == code
        await cluster.nats.kill()
        newest = await first.seated(ANNA, "phone")
        await cluster.nats.start()
        assert await kicked(newer) == code
        (location,) = (await second.hub.locations.lookup([ANNA]))[ANNA]
        assert (location.access_node, location.device_id) == ("node-1", "phone")
        for peer in (older, newer, newest):
            await peer.hang_up()


async def test_t36_nothing_stored_is_lost_while_nats_is_killed_and_restarted(cluster: Cluster) -> None:
    with trio.fail_after(60):
        async with AsyncExitStack() as stack:
            enter = stack.enter_async_context
            first, second = await enter(cluster.node("node-1")), await enter(cluster.node("node-2"))
            for name in ("logic-1", "logic-2"):
                await enter(cluster.logic(name))
            anna, bo = await enter(user(first, ANNA)), await enter(user(second, BO))
            heard: list[str] = []
            stored: set[str] = set()

            async def send(text: str) -> None:
                receipt = await anna.send(text, to_user=BO)
                if receipt is not None and receipt.status in REACHED_LOGIC:
                    stored.add(text)

            async def listen() -> None:
                while True:
                    heard.extend(each.content for each in await take(bo, 1))

            async def interrupt() -> None:
                await trio.sleep(0.3)
                await cluster.nats.kill()
                await until(lambda: first.node.not_ready() == "the bus cannot be reached")
                await trio.sleep(0.5)
                await cluster.nats.start()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(listen)
                async with trio.open_nursery() as work:
                    work.start_soon(interrupt)
                    for i in range(200):
                        work.start_soon(send, str(i))
                        await trio.sleep(0.005)
                assert len(stored) == 200
                await until(lambda: len(heard) >= 200)
                nursery.cancel_scope.cancel()
            assert sorted(heard, key=int) == [str(i) for i in range(200)]
            for node in (first, second):
                assert node.hub.metrics.accepted == 1
                assert not node.node.not_ready()


async def test_logic_may_stay_embedded(cluster: Cluster) -> None:
    with trio.fail_after(PATIENCE):
        async with AsyncExitStack() as stack:
            enter = stack.enter_async_context
            embedded = LogicSettings(embedded=True)
            first = await enter(cluster.node("node-1", logic=embedded))
            second = await enter(cluster.node("node-2"))
            anna, bo = await enter(user(first, ANNA)), await enter(user(second, BO))
            await bo.send("hej", to_user=ANNA)
            assert [each.content for each in await take(anna, 1)] == ["hej"]


async def test_nats_alone_is_refused(tmp_path: Path) -> None:
    config = test_config(tmp_path, "tcp", nats=settings("nats://127.0.0.1:4222"))
    with pytest.raises(ConfigError, match=r"nats\.servers: needs redis too") as refusal:
        async with open_node(config):
            pass
    assert len(refusal.value.problems) == 1


async def test_nats_with_locations_of_ones_own_is_not(tmp_path: Path) -> None:
    from gateway.backends.memory import MemoryLocationStore

    config = test_config(tmp_path, "tcp", nats=settings("nats://127.0.0.1:4222"))
    async with open_node(config, locations=MemoryLocationStore()) as node:
        assert isinstance(node.bus, NatsBus)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("nats.servers", "http://127.0.0.1:1", "must be like nats://"),
        ("nats.servers", "nats://u:s3cret@127.0.0.1:1", "without credentials"),
        ("nats.password", "s3cret", "go together"),
        ("nats.nkey_file", "/nowhere/nkey", "cannot be read"),
        ("nats.credentials_file", "/nowhere/creds", "cannot be read"),
        ("nats.tls.ca", "/nowhere/ca", "cannot be used"),
        ("nats.tls.certificate", "/nowhere/certificate", "cannot be used"),
    ],
)
def test_what_cannot_work_is_said_in_one_line(name: str, value: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as refusal:
        load(environment={}, flags=[Flag(f"--set {name}", name, value)])
    assert len(refusal.value.problems) == 1
    assert "s3cret" not in str(refusal.value)


def test_one_kind_of_credentials_only() -> None:
    texts = {"nats.user": "u", "nats.password": "p", "nats.token": "t"}
    with pytest.raises(ConfigError, match=r"nats\.token: cannot be used with nats\.user"):
        load(environment={}, flags=[Flag(f"--set {name}", name, text) for name, text in texts.items()])
