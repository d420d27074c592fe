"""From a URL's scheme to the way it is opened."""

from __future__ import annotations

import ssl

import trio

from gateway.client.endpoint import Endpoint
from gateway.client.transport import Dial, Transport, open_tcp


def dialler(ssl_context: ssl.SSLContext | None) -> Dial:
    """Opens any supported endpoint; TLS by `ssl_context`, or with the system's trust and full verification."""
    context = ssl_context

    async def dial(endpoint: Endpoint, nursery: trio.Nursery) -> Transport:
        nonlocal context
        if context is None and endpoint.secure:
            context = ssl.create_default_context()  # reads the system's certificates: once, not for each attempt
        if endpoint.scheme in ("ws", "wss"):
            from gateway.client.websocket import open_websocket  # who speaks TCP loads no WebSocket library

            return await open_websocket(endpoint, context, nursery)
        return await open_tcp(endpoint, context)

    return dial
