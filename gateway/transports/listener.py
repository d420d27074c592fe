"""A listening socket: accepts, turns away, and starts one task per connection. Knows neither TLS nor messages.

Every accept ends in one of three ways: refused before anything is spent on it, handed to `serve` as a link, or closed.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from gateway.core.link import Link
from gateway.protocol.codes import Code
from gateway.transports.proxy_protocol import (
    HEADER,
    ProxyHeaderError,
    TrustedProxies,
    body_length,
    client_address,
    plain_address,
)
from gateway.transports.tcp import TcpLink

log = logging.getLogger("gateway.listener")

BATCH: Final = 64
"""Connections accepted between two looks at everything else that runs."""
BACK_OFF: Final = 0.1
"""Seconds without accepting after the system ran out of something."""
SILENCE: Final = 10.0
"""Seconds between two log lines about the same trouble."""
PROXY_HEADER: Final = 1.0
"""Seconds from accept in which a trusted proxy's header must be complete: proxies write it at once, before
anything the client says, so no client can stretch it. What it took counts against the link's own deadline."""
UNSENT: Final = 131_072
"""Bytes that the kernel holds of one connection beyond what is on its way. It would take 4 MB from a client that reads
slowly, and a message would wait behind that much of a file; and what it holds counts against nobody's outbox."""
Address = tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Listener:
    """Accepts on one address. `run` is its whole life.

    Args:
        name: For messages: `tcp`, `websocket`.
        host, port: Where to listen; port 0 lets the system choose.
        link: Builds the link around an accepted socket and its peer's address.
        serve: Runs one connection to its end; what it raises ends that connection alone.
        admit: Says 0, or the code to refuse with; asked before anything is spent on a connection.
        refusal: The bytes that tell a code to a peer who was not admitted, before any TLS; empty to say nothing.
        trusted_proxies: With PROXY protocol: who sends a header.
        reuse_port: Whether other worker processes listen on the same address.
    """

    def __init__(
        self,
        name: str,
        host: str,
        port: int,
        *,
        link: Callable[[socket.socket, str], Link],
        serve: Callable[[Link], Awaitable[None]],
        admit: Callable[[str], int] = lambda _address: 0,
        refusal: Callable[[int], bytes] = lambda _code: b"",
        trusted_proxies: TrustedProxies | None = None,
        backlog: int = 1024,
        reuse_port: bool = False,
    ) -> None:
        self.name = name
        self.address = host
        """Where it listens, once `run` has started."""
        self.port = port
        self.accepted = 0
        self.refused = 0
        self._link = link
        self._serve = serve
        self._admit = admit
        self._refusal = refusal
        self._proxies = trusted_proxies
        self._backlog = backlog
        self._reuse_port = reuse_port
        self._socket: socket.socket | None = None
        self._reserve = _Reserve()
        self._complained = -SILENCE

    async def run(self, *, task_status: trio.TaskStatus[Listener] = trio.TASK_STATUS_IGNORED) -> None:
        """Listen, and accept until `close`; then return when the connections have ended. Cancelling ends those too.

        Raises:
            OSError: the address cannot be listened on; says which and why.
        """
        family, where = await self._resolve()
        self._socket = self._listening(family, where)  # no checkpoint from here to the try
        try:
            self._reserve.take()
            self.address, self.port = self._socket.getsockname()[:2]
            async with trio.open_nursery() as nursery:
                task_status.started(self)
                while self._socket is not None:
                    with contextlib.suppress(trio.ClosedResourceError):
                        await trio.lowlevel.wait_readable(self._socket)
                    if not self._accept_batch(nursery):
                        await trio.sleep(BACK_OFF)
        finally:
            self.close()

    def close(self) -> None:
        """Stop listening at once; connections live on. Idempotent."""
        listening, self._socket = self._socket, None
        self._reserve.give_back()
        if listening is not None:
            trio.lowlevel.notify_closing(listening)
            listening.close()

    async def _resolve(self) -> tuple[int, Address]:
        try:
            found = await trio.socket.getaddrinfo(
                self.address, self.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
        except OSError as error:
            raise OSError(error.errno, f"{self.name}: no such address to listen on: {self.address}") from None
        return found[0][0], found[0][4]

    def _listening(self, family: int, where: Address) -> socket.socket:
        listening = socket.socket(family, socket.SOCK_STREAM)
        try:
            listening.setblocking(False)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # what is accepted inherits it
            if hasattr(socket, "TCP_NOTSENT_LOWAT"):
                listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT)  # and this
            if self._reuse_port:
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, self.address != "::")
            listening.bind(where)
            listening.listen(self._backlog)
        except OSError as error:
            listening.close()
            what = f"{self.name}: cannot listen on {self.address} port {self.port}: {error.strerror}"
            raise OSError(error.errno, what) from None
        return listening

    def _accept_batch(self, nursery: trio.Nursery) -> bool:
        """Accept who is waiting, up to a bound; False when the system has run out of something."""
        for _ in range(BATCH):
            if self._socket is None:
                break
            try:
                sock, peer = self._socket.accept()
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    self._exhausted(error)
                    return False
                continue  # the error of one connection that was gone before it was accepted, see accept(2)
            self._begin(nursery, sock, plain_address(peer[0]))
        return True

    def _begin(self, nursery: trio.Nursery, sock: socket.socket, address: str) -> None:
        sock.setblocking(False)
        if self._proxies is not None and address in self._proxies:
            nursery.start_soon(self._run_proxied, sock, address, name=self.name)
            return
        link = self._admitted(sock, address)
        if link is not None:
            # A name that is shared: Trio would write a new one for each task.
            nursery.start_soon(self._run, link, name=self.name)

    def _admitted(self, sock: socket.socket, address: str) -> Link | None:
        """The link, or None when the socket has been refused and closed."""
        try:
            code = self._admit(address)
            if code:
                self._refuse(sock, code)
                return None
            link = self._link(sock, address)
        except Exception:
            log.exception("accept_failed", extra={"listener": self.name})
            sock.close()
            return None
        self.accepted += 1
        return link

    async def _run(self, link: Link) -> None:
        try:
            await self._serve(link)
        except* Exception:
            log.exception("connection_failed", extra={"listener": self.name})
        finally:
            link.abort()

    async def _run_proxied(self, sock: socket.socket, proxy: str) -> None:
        address = None
        accepted = trio.current_time()
        try:
            with trio.fail_after(PROXY_HEADER):
                address = await _read_proxy_header(sock) or proxy
        except (ProxyHeaderError, OSError, trio.TooSlowError) as error:
            log.warning("proxy_header_refused", extra={"listener": self.name, "proxy": proxy, "reason": repr(error)})
        finally:
            if address is None:
                sock.close()
        link = self._admitted(sock, address) if address is not None else None
        if link is not None:
            if isinstance(link, TcpLink):
                link.spent = trio.current_time() - accepted
            await self._run(link)

    def _refuse(self, sock: socket.socket, code: int) -> None:
        """Say why, as far as the socket takes it at once, and close."""
        self.refused += 1
        with sock, contextlib.suppress(OSError):
            sock.setblocking(False)
            words = self._refusal(code)
            if words:
                sock.send(words)
            sock.shutdown(socket.SHUT_WR)
            sock.recv(65_536)  # what is unread at close would turn our FIN into a RST

    def _exhausted(self, error: OSError) -> None:
        """No descriptor, or no memory in the kernel: with the one kept back, refuse those who wait."""
        now = trio.current_time()
        if now - self._complained >= SILENCE:
            self._complained = now
            log.error("accept_exhausted", extra={"listener": self.name, "error": error.strerror})
        for _ in range(BATCH):
            if self._socket is None or not self._reserve.give_back():
                break
            try:
                sock, _peer = self._socket.accept()
            except OSError:
                break
            else:
                self._refuse(sock, Code.NODE_FULL)
            finally:
                self._reserve.take()


class _Reserve:
    """A descriptor kept back, to be spent on refusing when there are no others."""

    def __init__(self) -> None:
        self._fd = -1

    def take(self) -> None:
        """Idempotent; without success when there is none to have."""
        if self._fd < 0:
            with contextlib.suppress(OSError):
                self._fd = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def give_back(self) -> bool:
        """Whether there was one to give back."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
        return fd >= 0


async def _read_proxy_header(sock: socket.socket) -> str | None:
    """Read the header and not a byte of what follows it.

    Raises:
        ProxyHeaderError: it is none, or ended early.
        OSError: the socket failed.
    """
    header = await _receive_exactly(sock, HEADER)
    return client_address(header, await _receive_exactly(sock, body_length(header)))


async def _receive_exactly(sock: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size:
        await trio.lowlevel.wait_readable(sock)
        with contextlib.suppress(BlockingIOError):
            data = sock.recv(size - len(received))
            if not data:
                raise ProxyHeaderError("the proxy ended the connection")
            received += data
    return received
