"""From a URL's scheme to the way it is opened."""

from __future__ import annotations

import ssl

import trio

from gateway.client.endpoint import Endpoint
from gateway.client.transport import Dial, Transport, open_tcp


def dialler(ssl_context: ssl.SSLContext | None) -> Dial:
    """Opens any supported endpoint; TLS by `ssl_context`, or with the system's trust and full verification."""

    async def dial(endpoint: Endpoint, nursery: trio.Nursery) -> Transport:
        if endpoint.scheme in ("ws", "wss"):
            from gateway.client.websocket import open_websocket  # who speaks TCP loads no WebSocket library

            return await open_websocket(endpoint, ssl_context, nursery)
        return await open_tcp(endpoint, ssl_context)

    return dial
