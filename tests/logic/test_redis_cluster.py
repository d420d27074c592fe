"""Two Logics of different machines on one Redis: one is killed, then Redis is, and every message arrives once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import msgspec
import trio

from gateway.cli.logic import open_logic
from gateway.client.errors import Rejected
from gateway.logic.settings import LogicSettings
from gateway.protocol.codes import Code
from tests.backends.nats import until
from tests.backends.nats_world import ANNA, BO, Cluster, user
from tests.backends.test_nats_cluster import REACHED_LOGIC
from tests.client.server import take
from tests.logic.redis_world import durable_server
from tests.support.nats_server import nats_server

COUNT = 120


@asynccontextmanager
async def logic(cluster: Cluster, name: str) -> AsyncIterator[trio.CancelScope]:
    """One with a `data_dir` of its own; cancelling it is its death."""
    folder = cluster.folder / name
    config = msgspec.structs.replace(cluster.config(name), data_dir=str(folder), logic=LogicSettings(store="redis"))
    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()

        async def run(task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
            with scope:
                async with open_logic(config) as process:
                    await process.run(task_status=task_status)

        await nursery.start(run)
        yield scope
        nursery.cancel_scope.cancel()
    assert not (folder / "logic.sqlite").exists()


async def test_every_message_arrives_once(tmp_path: Path) -> None:
    folder = tmp_path / "nats"
    folder.mkdir()
    with durable_server() as redis, trio.fail_after(60):
        async with nats_server(folder) as nats, AsyncExitStack() as stack:
            cluster = Cluster(nats, redis.port, tmp_path)
            enter = stack.enter_async_context
            first, second = await enter(cluster.node("node-1")), await enter(cluster.node("node-2"))
            one, _ = await enter(logic(cluster, "logic-1")), await enter(logic(cluster, "logic-2"))
            anna, bo = await enter(user(first, ANNA)), await enter(user(second, BO))
            stored: set[str] = set()
            heard: list[str] = []

            async def send(text: str) -> None:
                while text not in stored:
                    try:
                        receipt = await anna.send(text, to_user=BO, msg_id=f"m-{text}")
                    except Rejected as error:
                        if error.code != Code.UPSTREAM_UNAVAILABLE:
                            raise
                        await trio.sleep(0.1)
                    else:
                        assert receipt is not None
                        assert receipt.status in REACHED_LOGIC
                        stored.add(text)

            async def listen() -> None:
                while True:
                    heard.extend(each.content for each in await take(bo, 1))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(listen)
                async with trio.open_nursery() as work:
                    for i in range(COUNT):
                        work.start_soon(send, str(i))
                        if i == COUNT // 3:
                            one.cancel()
                        if i == 2 * COUNT // 3:
                            redis.kill()
                        if i == 2 * COUNT // 3 + 20:
                            redis.start()
                        await trio.sleep(0.01)
                assert len(stored) == COUNT
                await send("last")  # shows whoever missed one that something is missing
                await until(lambda: len(heard) >= COUNT + 1)
                nursery.cancel_scope.cancel()
            assert sorted(heard[:-1], key=int) == [str(i) for i in range(COUNT)]
            assert heard[-1] == "last"
