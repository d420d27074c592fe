"""One QUIC connection's socket, timer and path: bytes from the wire into aioquic and back. Knows no lane and no frame.

Everything happens in two tasks: one waits for datagrams, one for the timer or for something to be sent. The socket
may be exchanged at any time (`rebind`): the connection goes on from the new address.
"""

from __future__ import annotations

import errno
import math
import socket
from typing import Protocol

import trio
from aioquic.quic.events import HandshakeCompleted, QuicEvent

from gateway.client.bell import Bell
from gateway.client.quic_engine import BAD_CERTIFICATE, NO_COMMON_PROTOCOL, TLS_ALERTS, Engine
from gateway.client.transport import TransportFailed, why

KEEP_ALIVE = 30.0
"""Seconds without a datagram from the server after which we ask for one."""
REFUSED_FOR = 1.0
"""Seconds of "port unreachable" and nothing else that end an established connection: the server's process is gone."""
SILENCE = 3.0
"""Seconds without an answer to what we sent, probes included, after which another local address is tried."""
REBIND_PAUSE = 5.0
"""Seconds between two attempts to go on from another local address by ourselves."""
LINGER = 1.0
"""Seconds for which the old socket still hears what the server sent before it learned of the new address."""
DATAGRAMS = 64
"""Datagrams taken before the others have a turn."""
LARGEST = 65_536

Address = tuple[str, int] | tuple[str, int, int, int]


class Handler(Protocol):
    """Who is told what arrives. Synchronous; never raises."""

    def handle(self, event: QuicEvent) -> None:
        """The next event, in order."""

    def pumped(self) -> None:
        """Everything that came in this turn was told."""

    def ended(self, failure: TransportFailed) -> None:
        """The connection is over; told once, last."""


