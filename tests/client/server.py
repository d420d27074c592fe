"""A scripted server: the far end of every link that a client dials, over memory streams, speaking real frames."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeVar

import trio
from trio.testing import memory_stream_pair

from gateway._framing import DispatchTable, Frame, FrameDecoder, build_heartbeat
from gateway.client import Client, ClientSettings, Delivery, Notice, StateChange, StreamTransport, Transport, connect
from gateway.client.endpoint import Endpoint
from gateway.client.token import TokenSource
from gateway.protocol.messages import (
    AuthRequest,
    AuthResponse,
    ChatMessage,
    Message,
    MessageAck,
    SyncRequest,
    SyncResponse,
    decode,
    encode,
)
from gateway.protocol.types import AckStatus, MsgType

URL = "tcp://gateway.test:9000"
USER = 1001
M = TypeVar("M", bound=Message)
N = TypeVar("N", bound=Notice)


def chat(seq: int, *, msg_id: str = "", from_user: int = 1002, content: str = "") -> ChatMessage:
    """Message number `seq` of the user's timeline."""
    return ChatMessage(
        msg_id=msg_id or f"m{seq}",
        from_user=from_user,
        to_user=USER,
        content=content or f"text {seq}",
        timestamp=1_700_000_000_000 + seq,
        server_seq=seq,
    )


