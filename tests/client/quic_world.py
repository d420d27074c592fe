"""A client on `quic://`, logged in to a scripted aioquic server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio

from gateway.client import (
    Client,
    ClientSettings,
    Trust,
    connect,
)
from gateway.client.laned import LanedConnection
from gateway.client.quic import QuicTransport
from gateway.protocol.messages import (
    AuthRequest,
    AuthResponse,
    ChatMessage,
    MessageAck,
    SyncRequest,
    SyncResponse,
)
from gateway.protocol.types import AckStatus, Lane
from tests.support.quic_server import QuicServer, ServerPeer

USER = 1001
SETTINGS = ClientSettings(backoff_base=0.01, start_timeout=5, close_timeout=1)


async def welcome(server: QuicServer, stored: tuple[ChatMessage, ...] = (), **answer: Any) -> ServerPeer:
    """The next connection, logged in and caught up."""
    peer = await server.accept()
    await log_in(peer, stored, **answer)
    return peer


async def log_in(peer: ServerPeer, stored: tuple[ChatMessage, ...] = (), **answer: Any) -> AuthRequest:
    request, seq = await peer.expect(AuthRequest)
    defaults: dict[str, Any] = {"user_id": USER, "node_id": "n1", "max_frame": 65_536, "resume_ticket": "again"}
    peer.send(AuthResponse(**(defaults | answer)), seq=seq)
    _, seq = await peer.expect(SyncRequest)
    peer.send(SyncResponse(messages=stored, next_cursor=stored[-1].server_seq if stored else 0), seq=seq)
    return request


@asynccontextmanager
async def online(server: QuicServer, **options: Any) -> AsyncIterator[tuple[Client, ServerPeer]]:
    peers: list[ServerPeer] = []

    async def accept() -> None:
        peers.append(await welcome(server))

    defaults: dict[str, Any] = {"trust": Trust(insecure=True), "settings": SETTINGS}
    url = options.pop("url", server.url)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept)
            async with connect(url, token="t", device_id="d1", **(defaults | options)) as client:
                while not peers:
                    await trio.lowlevel.checkpoint()
                yield client, peers[0]


def store(peer: ServerPeer, message: ChatMessage, seq: int, server_seq: int = 1) -> None:
    ack = MessageAck(msg_id=message.msg_id, status=AckStatus.STORED, server_seq=server_seq)
    peer.send(ack, lane=Lane.MESSAGE, seq=seq)


def transport_of(client: Client) -> QuicTransport:
    connection = client._upkeep.connection
    assert isinstance(connection, LanedConnection)
    assert isinstance(connection.lanes, QuicTransport)
    return connection.lanes
