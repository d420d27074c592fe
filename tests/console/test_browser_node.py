"""The chat page on a whole node: there in development mode, and nowhere else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import trio

from gateway.backends.settings import JwtSettings, KeySettings
from gateway.client import connect
from gateway.config import Config
from gateway.console.settings import ConsoleSettings
from gateway.node import Node, open_node
from gateway.transports.settings import TcpSettings
from gateway.transports.settings_quic import QuicSettings
from gateway.transports.settings_websocket import WebSocketSettings
from tests.console.asking import Asker


@asynccontextmanager
async def serving(directory: Path, auth: JwtSettings) -> AsyncIterator[tuple[Node, Asker]]:
    config = Config(
        data_dir=str(directory),
        tcp=TcpSettings(enabled=False),
        websocket=WebSocketSettings(port=0),
        quic=QuicSettings(port=0),
        console=ConsoleSettings(port=0),
        auth=auth,
    )
    with trio.fail_after(30):
        async with open_node(config) as node, trio.open_nursery() as nursery:
            await nursery.start(node.run)
            yield node, Asker(int(node.addresses["console"].rpartition(":")[2]))
            nursery.cancel_scope.cancel()


async def upgraded(node: Node, origin: str) -> int:
    """The status that a browser's page of `origin` gets for its WebSocket."""
    host, _, port = node.addresses["websocket"].rpartition(":")
    head = (
        f"GET /ws HTTP/1.1\r\nHost: {host}:{port}\r\nOrigin: {origin}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        await stream.send_all(head.encode())
        answer = await stream.receive_some(4096)
    return int(answer.split()[1])


async def test_in_development_mode_the_page_is_there_and_what_it_is_given_opens_a_session(tmp_path: Path) -> None:
    async with serving(tmp_path, JwtSettings()) as (node, asker):
        assert (await asker.ask("/")).headers["content-type"].startswith("text/html")
        granted = msgspec.json.decode((await asker.ask("/dev/token?user=1001")).body)
        assert granted["url"] == f"ws://{node.addresses['websocket']}/ws"
        assert granted["webTransport"] == {
            "url": f"https://{node.addresses['quic']}/im",
            "certificateHashes": [node.certificate_sha256],
        }
        for name in ("127.0.0.1", "localhost"):
            assert await upgraded(node, f"http://{name}:{asker.port}") == 101
        assert await upgraded(node, f"http://evil.example:{asker.port}") == 403
        async with connect(granted["url"], token=granted["token"], device_id="d") as client:
            assert client.user_id == 1001


async def test_where_keys_are_configured_there_is_no_page_no_token_and_no_origin(tmp_path: Path) -> None:
    auth = JwtSettings(keys={"k": KeySettings(algorithm="HS256", key="0123456789abcdef" * 4)})
    async with serving(tmp_path, auth) as (node, asker):
        for path in ("/dev/token?user=1001", "/chat.js", "/gateway-client.js"):
            assert (await asker.ask(path)).status == 404
        assert (await asker.ask("/")).headers["content-type"].startswith("text/plain")
        assert await upgraded(node, f"http://127.0.0.1:{asker.port}") == 403
