"""`python -m gateway logic`: what it needs, how it serves beside others, and how it ends."""

from __future__ import annotations

import functools
import re
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import trio

from gateway.backends.settings_redis import RedisSettings
from gateway.client import ClientSettings, connect
from gateway.node import open_node
from gateway.protocol.types import AckStatus
from tests.backends.nats import PATIENCE, settings, until
from tests.cli.running import Running, command, environment, gateway
from tests.console.asking import Asker
from tests.support.nats_server import nats_server
from tests.support.node import RunningNode, test_config
from tests.support.redis_server import redis_server


@asynccontextmanager
async def logic(folder: Path, nats_url: str, redis_port: int) -> AsyncIterator[Running]:
    """The command as a process that serves; killed at the end if it is still there."""
    words = ["--set", f"nats.servers={nats_url}", "--set", f"redis.port={redis_port}", "--data-dir", str(folder)]
    process = await trio.lowlevel.open_process(
        command("logic", *words, "--log-format", "json"),
        cwd=folder,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    running = Running(process, folder)
    try:
        with trio.fail_after(60):
            await running.event("bus_connected")
        yield running
    finally:
        if process.returncode is None:
            process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            assert process.stderr is not None
            await process.stderr.aclose()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "nats.servers: say where NATS is"),
        (["--set", "nats.servers=nats://127.0.0.1:4222"], "nats.servers: needs redis too"),
        (["--set", "nats.servers=127.0.0.1:4222"], "must be like nats://host:4222"),
    ],
)
async def test_what_is_missing_is_said_in_one_line(tmp_path: Path, words: list[str], says: str) -> None:
    done = await gateway("logic", *words, cwd=tmp_path)
    assert done.returncode == 2
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1


async def test_run_says_the_same(tmp_path: Path) -> None:
    done = await gateway("run", "--set", "nats.servers=nats://127.0.0.1:4222", cwd=tmp_path)
    assert done.returncode == 2
    assert "nats.servers: needs redis too" in done.stderr
    assert len(done.stderr.splitlines()) == 1


async def test_two_share_the_work_and_one_may_be_killed(tmp_path: Path) -> None:
    servers = tmp_path / "nats"
    servers.mkdir()
    with redis_server() as redis, trio.fail_after(120):
        async with AsyncExitStack() as stack:
            enter = stack.enter_async_context
            nats = await enter(nats_server(servers))
            first = await enter(logic(tmp_path, nats.url, redis.port))
            second = await enter(logic(tmp_path, nats.url, redis.port))
            config = test_config(tmp_path, "tcp", nats=settings(nats.url), redis=RedisSettings(port=redis.port))
            node = await enter(open_node(config))
            nursery = await enter(trio.open_nursery())
            await nursery.start(node.run)
            await until(lambda: not node.not_ready())
            running = RunningNode(node, "tcp", nursery)
            token = functools.partial(running.token, 1001)
            quick = ClientSettings(resend_after=0.5)
            client = await enter(connect(running.url, token=token, device_id="phone", settings=quick))
            stored = 0

            async def send(text: str) -> None:
                nonlocal stored
                receipt = await client.send(text, to_user=1002)
                stored += receipt is not None and receipt.status is AckStatus.STORED

            with trio.fail_after(PATIENCE * 2):
                async with trio.open_nursery() as work:
                    for i in range(100):
                        work.start_soon(send, str(i))
                        if i == 50:
                            first.signal(signal.SIGKILL)
                        await trio.sleep(0.002)
            assert stored == 100
            told = await second.event("logic_serving")
            asker = Asker(int(told["console"].rpartition(":")[2]))
            shown = (await asker.ask("/books")).text
            assert "DOES NOT ADD UP" not in shown
            assert re.search(r"^logic_upstreams +[1-9]", shown, re.MULTILINE)
            assert (
                'access_books_became{account="logic_upstreams",outcome="stored"}' in (await asker.ask("/metrics")).text
            )
            assert (await asker.ask("/readyz")).text == "ready\n"
            second.signal(signal.SIGTERM)
            assert await second.ended() == 0
            assert second.lines[-1]["event"] == "left"
            nursery.cancel_scope.cancel()
