"""An echo application on the production path: listener, reactor, TLS, WebSocketLink; text and binary messages whole.

    python -m tests.autobahn.echo_server [certificate.pem]

Prints the port it listens on and serves until its standard input ends. Bounds are wide open: Autobahn's
largest message has 16 MiB, another one 65,536 fragments.
"""

from __future__ import annotations

import socket
import sys

import trio

from gateway.core.link import Link, LinkClosed
from gateway.protocol.websocket import server_header
from gateway.transports.listener import Listener
from gateway.transports.reactor import Reactor
from gateway.transports.settings import TlsSettings
from gateway.transports.settings_websocket import WebSocketSettings
from gateway.transports.tcp import TcpLink
from gateway.transports.tls import TlsLink, load_tls
from gateway.transports.websocket import WebSocketLink, WebSocketTerms

SETTINGS = WebSocketSettings(max_message=1 << 25, max_fragments=1 << 20, ping_burst=10_000, ping_rate=10_000)
CLOSING = 2.0


class Echo:
    """A Receiver that sends back each message as what it was, and reads no further while the socket is full."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._stuck = False
        self._end: tuple[int, str] | None = None
        self._wake = trio.Event()

    def feed(self, opcode: int, message: bytes) -> None:
        """One message; in message mode the lane is its opcode."""
        if not self._link.send(server_header(len(message), opcode) + message):
            self._stuck = True
            self._link.pause()
            self._wake.set()

    def close(self, code: int, reason: str = "") -> None:
        """The link wants to end in order."""
        self._end = self._end or (code, reason)
        self._wake.set()

    def lost(self, reason: str = "") -> None:
        """The link has ended: flush and goodbye will find out."""
        self.close(0, reason)

    async def run(self) -> None:
        """Serve to the end."""
        try:
            self._link.attach(self)
            await self._link.open()
            while self._end is None or self._stuck:
                await self._wake.wait()
                self._wake = trio.Event()
                if self._stuck:
                    await self._link.flush()
                    self._stuck = False
                    if self._end is None:
                        self._link.resume()
            with trio.move_on_after(CLOSING):
                await self._link.say_goodbye(*self._end)
        except LinkClosed:
            pass
        finally:
            self._link.abort()


async def serve(link: Link) -> None:
    """One connection."""
    await Echo(link).run()


async def main(certificate: str) -> None:
    """Listen, say where, and serve until standard input ends."""
    reactor = Reactor()
    terms = WebSocketTerms(SETTINGS, messages=True)
    tls = load_tls(TlsSettings(certificate=certificate)) if certificate else None

    def link(sock: socket.socket, address: str) -> WebSocketLink:
        below = TcpLink(reactor, sock, address) if tls is None else TlsLink(reactor, sock, address, tls)
        return WebSocketLink(below, terms)

    async with trio.open_nursery() as nursery:
        await nursery.start(reactor.run)
        listener = await nursery.start(Listener("echo", "127.0.0.1", 0, link=link, serve=serve).run)
        print(listener.port, flush=True)
        await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, sys.argv[1] if len(sys.argv) > 1 else "")
