"""From a URL's scheme to the way it is opened."""

from __future__ import annotations

import ssl

import trio

from gateway.client.endpoint import Endpoint
from gateway.client.tickets import MemoryTickets, Resumption
from gateway.client.transport import Dial, Transport, TransportFailed, open_tcp, why
from gateway.client.trust import Trust


def dialler(trust: Trust | ssl.SSLContext | None = None, resume: Resumption | None = None) -> Dial:
    """Opens any supported endpoint; where there is TLS, by `trust`, and where sessions are resumed, by `resume`."""
    if not isinstance(trust, Trust):
        trust = Trust(context=trust)
    resume = resume or Resumption(MemoryTickets())
    return _dialler(trust, resume)


def _dialler(trust: Trust, resume: Resumption) -> Dial:
    context: ssl.SSLContext | None = None

    async def dial(endpoint: Endpoint, nursery: trio.Nursery) -> Transport:
        nonlocal context
        # who speaks TCP loads no WebSocket and no QUIC library
        if endpoint.scheme == "quic":
            from gateway.client.quic import open_quic

            return await open_quic(endpoint, trust, resume, nursery)
        if endpoint.scheme == "https":
            from gateway.client.webtransport import open_webtransport

            return await open_webtransport(endpoint, trust, resume, nursery)
        if context is None and endpoint.secure:
            try:
                context = trust.ssl_context()  # reads the authorities' certificates: once, not for each attempt
            except OSError as error:
                raise TransportFailed(f"cannot use {trust.ca_file!r}: {why(error)}", final=True) from None
        if endpoint.scheme in ("ws", "wss"):
            from gateway.client.websocket import open_websocket

            return await open_websocket(endpoint, context, nursery, trust)
        return await open_tcp(endpoint, context, trust)

    return dial
