"""A Backend by configuration, on a real NATS and a real Redis, beside a node that has no Logic of its own."""

from __future__ import annotations

from pathlib import Path

import trio

from gateway.backend import Backend, ChatMessage, Incoming, Presence, Stored, UserEvent, open_backend
from gateway.backends.settings_redis import RedisSettings
from gateway.node import open_node
from gateway.protocol.messages import Event, MessageAck
from gateway.protocol.types import AckStatus
from tests.backends.nats import PATIENCE, settings, until
from tests.support.nats_server import nats_server
from tests.support.node import RunningNode, test_config
from tests.support.redis_server import redis_server

PROBE = "probe"


async def subscribed(backend: Backend, presence: Presence) -> None:
    """The server hears of a subscription a moment later than we; of those made before it, too."""
    while True:
        assert backend.push.event(1, PROBE)
        with trio.move_on_after(0.1):
            await anext(presence)
            return


async def heard(presence: Presence) -> UserEvent:
    """The next event that is no probe."""
    while (event := await anext(presence)).kind == PROBE:
        pass
    return event


async def test_receiving_pushing_and_presence_over_real_servers(tmp_path: Path) -> None:
    with redis_server() as redis:
        async with nats_server(tmp_path) as nats:
            config = test_config(
                tmp_path, "tcp", node_id="node-7", nats=settings(nats.url), redis=RedisSettings(port=redis.port)
            )
            async with open_backend(config) as backend, open_node(config) as node, trio.open_nursery() as nursery:

                async def on_message(incoming: Incoming) -> Stored:
                    await backend.push(incoming.message.to_user, incoming.message)
                    return Stored(server_seq=5)

                await nursery.start(node.run)
                await nursery.start(backend.serve, on_message)
                await until(lambda: backend.healthy and not node.not_ready())
                running = RunningNode(node, "tcp", nursery)
                with trio.fail_after(PATIENCE), backend.presence() as presence:
                    await subscribed(backend, presence)
                    sender, reader = await running.seated(1001), await running.seated(1002)
                    assert [(await heard(presence)).user_id for _ in range(2)] == [1001, 1002]
                    assert (await backend.lookup([1002]))[1002][0].access_node == "node-7"
                    await sender.send(ChatMessage(msg_id="m-1", to_user=1002, content="hello"))
                    assert (await sender.receive(MessageAck)).status == AckStatus.ACCEPTED
                    stored = await sender.receive(MessageAck)
                    assert (stored.status, stored.server_seq) == (AckStatus.STORED, 5)
                    assert (await reader.receive(ChatMessage)).from_user == 1001
                    assert backend.push.event(1002, "mail")
                    assert (await reader.receive(Event)).kind == "mail"
                    assert backend.push.everyone(ChatMessage(msg_id="all"))
                    assert (await sender.receive(ChatMessage)).msg_id == "all"
                    await reader.hang_up()
                    kinds = [(await heard(presence)).kind for _ in range(2)]
                    assert kinds == ["mail", "offline"]
                await sender.hang_up()
                await running.empty()
                nursery.cancel_scope.cancel()
