"""One UDP port and its connections: whose a datagram is, each one's turn, its timers and its end. No lane, no message.

Who belongs to no connection is judged by `reception`; datagrams and the time are the pump's.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import trio
from aioquic.quic.events import (
    ConnectionIdIssued,
    ConnectionIdRetired,
    ConnectionTerminated,
    HandshakeCompleted,
    ProtocolNegotiated,
    QuicEvent,
)

from gateway.core.limits import Admission
from gateway.core.link import Link
from gateway.protocol.codes import Code
from gateway.transports.quic.addresses import listening_socket
from gateway.transports.quic.certificates import Certificates
from gateway.transports.quic.connection_ids import ConnectionIds
from gateway.transports.quic.hardening import HardenedConnection, Terms
from gateway.transports.quic.parted import LASTS, Parted
from gateway.transports.quic.peer import PeerHandler, QuicPeer
from gateway.transports.quic.pump import Pump, Timed
from gateway.transports.quic.reception import Newcomer, Reception
from gateway.transports.quic.statistics import Counts, Drop, QuicStatistics, counted
from gateway.transports.quic.terms import configuration_of, rates_of
from gateway.transports.quic.tickets import Tickets
from gateway.transports.settings_quic import QuicSettings

log = logging.getLogger("gateway.quic")

Protocols = Mapping[str, Callable[[QuicPeer], PeerHandler]]
"""By ALPN: makes the handler of a connection that speaks it."""

ORIGINAL: Final = 1.0
"""Seconds in which a client's first packets, sent again or delayed, still find their connection."""
GOODBYES: Final = 256
"""Datagrams gathered for one flush at the end of the run."""
_UNTOLD: Final = (ConnectionIdIssued, ConnectionIdRetired, ConnectionTerminated)


