"""aioquic's connection without the holes that matter to either side: what one byte can make us hold, and for how long.

A server adds what matters to it alone (`gateway.transports.quic.hardening`), a client nothing. Each override says what
was wrong. Sans-I/O; who builds on it checks at import that the names reached into are there.
"""

from __future__ import annotations

from typing import Final

from aioquic._buffer import Buffer
from aioquic.quic.connection import QuicConnection, QuicConnectionError, QuicReceiveContext
from aioquic.quic.packet import QuicErrorCode, QuicFrameType
from aioquic.quic.packet_builder import QuicPacketBuilder
from aioquic.quic.recovery import QuicPacketSpace
from aioquic.quic.stream import QuicStream

from gateway.protocol.quic_credit import Credit

HELLO_MOST: Final = 32 * 1024
"""Bytes of handshake that may arrive out of order. aioquic fills half a megabyte with zeros for one far byte, before
it knows anybody; a ClientHello, with a post-quantum key and all, has two kilobytes."""
GAPS: Final = 32
"""Pieces of one stream kept apart without a look at the others."""
GAPS_MOST: Final = 1024
"""Pieces kept apart on one connection; each costs a hundred bytes, whatever it holds."""
DATAGRAMS: Final = 64
"""Datagrams of the application that wait for the congestion window; the next one is dropped."""


class SturdyConnection(QuicConnection):
    """Either side's. `restrict` is called once, before the first packet."""

    credit: Credit

    def restrict(self, window: int, stream_window: int) -> None:
        """Say what the peer may make us hold: so many bytes, and so many of one stream."""
        self.credit = Credit(self._local_max_data, self._streams, window, stream_window)

    # -- what is asked of it -----------------------------------------------------------------------------------

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

    def _handle_reset_stream_frame(self, context: QuicReceiveContext, frame_type: int, buf: Buffer) -> None:
        """Unpatched: what a stream held that is granted by hand stays held."""
        start = buf.tell()
        stream_id = buf.pull_uint_var()
        buf.seek(start)
        super()._handle_reset_stream_frame(context, frame_type, buf)
        self.credit.release(stream_id)
