"""The example as a user has it: alone, with nothing configured, and beside a node on NATS and Redis."""

import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from gateway.backends.dev_keys import development_key, issue_token
from gateway.client import connect
from tests.cli.running import environment, heed_signals, node
from tests.support.nats_server import nats_server
from tests.support.node import PATIENCE
from tests.support.redis_server import redis_server

BOT = Path(__file__).parents[2] / "examples" / "bot.py"
ANY_PORT = {"GATEWAY_TCP__PORT": "0", "GATEWAY_WEBSOCKET__PORT": "0", "GATEWAY_CONSOLE__PORT": "0"}


class Bot:
    """The example in a process, and what it has said."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self.said = ""

    async def until(self, text: str) -> None:
        """Read on until it has said so."""
        assert self.process.stdout is not None
        while text not in self.said:
            data = await self.process.stdout.receive_some()
            assert data, f"it ended: {self.said}"
            self.said += data.decode()


@asynccontextmanager
async def running(cwd: Path, *words: str) -> AsyncIterator[Bot]:
    """A bot that listens; it must leave on Ctrl-C."""
    process = await trio.lowlevel.open_process(
        [sys.executable, "-u", str(BOT), *words],
        cwd=cwd,
        env=environment(**ANY_PORT),
        stdout=subprocess.PIPE,
        preexec_fn=heed_signals,
    )
    assert process.stdout is not None
    try:
        with trio.fail_after(PATIENCE * 2):
            bot = Bot(process)
            await bot.until("listening\n")
            yield bot
            process.send_signal(signal.SIGINT)
            await bot.until("left\n")
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
        await process.stdout.aclose()


async def converse(address: str, token: str) -> None:
    """It repeats what it is told."""
    async with connect(f"tcp://{address}", token=token, device_id="a") as client:
        await client.send("hello", to_user=2001)
        async for delivery in client:
            assert (delivery.from_user, delivery.content) == (2001, "you said: hello")
            break


async def test_the_bot_answers_and_ends(tmp_path: Path) -> None:
    async with running(tmp_path) as bot:
        address = bot.said.split("tcp=")[1].split(maxsplit=1)[0]
        await converse(address, issue_token(development_key(tmp_path / ".gateway"), 1001))
        await bot.until("1001 is offline")
        assert "1001 is online on node-1 (a)" in bot.said


async def test_the_bot_is_the_logic_of_nodes_elsewhere(tmp_path: Path) -> None:
    with redis_server() as redis:
        async with nats_server(tmp_path) as nats:
            config = tmp_path / "gateway.toml"
            config.write_text(f'[nats]\nservers = ["{nats.url}"]\n[redis]\nport = {redis.port}\n')
            async with running(tmp_path, config.name) as bot, node("run", "--config", config.name, cwd=tmp_path) as one:
                serving = await one.event("serving")
                await converse(str(serving["tcp"]), issue_token(development_key(tmp_path / ".gateway"), 1001))
                await bot.until("1001 is offline")
                assert "1001 is online on node-1 (a)" in bot.said