class QuicEndpoint:
    """A QUIC server on one UDP port.

    Args:
        protocols: what is spoken, the best first. A handler is made once the handshake is complete, or early data has
            come; it calls `serve_link` when there is a link to serve.
        serve: runs one link to its end.
        admission: asked before anything is spent on a handshake.
        secret: of which the keys of resets and Retry tokens are made; the same after a restart.
        worker: number of this process among the `workers` that share the port.
    """

    def __init__(
        self,
        settings: QuicSettings,
        *,
        protocols: Protocols,
        serve: Callable[[Link], Awaitable[None]],
        admission: Admission,
        certificates: Certificates,
        secret: bytes,
        worker: int = 0,
        workers: int = 1,
    ) -> None:
        self.name = "quic"
        self.address = settings.host
        self.port = settings.port
        self.tickets = Tickets(settings.tickets)
        self._settings = settings
        self._protocols = protocols
        self._serve = serve
        self._workers = workers
        self._ids = ConnectionIds(secret, worker=worker, server_id=bytes.fromhex(settings.server_id))
        self._configuration = configuration_of(settings, self._ids, protocols, certificates)
        self._terms = Terms(
            ids=self._ids,
            rates=rates_of(settings),
            window=settings.receive_window,
            stream_window=self._configuration.max_stream_data,
            bidirectional=settings.max_streams,
            unidirectional=settings.max_unidirectional_streams,
            early_data=settings.early_data,
            issued=self._issued,
            moved=self._moved,
        )
        self._counts = Counts()
        self._pump: Pump | None = None
        self._reception = Reception(
            settings, secret, self._ids, workers=workers, admit=admission.admit, send=self._send, counts=self._counts
        )
        self._known: dict[bytes, QuicPeer | Parted] = {}
        self._open = 0
        self._nursery: trio.Nursery | None = None

    # -- life ------------------------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[QuicEndpoint] = trio.TASK_STATUS_IGNORED) -> None:
        """Listen and serve until cancelled; `address` and `port` are those bound once it has started.

        Raises:
            OSError: the address cannot be listened on.
        """
        sock = await listening_socket(self.address, self.port, self._settings.socket_buffer, self._workers > 1)
        self.address, self.port = sock.getsockname()[:2]
        self._pump = pump = Pump(sock, self, segmenting=self._settings.segmentation)
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                await nursery.start(pump.run)
                task_status.started(self)
                await trio.sleep_forever()
        finally:
            self._nursery = None
            self._say_goodbye(pump)
            sock.close()

    def _say_goodbye(self, pump: Pump) -> None:
        """The run ends: tell whoever is left, as far as the socket takes it."""
        now = trio.current_time()
        for peer in {each for each in self._known.values() if isinstance(each, QuicPeer)}:
            peer.close(Code.GOING_AWAY, "this node has ended")
            self.turn(peer, now)
            self._abandon(peer, "ended")
            if pump.sender.pending > GOODBYES:
                pump.sender.flush()
        pump.sender.flush()
        self._known.clear()

    def close(self) -> None:
        """Take nobody more; connections live on. Idempotent."""
        self._reception.closed = True

    def serve_link(self, link: Link) -> None:
        """Run a link to its end, in a task of its own; for the handlers."""
        if self._nursery is not None:
            self._nursery.start_soon(self._run_link, link, name=self.name)

    async def _run_link(self, link: Link) -> None:
        try:
            await self._serve(link)
        except* Exception:
            log.exception("connection_failed", extra={"listener": self.name})
        finally:
            link.abort()

    def statistics(self) -> QuicStatistics:
        """Sizes and counters."""
        half_open, ids = self._reception.half_open, len(self._known)
        return counted(self._counts, self._pump, self.tickets, open=self._open, half_open=half_open, ids=ids)

    # -- as the pump's owner ---------------------------------------------------------------------------------

    def take(self, data: bytes, address: bytes, now: float) -> None:
        """A datagram arrived."""
        if data[0] & 0x80 if data else False:
            known = self._known.get(data[6 : 6 + data[5]]) if len(data) > 6 else None
        else:
            known = self._known.get(data[1 : 1 + self._ids.length])
        if isinstance(known, QuicPeer):
            if known.faulty:
                return  # its close is under way, and what raised would raise again
            try:
                known.quic.receive_datagram(data, address, now)
            except Exception:
                self._fault(known)
            else:
                self.schedule(known)
        elif known is None:
            newcomer = self._reception.judge(data, address, now)
            if newcomer is not None:
                self._begin(newcomer, data, address, now)
        else:
            self._counts.dropped[Drop.PARTED] += 1
            again = known.answer(address)
            if again is not None:
                self._send(again, address)

    def turn(self, timed: Timed, now: float) -> None:
        """Tell a peer's handler what came, send what may go, and look when it has to be looked at again."""
        if not isinstance(timed, QuicPeer) or timed.over:
            return
        peer, quic = timed, timed.quic
        farewell = b""
        try:
            while (event := quic.next_event()) is not None:
                self._tell(peer, event, now)
                if peer.over:
                    return
            for data, address in quic.transmit(now):
                self._send(data, address)
                farewell = data
            if peer.handler is not None and not quic.ended:
                peer.handler.pumped()
        except Exception:
            self._fault(peer)
        if peer.over:
            return
        if quic.ended:
            self._end(peer, farewell if quic.said_why else b"")
        else:
            self._arm(peer, quic, now)

    def fire(self, timed: Timed, now: float) -> None:
        """A peer's timer, or the time up to which it is known that one ended."""
        if isinstance(timed, Parted):
            self._unregister(timed.cids, timed)
        elif isinstance(timed, QuicPeer) and not timed.over:
            self._fire_peer(timed, now)

    def _fire_peer(self, peer: QuicPeer, now: float) -> None:
        quic = peer.quic
        if not quic.complete and now >= peer.since + self._settings.handshake_timeout:
            self._counts.expired += 1
            self._abandon(peer, "the handshake took too long")
            return
        if peer.original and quic.complete and now >= peer.since + ORIGINAL:
            self._unregister((peer.original,), peer)
            peer.original = b""
        if quic.deadline() <= now:
            try:
                quic.handle_timer(now)
            except Exception:
                self._fault(peer)
            else:
                self.schedule(peer)
        else:
            self._arm(peer, quic, now)

    def _arm(self, peer: QuicPeer, quic: HardenedConnection, now: float) -> None:
        when = min(quic.deadline(), now + self._settings.idle_timeout)
        if not quic.complete:
            when = min(when, peer.since + self._settings.handshake_timeout)
        elif peer.original:
            when = min(when, peer.since + ORIGINAL)
        if self._pump is not None:
            self._pump.arm(peer, when)

    # -- the carrier of its peers ----------------------------------------------------------------------------

    def schedule(self, peer: QuicPeer) -> None:
        """Give it a turn when the batch ends, or soon."""
        if self._pump is not None:
            self._pump.schedule(peer)

    def forget(self, peer: QuicPeer) -> None:
        """Send nothing more of it."""
        self._abandon(peer, "aborted")

    # -- one connection's life -------------------------------------------------------------------------------

    def _begin(self, newcomer: Newcomer, data: bytes, address: bytes, now: float) -> None:
        quic = HardenedConnection(
            self._configuration,
            self._terms,
            original=newcomer.original,
            retried=newcomer.retried,
            tickets=self.tickets if self.tickets.enabled else None,
        )
        peer = QuicPeer(quic, newcomer.address, self)
        quic.peer = peer
        peer.since = peer.began = now
        peer.original = newcomer.destination
        self._known[newcomer.destination] = self._known[quic.host_cid] = peer
        self._open += 1
        self._counts.accepted += 1
        self._reception.enter(peer.address)
        try:
            quic.receive_datagram(data, address, now)
        except Exception:
            self._fault(peer)
            return
        if quic.unread:
            self._counts.dropped[Drop.UNREADABLE] += 1
            self._abandon(peer, "not readable")
            return
        if newcomer.retried is not None:
            quic.trust_address()
        self.schedule(peer)

    def _issued(self, cid: bytes, peer: QuicPeer) -> None:
        self._known[cid] = peer

    def _moved(self) -> None:
        self._counts.migrations += 1

    def _tell(self, peer: QuicPeer, event: QuicEvent, now: float) -> None:
        """Hand one event to the handler, which is made when there is the first one to hand."""
        if isinstance(event, ProtocolNegotiated):
            peer.alpn = event.alpn_protocol or ""
            return
        if isinstance(event, _UNTOLD):
            if isinstance(event, ConnectionIdRetired):
                self._unregister((event.connection_id,), peer)
            return
        if isinstance(event, HandshakeCompleted):
            self._counts.completed += 1
            self._counts.resumed += event.session_resumed
            self._reception.leave(peer.address)
            peer.since, peer.half_open = now, False
        if peer.handler is None:
            peer.handler = self._protocols[peer.alpn](peer)
        peer.handler.handle(event)

    def _fault(self, peer: QuicPeer) -> None:
        """In an except block: our bug, or aioquic's. It ends this connection alone."""
        self._counts.failures += 1
        log.exception("quic_fault", extra={"address": peer.address})
        if peer.faulty or not peer.quic.complete:
            self._abandon(peer, "internal error")
        else:
            peer.faulty = True
            peer.close(Code.INTERNAL_ERROR, "internal error")

    def _end(self, peer: QuicPeer, farewell: bytes) -> None:
        """It is closed, by whomever: remember what to answer late packets, and let go of everything else."""
        code, by_application, reason = peer.quic.verdict
        parted = Parted(peer.quic.ids(), farewell, peer.quic.path)
        self._finish(peer, code if by_application else 0, reason)
        for cid in parted.cids:
            self._known[cid] = parted
        if self._pump is not None:
            self._pump.arm(parted, trio.current_time() + LASTS)

    def _abandon(self, peer: QuicPeer, reason: str) -> None:
        self._finish(peer, 0, reason)

    def _finish(self, peer: QuicPeer, code: int, reason: str) -> None:
        if peer.over:
            return
        quic = peer.quic
        self._unregister((*quic.ids(), peer.original), peer)
        self._open -= 1
        self._counts.closed[code] += 1
        if peer.half_open:
            peer.half_open = False
            self._reception.leave(peer.address)
        try:
            peer.finish(code, reason)
        except Exception:
            self._counts.failures += 1
            log.exception("quic_fault", extra={"address": peer.address})
        if self._pump is not None:
            self._pump.disarm(peer)
        quic.let_go()

    def _unregister(self, cids: tuple[bytes, ...], whose: QuicPeer | Parted) -> None:
        for cid in cids:
            if self._known.get(cid) is whose:
                del self._known[cid]

    def _send(self, data: bytes, address: bytes) -> None:
        if self._pump is not None:
            self._pump.send(data, address)
