"""`nats.prefix`: two gateways on one NATS (and one Redis) that do not hear each other."""

from __future__ import annotations

import functools
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trio

from gateway.backend import open_backend
from gateway.backends.settings_redis import RedisSettings
from gateway.cli.logic import open_logic
from gateway.client import connect
from gateway.config import Config, ConfigError, Flag, load
from gateway.node import open_node
from gateway.protocol.messages import ChatMessage, Event
from gateway.protocol.types import AckStatus
from tests.backends.nats import PATIENCE, running_bus, settings, until
from tests.client.server import take
from tests.contracts.bus import Inbox
from tests.support.nats_server import nats_server
from tests.support.node import RunningNode, test_config
from tests.support.redis_server import redis_server

ANNA, BO = 1001, 1002


async def test_two_gateways_on_one_nats_do_not_hear_each_other(tmp_path: Path) -> None:
    """The same node id, the same users: only the prefixes differ."""
    nats_folder = tmp_path / "nats"
    nats_folder.mkdir()
    with redis_server() as redis, trio.fail_after(PATIENCE * 2):
        async with AsyncExitStack() as stack:
            enter = stack.enter_async_context
            nats = await enter(nats_server(nats_folder))
            world = await enter(running_bus(settings(nats.url)))
            heard: dict[str, Inbox] = {}
            for prefix in ("red", "blue"):
                heard[prefix] = Inbox()
                for pattern in ("logic.upstream", "access.*.downstream", "user.*.event"):
                    world.subscribe(f"{prefix}.{pattern}", heard[prefix])

            def config(prefix: str) -> Config:
                folder = tmp_path / prefix
                folder.mkdir(exist_ok=True)
                return test_config(
                    folder,
                    "tcp",
                    nats=settings(nats.url, prefix=prefix),
                    redis=RedisSettings(port=redis.port, prefix=prefix),
                )

            async def gateway(prefix: str) -> RunningNode:
                node = await enter(open_node(config(prefix)))
                nursery = await enter(trio.open_nursery())
                await nursery.start(node.run)
                stack.callback(nursery.cancel_scope.cancel)
                await until(lambda: not node.not_ready())
                return RunningNode(node, "tcp", nursery)

            logic = await enter(open_logic(config("red")))
            nursery = await enter(trio.open_nursery())
            await nursery.start(logic.run)
            stack.callback(nursery.cancel_scope.cancel)
            red, blue = await gateway("red"), await gateway("blue")
            anna = await enter(connect(red.url, token=functools.partial(red.token, ANNA), device_id="phone"))
            bo = await enter(connect(red.url, token=functools.partial(red.token, BO), device_id="phone"))
            other = await enter(connect(blue.url, token=functools.partial(blue.token, BO), device_id="phone"))
            stored = await anna.send("for the red one", to_user=BO)
            assert stored is not None
            assert stored.status is AckStatus.STORED
            assert [each.content for each in await take(bo, 1)] == ["for the red one"]
            async with open_backend(config("red")) as backend:
                with trio.fail_after(PATIENCE):
                    while not backend.healthy:
                        await trio.sleep(0.01)
                assert await backend.push(BO, ChatMessage(msg_id="a", to_user=BO, content="pushed", server_seq=0)) == 1
                assert backend.push.event(BO, "mail", b"1")
                assert backend.push.everyone(Event(kind="all"))
                await until(lambda: any(b"mail" in payload for payload in heard["red"].payloads))
            await until(lambda: red.hub.metrics.events_delivered == 1)
            assert blue.hub.metrics.events_delivered == blue.hub.metrics.downstreams == 0
            assert heard["red"].items
            assert all(subject.startswith("red.") for subject, _ in heard["red"].items)
            assert not any(subject.startswith("blue.access.") for subject, _ in heard["blue"].items)
            assert not any(text in payload for payload in heard["blue"].payloads for text in (b"red one", b"mail"))
            assert other.statistics().logins == 1


@pytest.mark.parametrize("bad", ["", "a.b", "a b", "*", ">", "a\r\nSUB >", "é", "x" * 65])
def test_t26_a_prefix_that_is_no_name_is_refused(bad: str) -> None:
    with pytest.raises(ConfigError, match=r"nats\.prefix: must be 1 to 64 of the characters") as refusal:
        load(environment={}, flags=[Flag("--set nats.prefix", "nats.prefix", bad)])
    assert len(refusal.value.problems) == 1
