"""Packets that arrive at a connection which has settled: the common kinds in few steps, the others the long way.

Nearly all of them have a short header, come by the one validated path, and carry STREAM, DATAGRAM and ACK frames.
Those are handled here; whatever else there is goes to aioquic's general machinery, over the same state, so that
nothing is decided twice.
"""

from __future__ import annotations

import contextlib
from typing import Any, Final

from aioquic._buffer import Buffer, BufferReadError
from aioquic.quic.connection import (
    NetworkAddress,
    QuicConnectionError,
    QuicConnectionState,
    QuicReceiveContext,
)
from aioquic.quic.crypto import CryptoPair
from aioquic.quic.events import DatagramFrameReceived, StreamDataReceived
from aioquic.quic.packet import QuicErrorCode, pull_ack_frame
from aioquic.quic.recovery import QuicPacketSpace
from aioquic.quic.stream import QuicStreamSender, StreamFinishedError
from aioquic.tls import Epoch
from cryptography.exceptions import InvalidTag

from gateway.protocol.quic_hardening import SturdyConnection
from gateway.protocol.quic_lean import OneRange, pull_varint

ACK_DELAY: Final = 0.02
"""Seconds that an acknowledgement may wait for something to travel with: less than the 25 ms that we announce."""
ACK_AT_ONCE: Final = 2
"""Packets to be acknowledged after which it waits no longer (RFC 9000 section 13.2.2)."""
ACK_RANGES: Final = 64
"""Ranges of packets remembered to be acknowledged; of what lies below, the window says that it came."""
SAMPLE: Final = 16
"""Bytes of which the header's mask is made (RFC 9001 section 5.4.2)."""

_FRAMES: Final = (
    # Frame types, the method that handles them, and in which packets they may be: RFC 9000 table 3, RFC 9221.
    ((0x00,), "padding", "IH01"),
    ((0x01,), "ping", "IH01"),
    ((0x02, 0x03), "ack", "IH1"),
    ((0x04,), "reset_stream", "01"),
    ((0x05,), "stop_sending", "01"),
    ((0x06,), "crypto", "IH1"),
    ((0x07,), "new_token", "1"),
    (tuple(range(0x08, 0x10)), "stream", "01"),
    ((0x10,), "max_data", "01"),
    ((0x11,), "max_stream_data", "01"),
    ((0x12,), "max_streams_bidi", "01"),
    ((0x13,), "max_streams_uni", "01"),
    ((0x14,), "data_blocked", "01"),
    ((0x15,), "stream_data_blocked", "01"),
    ((0x16, 0x17), "streams_blocked", "01"),
    ((0x18,), "new_connection_id", "01"),
    ((0x19,), "retire_connection_id", "01"),
    ((0x1A,), "path_challenge", "01"),
    ((0x1B,), "path_response", "01"),
    ((0x1C,), "connection_close", "IH01"),
    ((0x1D,), "connection_close", "01"),
    ((0x1E,), "handshake_done", "1"),
    ((0x30, 0x31), "datagram", "01"),
)
_EPOCHS: Final = {"I": Epoch.INITIAL, "H": Epoch.HANDSHAKE, "0": Epoch.ZERO_RTT, "1": Epoch.ONE_RTT}
_NOT_ELICITING: Final = frozenset({0x00, 0x02, 0x03, 0x1C, 0x1D})
_PROBING: Final = frozenset({0x00, 0x18, 0x1A, 0x1B})


