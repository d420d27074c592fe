"""The ways to reach a server, over loopback: TCP, TLS, WebSocket, and what can go wrong on each."""

from __future__ import annotations

import math
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio_websocket
import trustme

from gateway.client import ClientSettings, Refused, StateChange, Unreachable, connect
from gateway.client.endpoint import parse_url
from gateway.client.messages import State
from gateway.client.transport import TransportFailed, open_tcp
from gateway.client.websocket import open_websocket
from gateway.protocol.messages import AuthRequest, AuthResponse, ChatMessage, MessageAck, SyncRequest, SyncResponse
from gateway.protocol.types import AckStatus
from tests.client.server import USER, Link, chat, next_notice, take

SETTINGS = ClientSettings(start_timeout=math.inf, backoff_base=0.01)
Handler = Callable[[Any], Awaitable[None]]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def serving(authority: trustme.CA, name: str = "127.0.0.1") -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


class Messages:
    """A server's WebSocket as a stream, for `Link`; cuts what it sends into two messages."""

    def __init__(self, connection: trio_websocket.WebSocketConnection) -> None:
        self._connection = connection

    async def send_all(self, data: bytes) -> None:
        for part in (data[: len(data) // 2], data[len(data) // 2 :]):
            await self._connection.send_message(part)

    async def receive_some(self) -> bytes:
        try:
            return bytes(await self._connection.get_message())
        except trio_websocket.ConnectionClosed:
            return b""


async def talk(stream: Any) -> None:
    """A login, a Sync, one message each way, then whatever comes until the end."""
    link = Link(parse_url("tcp://x"), stream)
    await link.log_in()
    await link.answer_sync([chat(1)])
    message, seq = await link.expect(ChatMessage)
    await link.send(MessageAck(msg_id=message.msg_id, status=AckStatus.STORED), seq=seq)
    await link.send(chat(2, content=message.content))
    await link.pump()


@asynccontextmanager
async def listening(handler: Handler, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A TCP listener on loopback; gives its port."""

    async def serve(stream: trio.SocketStream) -> None:
        secured: Any = stream if context is None else trio.SSLStream(stream, context, server_side=True)
        try:
            await handler(secured)
        except (trio.BrokenResourceError, trio.EndOfChannel):
            pass
        finally:
            await trio.aclose_forcefully(stream)

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve, listeners)
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def listening_websocket(
    handler: Callable[[trio_websocket.WebSocketRequest], Awaitable[None]], context: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    async with trio.open_nursery() as nursery:
        server = await nursery.start(trio_websocket.serve_websocket, handler, "127.0.0.1", 0, context)
        yield server.port
        nursery.cancel_scope.cancel()


async def upgrade(request: trio_websocket.WebSocketRequest) -> None:
    assert request.proposed_subprotocols == ("im.v1",)
    assert request.path == "/ws"
    await talk(Messages(await request.accept(subprotocol="im.v1")))


async def converse(url: str, context: ssl.SSLContext | None = None) -> None:
    with trio.fail_after(20):
        async with connect(url, token="t", device_id="d", ssl_context=context, settings=SETTINGS) as client:
            assert client.user_id == USER
            assert [d.content for d in await take(client, 1)] == ["text 1"]
            text = "x" * 50_000
            await client.send(text, to_user=5)
            assert [d.content for d in await take(client, 1)] == [text]
            assert client.statistics().logins == 1


async def test_tcp() -> None:
    async with listening(talk) as port:
        await converse(f"tcp://127.0.0.1:{port}")


async def test_tls(authority: trustme.CA, trusting: ssl.SSLContext) -> None:
    async with listening(talk, serving(authority)) as port:
        await converse(f"tcps://127.0.0.1:{port}", trusting)
        await converse(f"tls://127.0.0.1:{port}", trusting)


async def test_websocket() -> None:
    async with listening_websocket(upgrade) as port:
        await converse(f"ws://127.0.0.1:{port}/ws")
        await converse(f"ws://127.0.0.1:{port}")


async def test_websocket_over_tls(authority: trustme.CA, trusting: ssl.SSLContext) -> None:
    async with listening_websocket(upgrade, serving(authority)) as port:
        await converse(f"wss://127.0.0.1:{port}/ws", trusting)


@pytest.mark.parametrize("scheme", ["tcps", "wss"])
async def test_an_untrusted_certificate_is_final(authority: trustme.CA, scheme: str) -> None:
    async with listening(talk, serving(authority)) as port:
        with trio.fail_after(10), pytest.raises(Unreachable, match="certificate not trusted"):
            async with connect(f"{scheme}://127.0.0.1:{port}", token="t", device_id="d", settings=SETTINGS):
                pass


async def test_a_certificate_for_another_name_is_final(authority: trustme.CA, trusting: ssl.SSLContext) -> None:
    async with listening(talk, serving(authority, "other.test")) as port:
        with trio.fail_after(10), pytest.raises(Unreachable, match="certificate not trusted"):
            async with connect(
                f"tcps://127.0.0.1:{port}", token="t", device_id="d", ssl_context=trusting, settings=SETTINGS
            ):
                pass


@pytest.mark.parametrize("scheme", ["tcps", "wss"])
async def test_tls_with_a_server_that_speaks_none(scheme: str) -> None:
    async def plain(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    open_one = open_tcp if scheme == "tcps" else _open_websocket
    async with listening(plain) as port:
        with trio.fail_after(10), pytest.raises(TransportFailed, match="TLS with 127") as caught:
            await open_one(parse_url(f"{scheme}://127.0.0.1:{port}"), None)
        assert not caught.value.final


async def _open_websocket(endpoint: Any, context: ssl.SSLContext | None) -> Any:
    async with trio.open_nursery() as nursery:
        failure: TransportFailed | None = None
        try:
            transport = await open_websocket(endpoint, context, nursery)
            await transport.aclose()
        except TransportFailed as error:
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


@pytest.mark.parametrize("scheme", ["tcp", "ws", "tcps", "wss"])
async def test_nobody_there(scheme: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with trio.fail_after(10), pytest.raises(Unreachable, match=f"127.0.0.1:{port}: Connection refused"):
            async with connect(
                f"{scheme}://127.0.0.1:{port}", token="t", device_id="d", settings=ClientSettings(start_timeout=1)
            ):
                pass


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"", "did not upgrade: it hung up"),
        (b"SSH-2.0-OpenSSH\r\n", "did not upgrade"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "refused the upgrade: HTTP 200 hi|did not upgrade"),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "did not upgrade"),
        (b"\0" * 500, "did not upgrade"),
    ],
)
async def test_no_websocket_there(answer: bytes, why: str) -> None:
    """Noticed at once, not by the connect deadline."""

    async def other(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(answer)

    async with listening(other) as port:
        with trio.fail_after(5), pytest.raises(TransportFailed, match=why):
            await _open_websocket(parse_url(f"ws://127.0.0.1:{port}/ws"), None)


@pytest.mark.parametrize(("status", "final"), [(400, True), (403, True), (404, True), (429, False), (503, False)])
async def test_a_refused_upgrade_says_why(status: int, final: bool) -> None:
    async def refuse(request: trio_websocket.WebSocketRequest) -> None:
        await request.reject(status, body=b"not here")

    async with listening_websocket(refuse) as port:
        with trio.fail_after(5), pytest.raises(TransportFailed, match=f"HTTP {status} not here") as caught:
            await _open_websocket(parse_url(f"ws://127.0.0.1:{port}/ws"), None)
        assert caught.value.final is final


async def test_a_websocket_close_code_is_the_reason() -> None:
    async def refuse(request: trio_websocket.WebSocketRequest) -> None:
        connection = await request.accept(subprotocol="im.v1")
        link = Link(parse_url("tcp://x"), Messages(connection))  # type: ignore[arg-type]
        await link.expect(AuthRequest)
        await connection.aclose(4102, "banned")

    async with listening_websocket(refuse) as port:
        with trio.fail_after(10), pytest.raises(Refused, match="4102 user_banned: banned"):
            async with connect(f"ws://127.0.0.1:{port}/ws", token="t", device_id="d"):
                pass


@pytest.mark.parametrize(("code", "said"), [(1002, "closed with 1002: why"), (1000, "why"), (4302, "why")])
async def test_other_websocket_closes_reconnect(code: int, said: str) -> None:
    first = True

    async def serve(request: trio_websocket.WebSocketRequest) -> None:
        nonlocal first
        connection = await request.accept(subprotocol="im.v1")
        link = Link(parse_url("tcp://x"), Messages(connection))  # type: ignore[arg-type]
        await link.log_in()
        if first:
            first = False
            await connection.aclose(code, "why")
        else:
            await link.pump()

    async with listening_websocket(serve) as port:
        with trio.fail_after(10):
            async with connect(f"ws://127.0.0.1:{port}/ws", token="t", device_id="d", settings=SETTINGS) as client:
                while (change := await next_notice(client, StateChange)).state is not State.WAITING:
                    pass
                assert change.reason == said
                assert change.code == (4302 if code == 4302 else 0)


async def test_a_text_message_ends_the_link() -> None:
    async def serve(request: trio_websocket.WebSocketRequest) -> None:
        connection = await request.accept(subprotocol="im.v1")
        await connection.send_message("hello?")
        await trio.sleep_forever()

    async with listening_websocket(serve) as port:
        with trio.fail_after(10), pytest.raises(Unreachable, match="text message"):
            async with connect(
                f"ws://127.0.0.1:{port}/ws", token="t", device_id="d", settings=ClientSettings(start_timeout=1)
            ):
                pass


async def test_a_peer_that_never_says_goodbye_does_not_hold_us() -> None:
    """The close handshake of TLS and WebSocket has a deadline; then the socket is freed anyway."""

    async def rude(stream: trio.SocketStream) -> None:
        server = trio_websocket  # the upgrade by the library, then a frozen peer
        async with trio.open_nursery() as nursery:
            request = await server.wrap_server_stream(nursery, stream)
            connection = await request.accept(subprotocol="im.v1")
            link = Link(parse_url("tcp://x"), Messages(connection))  # type: ignore[arg-type]
            _, seq = await link.expect(AuthRequest)
            await link.send(AuthResponse(user_id=USER), seq=seq)
            _, seq = await link.expect(SyncRequest)
            await link.send(SyncResponse(), seq=seq)
            nursery.cancel_scope.cancel()
        await trio.sleep_forever()

    async with listening(rude) as port:
        with trio.fail_after(10):
            async with connect(
                f"ws://127.0.0.1:{port}/ws", token="t", device_id="d", settings=ClientSettings(close_timeout=0.2)
            ):
                pass


@pytest.mark.parametrize("scheme", ["tcp", "ws"])
async def test_cancelled_while_dialling_frees_the_socket(scheme: str) -> None:
    seen = trio.Event()
    ended = trio.Event()

    async def silent(stream: trio.SocketStream) -> None:
        seen.set()
        while await stream.receive_some():
            pass
        ended.set()

    async with listening(silent) as port:
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:

                async def dial() -> None:
                    async with connect(f"{scheme}://127.0.0.1:{port}", token="t", device_id="d"):
                        pass

                nursery.start_soon(dial)
                await seen.wait()
                nursery.cancel_scope.cancel()
            await ended.wait()
