"""The plain socket link. Bytes, a descriptor and the reactor; no message, no TLS, no listening.

It is also the layer that others stand on: see `TcpLink`.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Awaitable, Callable

import trio

from gateway._sockets import READ, Socket
from gateway.core.link import LinkClosed, Receiver
from gateway.protocol.codes import Code
from gateway.transports.reactor import Reactor

log = logging.getLogger("gateway.link")


class TcpLink(Socket):
    """A byte stream over one accepted socket; a `Link` for frames over TCP, and the lower layer of others.

    Layers compose through the one seam of `gateway.core.link`: what stands on top (a WebSocket link) is a
    `Receiver` for the link below and a `Link` for the Connection above:

        below = TcpLink(reactor, sock, address)            # or TlsLink(reactor, sock, address, tls)
        below.attach(self)                                 # self.feed(0, data), self.close(code), self.lost(reason)
        await below.open()                                 # TLS handshake, or nothing; then bytes are pushed
        below.send(data) -> bool; await below.flush()      # as in Link; data is any length
        below.pause(); below.resume(); below.unsent; below.address
        await below.say_goodbye(0, "")                     # close_notify, FIN, and the peer's FIN
        below.abort()                                      # frees the descriptor at once

    What callers may count on beyond `Link`:
    - `feed` is never called before `open` (TLS: at the earliest just before `open` returns), nor after
      `lost`, `abort` or the start of `say_goodbye`. Bytes that come while saying goodbye are dropped.
    - At EOF or an error the descriptor is freed first, then `lost` is told. What fails while `open` is awaited is
      told by LinkClosed alone.
    - `send` while bytes are unsent appends them in order and returns False, so that a layer may answer a ping
      or send its close frame then. The caller keeps the bound.
    - `send` on a dead socket returns False and `flush` raises LinkClosed; after `abort` it drops the bytes
      and returns True.
    - `flush` has one caller at a time; a cancelled flush loses nothing.
    - What `Receiver.feed` raises ends this link alone, by `close(4401)`.
    """

    __slots__ = ("_parted", "_reactor", "_waiting", "address", "spent")

    transport = "tcp"
    prefix: Callable[[int], bytes] | None = None

    def __init__(
        self, reactor: Reactor, sock: socket.socket, address: str, *, share: int = READ, layered: bool = False
    ) -> None:
        """Take over `sock`: connected, non-blocking, TCP_NODELAY set (a `Listener` has seen to it)."""
        super().__init__(sock.detach(), share, layered)
        self.address = address
        self.spent = 0.0
        """Seconds since accept that went by before this was made: they count against the time to bring it up."""
        self._reactor = reactor
        self._waiting = False
        self._parted: trio.Event | None = None

    def attach(self, receiver: Receiver) -> None:
        """Say who is told."""
        self.receiver = receiver

    async def open(self) -> None:
        """Let bytes be pushed.

        Raises:
            LinkClosed: aborted before, or the kernel watches no more descriptors.
        """
        self._start()

    async def flush(self) -> None:
        """Wait until the socket has taken everything.

        Raises:
            LinkClosed: it never will.
        """
        if not self.unsent:
            await trio.lowlevel.checkpoint()
        while self.unsent:
            await self._wait(trio.lowlevel.wait_writable)
            try:
                self.send_rest()
            except OSError as error:
                raise LinkClosed(reason_of(error)) from None
        if self.fd < 0:
            raise LinkClosed("closed")

    def pause(self) -> None:
        """Stop reading; idempotent."""
        self._reactor.pause(self.fd)

    def resume(self) -> None:
        """Read again; idempotent."""
        self._reactor.resume(self.fd)

    async def say_goodbye(self, code: int, reason: str) -> None:
        """Flush, send FIN, and wait for the peer's; code and reason have no words here. Never raises LinkClosed."""
        if self.fd < 0:
            return
        # Read on, and drop: closing with bytes unread would send RST, and the peer's kernel might throw away
        # our last words.
        self._parted = parted = trio.Event()
        self._reactor.register(self.fd, self._linger)
        try:
            if self.unsent:
                await self.flush()
            self.shutdown()
        except (LinkClosed, OSError):
            return
        await parted.wait()

    def abort(self) -> None:
        """Free the descriptor at once, with RST if bytes are unsent; idempotent."""
        fd = self.fd
        if fd < 0:
            return
        self.receiver = None
        self._reactor.unregister(fd)
        if self._waiting:
            trio.lowlevel.notify_closing(fd)
        self.close()
        if self._parted is not None:
            self._parted.set()

    def lost(self, reason: str) -> None:
        """The socket has ended: free the descriptor, then say so."""
        receiver = self.receiver
        self.abort()
        if receiver is not None:
            receiver.lost(reason)

    def fault(self) -> None:
        """In an except block: our own bug; it ends this link alone."""
        log.exception("link_fault", extra={"transport": self.transport})
        self._reactor.unregister(self.fd)
        if self.receiver is not None:
            self.receiver.close(Code.INTERNAL_ERROR)

    def _start(self) -> None:
        if self.fd < 0:
            raise LinkClosed("closed")
        try:
            self._reactor.register(self.fd, self)
        except OSError as error:
            raise LinkClosed(reason_of(error)) from None

    def _linger(self) -> None:
        """Drop what still comes until the peer has ended too."""
        try:
            if self.receive() != b"":
                return
        except OSError:
            pass
        self._reactor.unregister(self.fd)
        if self._parted is not None:
            self._parted.set()

    async def _wait(self, ready: Callable[[int], Awaitable[None]]) -> None:
        """Wait for the descriptor by Trio's own poll (`wait_readable`, `wait_writable`).

        Raises:
            LinkClosed: aborted before or meanwhile.
        """
        if self.fd < 0:
            raise LinkClosed("closed")
        self._waiting = True
        try:
            await ready(self.fd)
        except trio.ClosedResourceError:
            raise LinkClosed("closed") from None
        finally:
            self._waiting = False
        if self.fd < 0:  # aborted between the event and now
            raise LinkClosed("closed")


def reason_of(error: OSError) -> str:
    """A socket error in a few words."""
    return error.strerror or repr(error)
