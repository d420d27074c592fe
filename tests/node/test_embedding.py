"""A node inside somebody's own Trio program: their function, their stream, their cancellation."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio
from trio.testing import memory_stream_pair

import gateway
from gateway.client import Rejected, connect
from gateway.config import ConfigError
from gateway.core.settings import HeartbeatSettings
from gateway.protocol.codes import Code
from gateway.protocol.messages import ChatMessage, MessageAck, SyncRequest, SyncResponse
from gateway.protocol.types import AckStatus
from tests.cli.running import environment, heed_signals
from tests.support.node import LINKS, PATIENCE, LinkKind, open_running, test_config
from tests.support.peer import Peer

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("kind", LINKS)
async def test_a_function_gets_the_messages_and_its_return_is_stored(tmp_path: Path, kind: LinkKind) -> None:
    came: list[gateway.Incoming] = []

    async def on_message(incoming: gateway.Incoming) -> None:
        came.append(incoming)
        if incoming.message.content == "no":
            raise gateway.Refused
        if incoming.message.content == "bug":
            raise RuntimeError("in the embedder's code")

    async with open_running(tmp_path, kind, on_message=on_message) as running:
        peer = await running.seated(1001)
        for number, (content, status, code) in enumerate(
            [
                ("yes", AckStatus.STORED, 0),
                ("no", AckStatus.REJECTED, Code.INVALID_PAYLOAD),
                ("bug", AckStatus.REJECTED, Code.INTERNAL_ERROR),
            ]
        ):
            seq = await peer.send(ChatMessage(msg_id=f"m-{number}", to_user=1002, content=content))
            with trio.fail_after(PATIENCE):
                assert (await peer.receive(MessageAck)).status == AckStatus.ACCEPTED
                frame = await peer.frame()
            assert frame is not None
            assert frame.seq == seq
            assert (getattr(frame, "status", None), getattr(frame, "code", None)) == (status, code)
        assert [(each.user_id, each.device_id, each.message.from_user) for each in came] == [(1001, "phone", 1001)] * 3
        await peer.send(SyncRequest(cursor=5))
        with trio.fail_after(PATIENCE):
            assert (await peer.receive(SyncResponse)).messages in ((), [])
        await peer.hang_up()


async def test_pushing_reaches_users_devices_and_platforms(tmp_path: Path) -> None:
    async def on_message(incoming: gateway.Incoming) -> None:
        """Nobody writes here."""

    async with open_running(tmp_path, on_message=on_message) as running:
        phone, desk = await running.seated(1001, "phone"), await running.seated(1001, "desk", platform="linux")
        hello = ChatMessage(msg_id="p-1", from_user=7, to_user=1001, content="hello")
        assert await running.node.push(1001, hello) == 2
        assert await running.node.push(1001, hello, device_id="desk") == 1
        assert await running.node.push(1001, hello, platform="ios") == 1
        assert await running.node.push(1002, hello) == 0
        with trio.fail_after(PATIENCE):
            for peer in (phone, phone, desk, desk):
                assert (await peer.receive(ChatMessage)).content == "hello"
        await phone.hang_up()
        await desk.hang_up()


async def test_an_accepted_stream_is_served_to_its_end(tmp_path: Path) -> None:
    async with open_running(tmp_path) as running, trio.open_nursery() as nursery:
        ours, theirs = memory_stream_pair()
        nursery.start_soon(running.node.serve_stream, theirs, "192.0.2.9")
        peer = Peer(ours)
        with trio.fail_after(PATIENCE):
            await peer.log_in(running.token(1001))
        (location,) = (await running.hub.locations.lookup([1001]))[1001]
        assert location.address == "192.0.2.9"
        await peer.hang_up()
        await running.empty()


async def test_a_configuration_that_cannot_work_is_refused_before_anything_opens(tmp_path: Path) -> None:
    config = test_config(tmp_path, "tcp", heartbeat=HeartbeatSettings(interval=30, timeout=10))
    with pytest.raises(ConfigError, match=r"heartbeat\.timeout"):
        async with gateway.open_node(config):
            pytest.fail("opened")


async def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    async with open_running(tmp_path / "a") as running:
        port = int(running.node.addresses["tcp"].rpartition(":")[2])
        config = test_config(tmp_path / "b", "tcp", tcp={"port": port})
        async with gateway.open_node(config) as second:
            with pytest.raises((OSError, ExceptionGroup)) as caught:
                await second.run()
        assert caught.group_contains(OSError) if isinstance(caught.value, ExceptionGroup) else True


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_the_example_runs_and_ends(tmp_path: Path, number: signal.Signals) -> None:
    """As a user would: two clients talk through it; Ctrl-C, or an end without a word, leaves nothing that hurts."""
    source = (ROOT / "examples" / "embed.py").read_text()
    program = tmp_path / "embed.py"
    sections = {"tcp": "Tcp", "websocket": "WebSocket", "quic": "Quic", "console": "Console"}
    ports = ", ".join(f"{name}={kind}Settings(port=0)" for name, kind in sections.items())
    imports = (
        "from gateway.console.settings import ConsoleSettings\nfrom gateway.transports.settings import TcpSettings\n"
        "from gateway.transports.settings_quic import QuicSettings\n"
        "from gateway.transports.settings_websocket import WebSocketSettings\n"
    )
    assert "gateway.Config()" in source
    program.write_text(
        source.replace("import trio\n", f"import trio\n{imports}", 1).replace("Config()", f"Config({ports})")
    )
    process = await trio.lowlevel.open_process(
        [sys.executable, "-u", str(program)],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        preexec_fn=heed_signals,
    )
    assert process.stdout is not None
    try:
        with trio.fail_after(PATIENCE * 2):
            said = b""
            while b"\n" not in said:
                said += await process.stdout.receive_some() or pytest.fail("it ended")
            address = said.decode().split("tcp=")[1].split()[0]
            from gateway.backends.dev_keys import development_key, issue_token

            key = development_key(tmp_path / ".gateway")
            url = f"tcp://{address}"
            async with (
                connect(url, token=issue_token(key, 1001), device_id="a") as sender,
                connect(url, token=issue_token(key, 1002), device_id="b") as reader,
            ):
                while reader.user_id == 0:
                    await trio.sleep(0.01)
                with pytest.raises(Rejected):
                    await sender.send("", to_user=1002)
                await sender.send("quiet", to_user=1002)
                async for delivery in reader:
                    assert delivery.content == "QUIET"
                    break
            process.send_signal(number)
            code = await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
        await process.stdout.aclose()
    assert code == (0 if number is signal.SIGINT else -signal.SIGTERM)