class Link:
    """The server's end of one connection."""

    def __init__(self, endpoint: Endpoint, stream: trio.StapledStream[Any, Any]) -> None:
        self.endpoint = endpoint
        self.stream = stream
        self.frames: deque[Frame] = deque()
        self.beats = 0
        self.mute = False
        """Whether heartbeats go unanswered."""
        self._replies = bytearray()
        table = DispatchTable(self._refuse)
        for kind in MsgType:
            table.on(kind, self._keep)
        self._decoder = FrameDecoder(table, 1 << 20)

    def _refuse(self, _: object, code: int, msg_type: int, seq: int) -> bytes | None:
        raise AssertionError(f"the client sent what may not pass: {code}, type {msg_type}")

    def _keep(self, _: object, frame: Frame) -> bytes | None:
        if frame.type != MsgType.HEARTBEAT:
            self.frames.append(frame)
            return None
        self.beats += 1
        return None if self.mute else build_heartbeat(frame.seq, 1)

    async def next_frame(self) -> Frame:
        """The next frame that is not a heartbeat; EndOfChannel when the client has left."""
        while not self.frames:
            data = await self.stream.receive_some()
            if not data:
                raise trio.EndOfChannel
            replies = self._decoder.feed(self, bytes(data))
            if replies:
                await self.stream.send_all(replies)
        return self.frames.popleft()

    async def pump(self) -> None:
        """Answer heartbeats, collect frames, until the client leaves."""
        try:
            while True:
                self.frames.append(await self.next_frame())
                await self._receive_more()
        except (trio.EndOfChannel, trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    async def _receive_more(self) -> None:
        data = await self.stream.receive_some()
        if not data:
            raise trio.EndOfChannel
        replies = self._decoder.feed(self, bytes(data))
        if replies:
            await self.stream.send_all(replies)

    async def expect(self, kind: type[M]) -> tuple[M, int]:
        """The next message of `kind` and its seq; what else has come stays for later."""
        others = deque[Frame]()
        with trio.fail_after(60):
            while True:
                frame = await self.next_frame()
                message = decode(frame)
                if isinstance(message, kind):
                    break
                others.append(frame)
        self.frames.extendleft(reversed(others))
        return message, frame.seq

    async def send(self, *messages: Message, seq: int = 0) -> None:
        await self.stream.send_all(b"".join(encode(each, seq=seq, timestamp=1) for each in messages))

    async def log_in(self, **answer: Any) -> AuthRequest:
        """Take the login and answer it."""
        request, seq = await self.expect(AuthRequest)
        defaults: dict[str, Any] = {"user_id": USER, "node_id": "n1", "session_id": "s1", "max_frame": 65_536}
        await self.send(AuthResponse(**(defaults | answer)), seq=seq)
        return request

    async def answer_sync(
        self, messages: Sequence[ChatMessage] = (), *, next_cursor: int | None = None, has_more: bool = False
    ) -> SyncRequest:
        request, seq = await self.expect(SyncRequest)
        if next_cursor is None:
            next_cursor = messages[-1].server_seq if messages else request.cursor
        await self.send(SyncResponse(messages=tuple(messages), next_cursor=next_cursor, has_more=has_more), seq=seq)
        return request

    async def store(self, *, server_seq: int = 1) -> ChatMessage:
        """Take one message and acknowledge it as stored."""
        message, seq = await self.expect(ChatMessage)
        await self.send(MessageAck(msg_id=message.msg_id, status=AckStatus.STORED, server_seq=server_seq), seq=seq)
        return message

    def cut(self) -> None:
        """The link breaks."""
        self.stream.send_stream.close()
        self.stream.receive_stream.close()


class Server:
    """Accepts what the client dials; `faults` are raised by the next dials instead."""

    def __init__(self) -> None:
        self.dialled: list[tuple[float, str]] = []
        self.faults: deque[Exception] = deque()
        self._send, self._receive = trio.open_memory_channel[Link](100)

    async def dial(self, endpoint: Endpoint, nursery: trio.Nursery) -> Transport:
        self.dialled.append((trio.current_time(), endpoint.url))
        await trio.lowlevel.checkpoint()
        if self.faults:
            raise self.faults.popleft()
        ours, theirs = memory_stream_pair()
        self._send.send_nowait(Link(endpoint, ours))
        return StreamTransport(theirs)

    async def accept(self) -> Link:
        """The next connection; skips time until the client dials."""
        return await self._receive.receive()

    async def welcome(self, stored: Sequence[ChatMessage] = (), **answer: Any) -> Link:
        """The next connection, logged in and caught up."""
        link = await self.accept()
        await link.log_in(**answer)
        await link.answer_sync(stored)
        return link


@asynccontextmanager
async def online(
    server: Server,
    *,
    cursor: int = 0,
    stored: Sequence[ChatMessage] = (),
    token: TokenSource = "secret",
    url: str = URL,
    settings: ClientSettings | None = None,
    **answer: Any,
) -> AsyncIterator[tuple[Client, Link]]:
    """A client, logged in to the scripted server and caught up, and the server's end."""
    links: list[Link] = []

    async def welcome() -> None:
        links.append(await server.welcome(stored, **answer))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(welcome)
        async with connect(
            url, token=token, device_id="d1", cursor=cursor, dial=server.dial, settings=settings
        ) as client:
            with trio.fail_after(5):
                while not links:
                    await trio.lowlevel.checkpoint()
            yield client, links[0]
        nursery.cancel_scope.cancel()


async def take(client: Client, count: int) -> list[Delivery]:
    """The next deliveries of the iteration."""
    with trio.fail_after(60):
        return [await client.__anext__() for _ in range(count)]


async def next_notice(client: Client, kind: type[N]) -> N:
    """Take notices until one of `kind`."""
    with trio.fail_after(600):
        async for notice in client.notices:
            if isinstance(notice, kind):
                return notice
    raise AssertionError("the notices ended")


async def states(client: Client, *wanted: str) -> list[StateChange]:
    """Take notices until the states `wanted` have been entered in this order."""
    found: list[StateChange] = []
    with trio.fail_after(600):
        async for notice in client.notices:
            if isinstance(notice, StateChange) and notice.state == wanted[len(found)]:
                found.append(notice)
                if len(found) == len(wanted):
                    break
    return found


def connecting(server: Server, **options: Any) -> AbstractAsyncContextManager[Client]:
    """A client that dials `server`, whose script has to run beside it."""
    defaults: dict[str, Any] = {"token": "secret", "device_id": "d1", "dial": server.dial}
    return connect(URL, **(defaults | options))
