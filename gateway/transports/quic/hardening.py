"""aioquic's connection without the holes that matter to a server; those that matter to either side are closed in
`gateway.protocol.quic_hardening`. What it overrides is small, and each override says what was wrong.

`privates` has checked at import that everything reached into is there. No socket, no clock and no table of peers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from aioquic._buffer import Buffer
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import (
    CRYPTO_BUFFER_SIZE,
    NetworkAddress,
    QuicConnectionId,
    QuicConnectionState,
    QuicReceiveContext,
    stream_is_unidirectional,
)
from aioquic.quic.stream import QuicStream
from aioquic.tls import Epoch, SessionTicket

from gateway.protocol.quic_hardening import GAPS_MOST
from gateway.protocol.quic_settled import SettledConnection
from gateway.transports.quic import privates
from gateway.transports.quic.budget import Act, Budget, Rate
from gateway.transports.quic.connection_ids import ConnectionIds
from gateway.transports.quic.tickets import Tickets, name_of

__all__ = ["GAPS_MOST", "HardenedConnection", "Terms"]

assert privates.PINNED

ACTIVE_IDS: Final = 4
"""Connection ids that a peer has of us at a time: one in use, and three for addresses it may move to."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What all connections of an endpoint have in common."""

    ids: ConnectionIds
    rates: tuple[Rate, ...]
    """By `Act`."""
    window: int
    """Bytes that a connection may hold of its peer's."""
    stream_window: int
    bidirectional: int
    """Streams of the peer open at a time."""
    unidirectional: int
    early_data: bool
    issued: Callable[[bytes, Any], None]
    """Told of each connection id, and whose it is, before the peer can be."""
    moved: Callable[[], None]
    """Told when a client goes on from another address."""


