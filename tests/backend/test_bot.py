"""The example as a user has it: alone, with nothing configured."""

import signal
import subprocess
import sys
from pathlib import Path

import trio

from gateway.backends.dev_keys import development_key, issue_token
from gateway.client import connect
from tests.cli.running import environment, heed_ctrl_c
from tests.support.node import PATIENCE

BOT = Path(__file__).parents[2] / "examples" / "bot.py"
ANY_PORT = {"GATEWAY_TCP__PORT": "0", "GATEWAY_WEBSOCKET__PORT": "0", "GATEWAY_CONSOLE__PORT": "0"}


async def test_the_bot_answers_and_ends(tmp_path: Path) -> None:
    process = await trio.lowlevel.open_process(
        [sys.executable, "-u", str(BOT)],
        cwd=tmp_path,
        env=environment(**ANY_PORT),
        stdout=subprocess.PIPE,
        preexec_fn=heed_ctrl_c,
    )
    assert process.stdout is not None
    said = ""

    async def until(text: str) -> None:
        nonlocal said
        assert process.stdout is not None
        while text not in said:
            data = await process.stdout.receive_some()
            assert data, f"it ended: {said}"
            said += data.decode()

    try:
        with trio.fail_after(PATIENCE * 2):
            await until("listening\n")
            address = said.split("tcp=")[1].split(maxsplit=1)[0]
            token = issue_token(development_key(tmp_path / ".gateway"), 1001)
            async with connect(f"tcp://{address}", token=token, device_id="a") as client:
                await client.send("hello", to_user=2001)
                async for delivery in client:
                    assert (delivery.from_user, delivery.content) == (2001, "you said: hello")
                    break
            await until("1001 is offline")
            assert "1001 is online on node-1 (a)" in said
            process.send_signal(signal.SIGINT)
            await until("left\n")
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
        await process.stdout.aclose()
