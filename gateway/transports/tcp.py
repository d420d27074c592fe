"""The plain socket link. Bytes, a descriptor and the reactor; no message, no TLS, no listening.

It is also the layer that others stand on: see `TcpLink`.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from gateway.core.link import LinkClosed, Receiver
from gateway.protocol.codes import Code
from gateway.transports.reactor import Reactor

log = logging.getLogger("gateway.link")

READ: Final = 65_536
"""Bytes taken per readiness: the share of one peer before the next one's turn."""
_RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER that makes close() send RST: a stream that was cut must not look complete."""


class TcpLink:
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

    __slots__ = ("_fd", "_parted", "_reactor", "_receiver", "_rest", "_socket", "_waiting", "address")

    transport = "tcp"
    prefix: Callable[[int], bytes] | None = None

    def __init__(self, reactor: Reactor, sock: socket.socket, address: str) -> None:
        """Take over `sock`: connected, non-blocking, TCP_NODELAY set (a `Listener` has seen to it)."""
        self.address = address
        self._reactor = reactor
        self._socket = sock
        self._fd = sock.fileno()
        self._receiver: Receiver | None = None
        self._rest: bytearray | None = None
        self._waiting = False
        self._parted: trio.Event | None = None

    def attach(self, receiver: Receiver) -> None:
        self._receiver = receiver

    async def open(self) -> None:
        self._start()

    def send(self, data: bytes) -> bool:
        if self._rest is not None:
            self._rest += data
            return False
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            # The reactor tells `lost`; whoever flushes learns it there.
            if self._fd < 0:
                return True
            sent = 0
        if sent == len(data):
            return True
        self._rest = bytearray(data) if sent == 0 else bytearray(memoryview(data)[sent:])
        return False

    @property
    def unsent(self) -> int:
        return len(self._rest) if self._rest is not None else 0

    async def flush(self) -> None:
        if self._rest is None:
            await trio.lowlevel.checkpoint()
        while self._rest is not None:
            await self._wait(trio.lowlevel.wait_writable)
            try:
                sent = self._socket.send(self._rest)
            except BlockingIOError:
                continue
            except OSError as error:
                raise LinkClosed(reason_of(error)) from None
            del self._rest[:sent]  # the front of a bytearray goes without moving the rest
            if not self._rest:
                self._rest = None
        if self._fd < 0:
            raise LinkClosed("closed")

    def pause(self) -> None:
        self._reactor.pause(self._fd)

    def resume(self) -> None:
        self._reactor.resume(self._fd)

    async def say_goodbye(self, code: int, reason: str) -> None:
        if self._fd < 0:
            return
        # Read on, and drop: closing with bytes unread would send RST, and the peer's kernel might throw away
        # our last words.
        self._parted = parted = trio.Event()
        self._reactor.register(self._fd, self._linger)
        try:
            if self._rest is not None:
                await self.flush()
            self._socket.shutdown(socket.SHUT_WR)
        except (LinkClosed, OSError):
            return
        await parted.wait()

    def abort(self) -> None:
        fd = self._fd
        if fd < 0:
            return
        self._fd = -1
        self._receiver = None
        self._reactor.unregister(fd)
        if self._waiting:
            trio.lowlevel.notify_closing(fd)
        if self._rest is not None:
            self._rest = None
            with contextlib.suppress(OSError):
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._socket.close()
        if self._parted is not None:
            self._parted.set()

    def _start(self) -> None:
        """Let the reactor push.

        Raises:
            LinkClosed: already aborted, or the kernel watches no more descriptors.
        """
        if self._fd < 0:
            raise LinkClosed("closed")
        try:
            self._reactor.register(self._fd, self._readable)
        except OSError as error:
            raise LinkClosed(reason_of(error)) from None

    def _readable(self) -> None:
        """Called by the reactor, for every chunk that arrives: no step more than it takes."""
        try:
            data = self._socket.recv(READ)
        except BlockingIOError:
            return
        except OSError as error:
            self._lost(reason_of(error))
            return
        if not data:
            self._lost("end of file")
            return
        try:
            self._receiver.feed(0, data)  # type: ignore[union-attr]  # attached before open
        except Exception:
            self._fault()

    def _fault(self) -> None:
        """In an except block: our own bug; it ends this link alone."""
        log.exception("link_fault", extra={"transport": self.transport})
        self._reactor.unregister(self._fd)
        if self._receiver is not None:
            self._receiver.close(Code.INTERNAL_ERROR)

    def _lost(self, reason: str) -> None:
        """Free the descriptor, then say so."""
        receiver = self._receiver
        self.abort()
        if receiver is not None:
            receiver.lost(reason)

    def _linger(self) -> None:
        """Drop what still comes until the peer has ended too."""
        try:
            if self._socket.recv(READ):
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        self._reactor.unregister(self._fd)
        if self._parted is not None:
            self._parted.set()

    async def _wait(self, ready: Callable[[int], Awaitable[None]]) -> None:
        """Wait for the descriptor by Trio's own poll (`wait_readable`, `wait_writable`).

        Raises:
            LinkClosed: aborted before or meanwhile.
        """
        if self._fd < 0:
            raise LinkClosed("closed")
        self._waiting = True
        try:
            await ready(self._fd)
        except trio.ClosedResourceError:
            raise LinkClosed("closed") from None
        finally:
            self._waiting = False
        if self._fd < 0:  # aborted between the event and now
            raise LinkClosed("closed")


def reason_of(error: OSError) -> str:
    """A socket error in a few words."""
    return error.strerror or repr(error)
