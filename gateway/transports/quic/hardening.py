"""aioquic's connection without its holes: what it overrides is small, and each override says what was wrong.

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
    QuicConnection,
    QuicConnectionError,
    QuicConnectionId,
    QuicConnectionState,
    QuicReceiveContext,
    stream_is_unidirectional,
)
from aioquic.quic.packet import QuicErrorCode, QuicFrameType
from aioquic.quic.packet_builder import QuicPacketBuilder
from aioquic.quic.recovery import QuicPacketSpace
from aioquic.quic.stream import QuicStream
from aioquic.tls import Epoch, SessionTicket

from gateway.transports.quic import privates
from gateway.transports.quic.budget import Act, Budget, Rate
from gateway.transports.quic.connection_ids import ConnectionIds
from gateway.transports.quic.credit import Credit
from gateway.transports.quic.tickets import Tickets, name_of

__all__ = ["HardenedConnection", "Terms"]

assert privates.PINNED

ACTIVE_IDS: Final = 4
"""Connection ids that a peer has of us at a time: one in use, and three for addresses it may move to."""
HELLO_MOST: Final = 32 * 1024
"""Bytes of handshake that may arrive out of order. aioquic fills half a megabyte with zeros for one far byte, before
it knows anybody; a ClientHello, with a post-quantum key and all, has two kilobytes."""
GAPS: Final = 32
"""Pieces of one stream kept apart without a look at the others."""
GAPS_MOST: Final = 1024
"""Pieces kept apart on one connection; each costs a hundred bytes, whatever it holds."""
DATAGRAMS: Final = 64
"""Datagrams of the application that wait for the congestion window; the next one is dropped."""


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


class HardenedConnection(QuicConnection):
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
        self.credit = Credit(self._local_max_data, self._streams, terms.window, terms.stream_window)
        self.budget = Budget(terms.rates)
        self._now = 0.0
        self._local_max_streams_bidi.value = self._local_max_streams_bidi.sent = terms.bidirectional
        self._local_max_streams_uni.value = self._local_max_streams_uni.sent = terms.unidirectional
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

    @property
    def datagram_room(self) -> int:
        """The longest DATAGRAM that fits: one that did not would stay at the head of aioquic's queue for ever."""
        limit = self._remote_max_datagram_frame_size
        if limit is None:
            return 0
        return max(0, min(limit - 3, self._max_datagram_size - len(self._peer_cid.cid) - 22))

    def offer_datagram(self, data: bytes) -> bool:
        """Queue a datagram, if it fits and few wait."""
        pending = self._datagrams_pending
        if len(pending) >= DATAGRAMS or len(data) > self.datagram_room:
            return False
        pending.append(data)
        return True

    def unacknowledged(self, stream_id: int) -> int:
        """Bytes of a stream that the peer has not acknowledged."""
        stream = self._streams.get(stream_id)
        return 0 if stream is None else len(stream.sender._buffer)

    def claim_stream(self, unidirectional: bool) -> int | None:
        """Open a stream of ours; None when the peer's limit is reached."""
        stream_id = self.get_next_available_stream_id(unidirectional)
        allowed = self._remote_max_streams_uni if unidirectional else self._remote_max_streams_bidi
        if stream_id // 4 >= allowed:
            return None
        self._get_or_create_stream_for_send(stream_id)
        return stream_id

    def abandon_sending(self, stream_id: int, code: int) -> bool:
        """RESET_STREAM, if there is anything to reset."""
        stream = self._streams.get(stream_id)
        if stream is None or stream.sender.is_finished:
            return False
        stream.sender.reset(code)
        return True

    def abandon_reading(self, stream_id: int, code: int) -> bool:
        """STOP_SENDING, if there is anything to stop; what still arrives counts as dealt with."""
        stream = self._streams.get(stream_id)
        if stream is None or stream.receiver.is_finished or stream.receiver._stop_error_code is not None:
            return False
        stream.receiver.stop(code)
        self.credit.release(stream_id)
        return True

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

    # -- credit ----------------------------------------------------------------------------------------------

    def _write_stream_limits(self, builder: QuicPacketBuilder, space: QuicPacketSpace, stream: QuicStream) -> None:
        """Unpatched: doubled whenever half of it has been seen, gaps included."""
        if not stream.max_stream_data_local:
            return
        receiver = stream.receiver
        if receiver.is_finished:
            stream.max_stream_data_local_sent = stream.max_stream_data_local  # nobody needs to hear of it any more
            return
        stream.max_stream_data_local = self.credit.stream_limit(stream)
        if stream.max_stream_data_local_sent != stream.max_stream_data_local:
            buf = builder.start_frame(
                QuicFrameType.MAX_STREAM_DATA,
                capacity=17,
                handler=self._on_max_stream_data_delivery,
                handler_args=(stream,),
            )
            buf.push_uint_var(stream.stream_id or 0)
            buf.push_uint_var(stream.max_stream_data_local)
            stream.max_stream_data_local_sent = stream.max_stream_data_local

    def _write_connection_limits(self, builder: QuicPacketBuilder, space: QuicPacketSpace) -> None:
        """Unpatched: MAX_DATA doubles in the same way. MAX_STREAMS as there: when fewer are left than are added."""
        self._local_max_data.value = self.credit.connection_limit()
        for limit in (self._local_max_data, self._local_max_streams_bidi, self._local_max_streams_uni):
            added = limit.value - limit.sent
            if not added or (limit is not self._local_max_data and limit.sent - limit.used >= added):
                continue
            buf = builder.start_frame(
                limit.frame_type, capacity=9, handler=self._on_connection_limit_delivery, handler_args=(limit,)
            )
            buf.push_uint_var(limit.value)
            limit.sent = limit.value

    # -- frames ----------------------------------------------------------------------------------------------

    def receive_datagram(self, data: bytes, addr: NetworkAddress, now: float) -> None:
        """As aioquic's."""
        self._now = now
        super().receive_datagram(data, addr, now)

    def _handle_crypto_frame(self, context: QuicReceiveContext, frame_type: int, buf: Buffer) -> None:
        """Unpatched: half a megabyte of zeros for one byte at a far offset, before anybody is known."""
        start = buf.tell()
        end = buf.pull_uint_var() + buf.pull_uint_var()
        buf.seek(start)
        if end - self._crypto_streams[context.epoch].receiver.starting_offset() > HELLO_MOST:
            raise QuicConnectionError(QuicErrorCode.CRYPTO_BUFFER_EXCEEDED, frame_type, "too much handshake")
        super()._handle_crypto_frame(context, frame_type, buf)

    def _handle_ack_frame(self, context: QuicReceiveContext, frame_type: int, buf: Buffer) -> None:
        """Unpatched: a packet number that was never used is believed, and what was really sent declared lost."""
        start = buf.tell()
        largest = buf.pull_uint_var()
        buf.seek(start)
        if largest >= self._packet_number:
            raise QuicConnectionError(QuicErrorCode.PROTOCOL_VIOLATION, frame_type, "acknowledged what was never sent")
        super()._handle_ack_frame(context, frame_type, buf)

    def _handle_stream_frame(self, context: QuicReceiveContext, frame_type: int, buf: Buffer) -> None:
        """Unpatched: any number of pieces of one byte may lie apart, a hundred times their size each."""
        start = buf.tell()
        stream_id = buf.pull_uint_var()
        buf.seek(start)
        super()._handle_stream_frame(context, frame_type, buf)
        stream = self._streams.get(stream_id)
        if stream is not None and len(stream.receiver._ranges) > GAPS:
            apart = sum(len(each.receiver._ranges) for each in self._streams.values())
            if apart > GAPS_MOST:
                raise QuicConnectionError(QuicErrorCode.INTERNAL_ERROR, frame_type, "too many pieces out of order")

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
        """Unpatched: as often as packets come; what a manual stream held stays held."""
        self.budget.spend(Act.RESET, context.time, frame_type)
        start = buf.tell()
        stream_id = buf.pull_uint_var()
        buf.seek(start)
        super()._handle_reset_stream_frame(context, frame_type, buf)
        self.credit.release(stream_id)

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


_ENDED = frozenset({QuicConnectionState.CLOSING, QuicConnectionState.DRAINING, QuicConnectionState.TERMINATED})