class ReceivingConnection(SturdyConnection):
    """The receiving half. `settle` is the other's."""

    _handlers: dict[int, tuple[Any, frozenset[Epoch]]]
    _settled = False
    # Once it has settled, what aioquic keeps in dicts by Epoch, whose hash is computed in Python each time.
    _keys: CryptoPair
    _space: QuicPacketSpace
    _late_hello: QuicStreamSender
    """Handshake messages after the handshake: session tickets."""
    _idle = 0.0
    """The idle timeout in seconds, 0 where it has to be computed."""
    _skip_at = 0
    _skipped = -1
    """The last packet number that was left out."""
    _unacknowledged = 0
    """Ack-eliciting packets since the last acknowledgement."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls._handlers = {
            kind: (getattr(cls, f"_handle_{name}_frame"), frozenset(_EPOCHS[each] for each in epochs))
            for kinds, name, epochs in _FRAMES
            for kind in kinds
        }

    def settle(self) -> None:
        """The handshake is confirmed."""
        raise NotImplementedError

    def _handle_ack_frame(self, context: QuicReceiveContext, frame_type: int, buf: Buffer) -> None:
        """Unpatched: what a peer acknowledges is believed, whether it has seen it or not."""
        if self._skipped >= 0:
            start = buf.tell()
            with contextlib.suppress(ValueError):  # of numbers below zero, which is told next
                if self._skipped in pull_ack_frame(buf)[0]:
                    raise QuicConnectionError(QuicErrorCode.PROTOCOL_VIOLATION, frame_type, "acknowledged a gap")
            buf.seek(start)
        super()._handle_ack_frame(context, frame_type, buf)

    # -- receiving -------------------------------------------------------------------------------------------

    def receive_datagram(self, data: bytes, addr: NetworkAddress, now: float) -> None:
        """As aioquic's, by the short way where that is enough."""
        if not self._settled:
            super().receive_datagram(data, addr, now)
            if self._handshake_confirmed and self._state is QuicConnectionState.CONNECTED:
                self.settle()
            return
        if not self._is_short(data):
            data = self._short_part(data)
            if not data:
                return
        if not self._receive_short(data, addr, now):
            super().receive_datagram(data, addr, now)

    @staticmethod
    def _is_short(data: bytes) -> bool:
        return data[0] & 0x80 == 0 if data else False

    def _short_part(self, data: bytes) -> bytes:
        """What follows the long packets of a datagram, of which none is for us any more."""
        at = 0
        try:
            while at < len(data) and data[at] & 0x80:
                buffer = Buffer(data=data[at:])
                buffer.seek(5)
                for _ in range(2):
                    buffer.seek(buffer.tell() + 1 + data[at + buffer.tell()])
                if data[at] & 0x30 == 0:
                    buffer.pull_bytes(buffer.pull_uint_var())
                at += buffer.pull_uint_var() + buffer.tell()
        except (BufferReadError, IndexError, ValueError):
            return b""
        return data[at:]

    def _receive_short(self, data: bytes, addr: NetworkAddress, now: float) -> bool:
        """A packet by the path in use; False, with nothing changed, when it is one for the general machinery."""
        path = self._network_paths[0]
        host_cid = self.host_cid
        at = 1 + len(host_cid)
        if (
            path.addr != addr
            or not path.is_validated
            or self._state is not QuicConnectionState.CONNECTED
            or self._close_pending
            or data[1:at] != host_cid
            or len(data) < at + 4 + SAMPLE
        ):
            return False
        crypto = self._keys.recv
        protection, aead = crypto.hp, crypto.aead
        if protection is None or aead is None or protection._is_chacha20:
            return False
        mask = protection._encryptor.update(data[at + 4 : at + 4 + SAMPLE])
        first = data[0] ^ mask[0] & 0x1F
        if not first & 0x40 or first & 0x18 or (first >> 2 & 1) != crypto.key_phase:
            return False
        size = (first & 3) + 1
        number = int.from_bytes(data[at : at + size], "big") ^ int.from_bytes(mask[1 : 1 + size], "big")
        header = bytes((first,)) + host_cid + number.to_bytes(size, "big")
        space = self._space
        # RFC 9000 appendix A.3: the number nearest to the one that is expected.
        expected, half = space.expected_packet_number, 1 << (8 * size - 1)
        number |= expected & -(half << 1)
        if number + half <= expected:
            number += half << 1
        elif number > expected + half and number >= half << 1:
            number -= half << 1
        try:
            plain = aead._aead.decrypt((aead._iv ^ number).to_bytes(12, "big"), data[at + size :], header)
        except InvalidTag:
            return True  # forged or broken: nobody hears of it
        if number in space.received_packets:
            return True
        if number >= expected:
            space.expected_packet_number = number + 1
        if number > self._spin_highest_pn:
            self._spin_highest_pn = number
            self._spin_bit = first & 0x20 != 0
        context = QuicReceiveContext(
            epoch=Epoch.ONE_RTT, host_cid=host_cid, network_path=path, quic_logger_frames=None, time=now, version=None
        )
        try:
            eliciting, _ = self._payload_received(context, plain)
        except QuicConnectionError as error:
            self.close(error.error_code, error.frame_type, error.reason_phrase)
            return True
        if self._state is not QuicConnectionState.CONNECTED:
            return True
        self._close_at = now + (self._idle or self._idle_timeout())
        self._ack_eliciting_sent_since_receipt = False
        self._received(space, number, eliciting, now)
        return True

    def _received(self, space: QuicPacketSpace, number: int, eliciting: bool, now: float) -> None:
        """Remember a packet, and when to acknowledge it."""
        in_order = number == space.largest_received_packet + 1
        if number > space.largest_received_packet:
            space.largest_received_packet = number
            space.largest_received_time = now
        space.ack_queue.add(number)
        space.received_packets.add(number)
        if len(space.ack_queue) > ACK_RANGES:
            space.ack_queue.shift()
        if eliciting:
            self._unacknowledged += 1
            if self._unacknowledged >= ACK_AT_ONCE or not in_order:
                space.ack_at = now
            elif space.ack_at is None:
                space.ack_at = now + ACK_DELAY

    def _payload_received(
        self, context: QuicReceiveContext, plain: bytes, crypto_frame_required: bool = False
    ) -> tuple[bool, bool]:
        """As aioquic's, without a buffer for the frames that are common."""
        at, end = 0, len(plain)
        if not end:
            raise QuicConnectionError(QuicErrorCode.PROTOCOL_VIOLATION, 0, "a packet without frames")
        eliciting, probing, crypto = False, True, False
        buffer: Buffer | None = None
        short = context.epoch is Epoch.ONE_RTT
        kind = 0
        try:
            while at < end:
                kind = plain[at]
                if kind == 0:
                    at = end - len(plain[at:].lstrip(b"\0"))
                    continue
                if kind & 0xF8 == 8 and short:
                    at = self._stream_frame(plain, at, kind, context)
                    eliciting, probing = True, False
                    continue
                if kind == 0x31 and short and self._configuration.max_datagram_frame_size:
                    size, at = pull_varint(plain, at + 1)
                    if at + size > end:
                        raise BufferReadError
                    self._events.append(DatagramFrameReceived(data=plain[at : at + size]))
                    at += size
                    eliciting, probing = True, False
                    continue
                if kind == 2 and short and (after := self._ack_frame(plain, at, context.time)):
                    at, probing = after, False
                    continue
                if buffer is None:
                    buffer = Buffer(data=plain)
                buffer.seek(at)
                kind = buffer.pull_uint_var()
                handler, epochs = self._handlers.get(kind, (None, None))
                if handler is None or epochs is None:
                    raise QuicConnectionError(QuicErrorCode.FRAME_ENCODING_ERROR, kind, "unknown frame")
                if context.epoch not in epochs:
                    raise QuicConnectionError(QuicErrorCode.PROTOCOL_VIOLATION, kind, "a frame that may not be here")
                with contextlib.suppress(StreamFinishedError):  # the frame has been read all the same
                    handler(self, context, kind, buffer)
                at = buffer.tell()
                eliciting = eliciting or kind not in _NOT_ELICITING
                probing = probing and kind in _PROBING
                crypto = crypto or kind == 6
        except (BufferReadError, IndexError):
            raise QuicConnectionError(QuicErrorCode.FRAME_ENCODING_ERROR, kind, "a frame that is cut off") from None
        if crypto_frame_required and not crypto:
            raise QuicConnectionError(QuicErrorCode.PROTOCOL_VIOLATION, 0, "a first packet without CRYPTO")
        return eliciting, probing

    def _stream_frame(self, plain: bytes, at: int, kind: int, context: QuicReceiveContext) -> int:
        """The next bytes of a stream that is known, in order; anything else in the general way. Where it ends."""
        start = at
        stream_id, at = pull_varint(plain, at + 1)
        offset = 0
        if kind & 4:
            offset, at = pull_varint(plain, at)
        size = len(plain) - at
        if kind & 2:
            size, at = pull_varint(plain, at)
            if at + size > len(plain):
                raise BufferReadError
        stream = self._streams.get(stream_id)
        if stream is not None and size and not kind & 1:
            receiver, limit = stream.receiver, self._local_max_data
            reached = offset + size
            more = reached - receiver.highest_offset
            if (
                offset == receiver._buffer_start
                and more == size  # nothing of it was seen before, so nothing waits behind it
                and receiver._final_size is None
                and not receiver.is_finished
                and reached <= stream.max_stream_data_local
                and limit.used + more <= limit.value
            ):
                receiver.highest_offset = receiver._buffer_start = reached
                limit.used += more
                self._events.append(
                    StreamDataReceived(data=plain[at : at + size], end_stream=False, stream_id=stream_id)
                )
                return at + size
        buffer = Buffer(data=plain)
        buffer.seek(start + 1)
        try:
            self._handlers[kind][0](self, context, kind, buffer)
        except StreamFinishedError:
            return at + size
        return buffer.tell()

    def _ack_frame(self, plain: bytes, at: int, now: float) -> int:
        """An acknowledgement of one range. Where it ends; 0 when it is one for the general way."""
        largest, at = pull_varint(plain, at + 1)
        delay, at = pull_varint(plain, at)
        ranges, at = pull_varint(plain, at)
        first, at = pull_varint(plain, at)
        if ranges or first > largest or largest >= self._packet_number or largest - first <= self._skipped <= largest:
            return 0
        space = self._spaces[Epoch.ONE_RTT]  # `_space` is for what has settled: this may come before
        sent = space.sent_packets
        if sent and next(iter(sent)) <= largest:
            self._loss.on_ack_received(
                ack_rangeset=OneRange(largest - first, largest + 1),  # type: ignore[arg-type]
                ack_delay=(delay << self._remote_ack_delay_exponent) / 1_000_000,
                now=now,
                space=space,
            )
        return at