class Pump:
    """Runs one connection. Its tasks raise nothing; after `ended` they end by themselves."""

    def __init__(self, engine: Engine, family: int, address: Address, nursery: trio.Nursery) -> None:
        self.engine = engine
        self.handshaken = False
        self.failure: TransportFailed | None = None
        self.changed = Bell()
        """Rings at the end of each turn: whoever waits for room, the handshake or the end looks again."""
        self._family = family
        self._address = address
        self._nursery = nursery
        self._handler: Handler | None = None
        self._to_send = Bell()
        self._socket: socket.socket | None = None
        self._sockets: set[socket.socket] = set()
        self._waiting: trio.CancelScope | None = None
        self._heard = False
        self._heard_at = trio.current_time()
        self._asked_at = self._heard_at
        self._refused_at = math.inf
        self._rebound_at = -math.inf

    @property
    def heard(self) -> bool:
        """Whether anything has come from the server."""
        return self._heard

    @property
    def local(self) -> tuple[str, int]:
        """Our address and port of this moment."""
        assert self._socket is not None
        name = self._socket.getsockname()
        return name[0], name[1]

    def start(self, handler: Handler) -> None:
        """Send the first packets.

        Raises:
            TransportFailed: there is no way to that address.
        """
        self._handler = handler
        try:
            self._use(self._open(None))
        except OSError as error:
            raise TransportFailed(f"cannot reach {self._address[0]}: {why(error)}") from None
        self.engine.connect(self._address, trio.current_time())
        self._nursery.start_soon(self._keep_time)

    def touch(self) -> None:
        """Something was queued: it is sent when the tasks that run now have had their turn."""
        self._to_send.ring()

    def end(self, failure: TransportFailed) -> None:
        """It is over, for this reason; the server is told nothing. The first reason counts."""
        if self.failure is not None:
            return
        self.failure = failure
        if self._handler is not None:
            self._handler.ended(failure)
        for each in tuple(self._sockets):
            self._drop(each)
        self.changed.ring()
        self._to_send.ring()

    def close(self, code: int, reason: str, failure: TransportFailed | None = None) -> None:
        """Say goodbye with a code and end; to our own side it was `failure`."""
        if self.failure is None and self._socket is not None:
            self.engine.close(error_code=code, reason_phrase=reason)
            self._transmit(copies=2)  # nobody repeats it when it is lost, and the server would wait for long
        self.end(failure or TransportFailed(reason or "closed"))

    def fail(self, code: int, failure: TransportFailed) -> None:
        """End for this reason, told to the server as an error of the transport (a TLS alert, say)."""
        if self.failure is None:
            self.engine.close(error_code=code, frame_type=0)
            self._transmit(copies=2)
            self.end(failure)

    def rebind(self, local: tuple[str, int] | None = None) -> None:
        """Go on from another socket; the old one is heard for a moment more.

        Raises:
            OSError: there is no such address, or no network.
        """
        old = self._socket
        self._use(self._open(local))
        self._rebound_at = trio.current_time()
        self._refused_at = math.inf
        self.engine.change_connection_id()  # so that nobody on the way links the two addresses
        self.engine.send_ping(0)
        self.touch()
        if old in self._sockets:
            assert old is not None
            self._nursery.start_soon(self._retire, old)

    # -- sockets -------------------------------------------------------------------------------------------

    def _open(self, local: tuple[str, int] | None) -> socket.socket:
        """Connected, so that the system tells when nobody listens, and gives us nothing from anybody else."""
        opened = socket.socket(self._family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            if local is not None:
                opened.bind(local)
            opened.connect(self._address)
        except OSError:
            opened.close()
            raise
        return opened

    def _use(self, opened: socket.socket) -> None:
        self._socket = opened
        self._sockets.add(opened)
        self._nursery.start_soon(self._listen, opened)

    def _drop(self, each: socket.socket) -> None:
        if each in self._sockets:
            self._sockets.discard(each)
            trio.lowlevel.notify_closing(each)
            each.close()

    async def _retire(self, old: socket.socket) -> None:
        try:
            await trio.sleep(LINGER)
        finally:
            self._drop(old)

    async def _listen(self, own: socket.socket) -> None:
        try:
            while own in self._sockets:
                await trio.lowlevel.wait_readable(own)
                self._drain(own)
                await trio.lowlevel.checkpoint()
        except trio.ClosedResourceError:
            pass

    def _drain(self, own: socket.socket) -> None:
        now = trio.current_time()
        for _ in range(DATAGRAMS):
            try:
                data = own.recv(LARGEST)
            except BlockingIOError:
                break
            except OSError as error:
                self._trouble(error, own, now)
                break
            self._heard = True
            self._heard_at = self._asked_at = now
            self._refused_at = math.inf
            if self.engine.is_reset(data):
                self.end(TransportFailed("the server has forgotten this connection"))
                return
            try:
                self.engine.receive_datagram(data, self._address, now)
            except Exception as error:  # as in `_turn`
                self.end(TransportFailed(f"fault in QUIC: {error!r}"))
                return
        self._turn(now)
        if self._waiting is not None:
            self._waiting.deadline = self._due(now)  # an acknowledgement is due in a millisecond, as a rule

    def _trouble(self, error: OSError, own: socket.socket, now: float) -> None:
        if own is not self._socket or error.errno == errno.EMSGSIZE:
            return
        if error.errno == errno.ECONNREFUSED:
            self._refused_at = min(self._refused_at, now)
            if not self.handshaken or now - self._refused_at >= REFUSED_FOR:
                self.end(TransportFailed(f"nobody answers at {self._address[0]} UDP port {self._address[1]}"))
            return
        self._rebind_now(now)

    def _rebind_now(self, now: float) -> None:
        """The address may be gone, or its way: try another. Without a network it is tried again in time."""
        if self.failure is not None or not self.engine.confirmed or now - self._rebound_at < REBIND_PAUSE:
            return
        self._rebound_at = now
        try:
            self.rebind()
        except OSError:
            return

    # -- turns ---------------------------------------------------------------------------------------------

    async def _keep_time(self) -> None:
        try:
            while self.failure is None:
                now = trio.current_time()
                due = self.engine.get_timer()
                if due is not None and now >= due:
                    self.engine.handle_timer(now)
                self._turn(now)
                if self.failure is not None:
                    return
                with trio.CancelScope(deadline=self._due(now)) as self._waiting:
                    await self._to_send.wait()
                self._waiting = None
                self._watch(trio.current_time())
        finally:
            self.close(0, "")  # cancelled: the server need not wait for us

    def _due(self, now: float) -> float:
        """When something has to be done though nothing comes."""
        timer = self.engine.get_timer()
        due = min(math.inf if timer is None else timer, self._asked_at + KEEP_ALIVE)
        return max(due, now + 0.001)

    def _watch(self, now: float) -> None:
        if now - self._asked_at >= KEEP_ALIVE:
            self._asked_at = now
            self.engine.send_ping(0)
        if self.engine.probes >= 3 and now - self._heard_at >= SILENCE:
            self._rebind_now(now)

    def _turn(self, now: float) -> None:
        try:
            self._tell(now)
        except Exception as error:  # a fault in aioquic, or ours, ends this connection and not the program
            self.end(TransportFailed(f"fault in QUIC: {error!r}"))

    def _tell(self, now: float) -> None:
        handler = self._handler
        if self.failure is not None or handler is None:
            return
        while (event := self.engine.next_event()) is not None:
            self.handshaken |= isinstance(event, HandshakeCompleted)
            handler.handle(event)
            if self.failure is not None:
                return
        handler.pumped()
        self._transmit()
        if self.engine.over is not None:
            self.end(_reason(*self.engine.over))
        self.changed.ring()

    def _transmit(self, copies: int = 1) -> None:
        """Hand packets to the system; what it does not take is lost on the way, as far as QUIC knows."""
        now = trio.current_time()
        for data, address in self.engine.datagrams_to_send(now) * copies:
            own = self._socket
            if address != self._address or own is None or own not in self._sockets:
                continue
            try:
                own.send(data)
            except BlockingIOError:
                continue
            except OSError as error:
                self._trouble(error, own, now)
                if self.failure is not None:
                    return


def _reason(code: int, reason: str, application: bool, ours: bool) -> TransportFailed:
    if application:
        return TransportFailed(reason or "connection lost", code=code if 4000 <= code < 5000 else 0)
    if ours and code in BAD_CERTIFICATE:
        return TransportFailed(f"certificate not trusted ({reason})", final=True)
    if code == NO_COMMON_PROTOCOL:
        return TransportFailed("the server does not speak this protocol there", final=True)
    if code in TLS_ALERTS:
        return TransportFailed(f"TLS failed: {reason or f'alert {code - TLS_ALERTS.start}'}")
    return TransportFailed(f"QUIC ended: {reason}" if reason else f"QUIC ended with {code:#x}")