class HardenedConnection(SettledConnection):
    """A server's connection. `peer` is who it belongs to, set before the first datagram."""

    def __init__(
        self,
        configuration: QuicConfiguration,
        terms: Terms,
        *,
        original: bytes,
        retried: bytes | None,
        tickets: Tickets | None = None,
    ) -> None:
        super().__init__(
            configuration=configuration,
            original_destination_connection_id=original,
            retry_source_connection_id=retried,
            session_ticket_fetcher=self._redeem if tickets is not None else None,
            session_ticket_handler=self._keep if tickets is not None else None,
        )
        self.peer: Any = None
        self._tickets = tickets
        self.terms = terms
        self.parting: tuple[int, str] | None = None
        """The close that is said once what is queued has gone as far as it may."""
        self.restrict(terms.window, terms.stream_window)
        self.budget = Budget(terms.rates)
        self._now = 0.0
        self._home: NetworkAddress = None
        """Where it sends to, to see it change."""
        self._local_max_streams_bidi.value = self._local_max_streams_bidi.sent = terms.bidirectional
        self._local_max_streams_uni.value = self._local_max_streams_uni.sent = terms.unidirectional
        self._local_active_connection_id_limit = ACTIVE_IDS  # as many of the client's are kept, and cost it and us
        # Instead of random ids with random tokens, of which nobody can make a stateless reset later.
        self._host_cids = [self._new_id(0, was_sent=True)]
        self.host_cid = self._local_initial_source_connection_id = self._host_cids[0].cid

    # -- what a peer asks ------------------------------------------------------------------------------------

    @property
    def complete(self) -> bool:
        """Whether the handshake is."""
        return self._handshake_complete

    @property
    def ended(self) -> bool:
        """Whether nothing is sent nor heard any more, and the peer may be forgotten."""
        return self._state in _ENDED

    @property
    def unread(self) -> bool:
        """Whether nothing that came could be decrypted."""
        return self._state is QuicConnectionState.FIRSTFLIGHT

    @property
    def said_why(self) -> bool:
        """Whether our last packet carries our own CONNECTION_CLOSE."""
        return self._state is QuicConnectionState.CLOSING

    @property
    def path(self) -> NetworkAddress:
        """Where it sends to."""
        return self._network_paths[0].addr

    def ids(self) -> tuple[bytes, ...]:
        """The connection ids under which it may be reached."""
        return tuple(each.cid for each in self._host_cids)

    def let_go(self) -> None:
        """It is over, and nobody uses it any more: undo what refers to itself, or it waits for the collector."""
        self.peer = self._session_ticket_fetcher = self._session_ticket_handler = None
        self._loss._send_probe = _nothing
        for space in self._spaces.values():
            space.sent_packets.clear()
        if not self._settled and hasattr(self, "tls"):
            tls: Any = self.tls
            tls.alpn_cb = tls.get_session_ticket_cb = tls.new_session_ticket_cb = tls.update_traffic_key_cb = None
            delattr(self, "tls")
        self._cryptos = {}

    def trust_address(self) -> None:
        """A Retry has shown that the client is where it says: what it is sent need not be measured."""
        self._network_paths[0].is_validated = True

    @property
    def verdict(self) -> tuple[int, bool, str]:
        """Why it ended: the code, whether the application said it, and the reason."""
        event = self._close_event
        if event is None:
            return 0, False, "closed"
        return event.error_code, event.frame_type is None, event.reason_phrase

    def part(self, code: int, reason: str) -> None:
        """Close with the application's code, once what is queued has been sent as far as it may be."""
        if self.parting is None:
            self.parting = (code, reason)

    def transmit(self, now: float) -> list[tuple[bytes, NetworkAddress]]:
        """The datagrams that may leave now."""
        datagrams = self.datagrams_to_send(now)
        if self.parting is not None and self._close_event is None:
            self.close(self.parting[0], None, self.parting[1])
            datagrams += self.datagrams_to_send(now)
        return datagrams

    # -- tickets ---------------------------------------------------------------------------------------------

    def _redeem(self, label: bytes) -> SessionTicket | None:
        ticket = self._tickets.redeem(label) if self._tickets is not None else None
        if ticket is not None:
            self.peer.ticket = name_of(label)
        return ticket

    def _keep(self, ticket: SessionTicket) -> None:
        if self._tickets is not None:
            self.peer.tickets_issued = (*self.peer.tickets_issued, self._tickets.keep(ticket))

    # -- connection ids --------------------------------------------------------------------------------------

    def _new_id(self, sequence: int, *, was_sent: bool = False) -> QuicConnectionId:
        ids = self.terms.ids
        cid = ids.issue()
        return QuicConnectionId(
            cid=cid, sequence_number=sequence, stateless_reset_token=ids.reset_token(cid), was_sent=was_sent
        )

    def _replenish_connection_ids(self) -> None:
        """Unpatched: up to eight, random, and unknown to whoever routes until they have been sent."""
        while len(self._host_cids) < min(ACTIVE_IDS, self._remote_active_connection_id_limit):
            fresh = self._new_id(self._host_cid_seq)
            self._host_cids.append(fresh)
            self._host_cid_seq += 1
            self.terms.issued(fresh.cid, self.peer)

    # -- frames ----------------------------------------------------------------------------------------------

    def receive_datagram(self, data: bytes, addr: NetworkAddress, now: float) -> None:
        """As aioquic's."""
        self._now = now
        super().receive_datagram(data, addr, now)
        path = self._network_paths[0].addr if self._network_paths else self._home
        if path != self._home:
            if self._home is not None:
                self.terms.moved()
            self._home = path

    def _get_or_create_stream(self, frame_type: int, stream_id: int) -> QuicStream:
        """Unpatched: streams are opened as fast as packets come."""
        stream = self._streams.get(stream_id)
        if stream is not None:
            return stream
        limit = self._local_max_streams_uni if stream_is_unidirectional(stream_id) else self._local_max_streams_bidi
        used = limit.used
        stream = super()._get_or_create_stream(frame_type, stream_id)
        if limit.used > used:
            self.budget.spend(Act.OPEN, self._now, frame_type, limit.used - used)
        return stream

    def _handle_reset_stream_frame(self, context: QuicReceiveContext, frame_type: int, buf: Buffer) -> None:
        """Unpatched: as often as packets come."""
        self.budget.spend(Act.RESET, context.time, frame_type)
        super()._handle_reset_stream_frame(context, frame_type, buf)

    def _handle_stop_sending_frame(self, context: QuicReceiveContext, frame_type: int, buf: Buffer) -> None:
        """Unpatched: as often as packets come."""
        self.budget.spend(Act.RESET, context.time, frame_type)
        super()._handle_stop_sending_frame(context, frame_type, buf)

    def _handle_new_connection_id_frame(self, context: QuicReceiveContext, frame_type: int, buf: Buffer) -> None:
        """Unpatched: each retires the last one, for ever."""
        self.budget.spend(Act.IDENTIFY, context.time, frame_type)
        super()._handle_new_connection_id_frame(context, frame_type, buf)

    def _handle_retire_connection_id_frame(self, context: QuicReceiveContext, frame_type: int, buf: Buffer) -> None:
        """Unpatched: each makes a new one, for ever."""
        self.budget.spend(Act.IDENTIFY, context.time, frame_type)
        super()._handle_retire_connection_id_frame(context, frame_type, buf)

    def _handle_path_challenge_frame(self, context: QuicReceiveContext, frame_type: int, buf: Buffer) -> None:
        """Unpatched: 32 wait, and each is answered by 1,200 bytes."""
        self.budget.spend(Act.CHALLENGE, context.time, frame_type)
        super()._handle_path_challenge_frame(context, frame_type, buf)

    # -- the handshake ---------------------------------------------------------------------------------------

    def _initialize(self, peer_cid: bytes) -> None:
        """Unpatched: 48 KB of buffers for what has two, before anybody is known; 0-RTT cannot be turned off."""
        super()._initialize(peer_cid)
        self._crypto_buffers = {
            Epoch.INITIAL: Buffer(capacity=2048),
            Epoch.HANDSHAKE: Buffer(capacity=CRYPTO_BUFFER_SIZE),
            Epoch.ONE_RTT: Buffer(capacity=2048),
        }
        if not self.terms.early_data:
            self.tls._max_early_data = None


def _nothing() -> None:
    """A probe that nobody sends any more."""


_ENDED = frozenset({QuicConnectionState.CLOSING, QuicConnectionState.DRAINING, QuicConnectionState.TERMINATED})
