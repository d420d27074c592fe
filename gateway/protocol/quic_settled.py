"""A server's connection after its handshake: little kept, and what it sends put together in few steps.

When the handshake is confirmed everything that was for it is let go of: TLS, its keys, buffers and packet spaces.
Packets of data, datagrams and acknowledgements are built here; any other in aioquic's general way. How much that
saves is in docs/benchmarks.md.
"""

from __future__ import annotations

from secrets import randbelow
from typing import Any, Final

from aioquic.quic.connection import NetworkAddress, QuicConnectionState
from aioquic.quic.crypto import NoCallback
from aioquic.quic.recovery import QuicPacketSpace
from aioquic.quic.stream import QuicStream
from aioquic.tls import Epoch

from gateway.protocol.quic_lean import NO_KEYS, NO_TLS, SILENCE, Few, Sent, Window, is_worth_telling
from gateway.protocol.quic_receiving import ACK_DELAY, SAMPLE, ReceivingConnection
from gateway.protocol.varints import varint

TAG: Final = 16
"""Bytes by which protection makes a packet longer."""
IDLE_PLAIN: Final = 10.0
"""Seconds of idle timeout above which three probe timeouts, which it must not fall below, need no look."""
SKIP_LEAST: Final = 100
"""Packets between two numbers that are left out, at least."""
SKIP_MORE: Final = 300
"""By how many more it may be."""
LEAST: Final = 64
"""Bytes of congestion window without which no data is sent."""
TOLD_RANGES: Final = 32
"""Ranges in one acknowledgement: 300 bytes at the worst."""
_CONNECTED: Final = QuicConnectionState.CONNECTED
_NEVER: Final = float("inf")


class SettledConnection(ReceivingConnection):
    """A server's. It settles by itself, once the handshake is confirmed and a packet of the client's has shown it."""

    def __init__(self, **words: Any) -> None:
        super().__init__(**words)
        delattr(
            self, "_QuicConnection__frame_handlers"
        )  # thirty bound methods and sets for each connection: shared below
        self._logger = SILENCE  # type: ignore[assignment]
        self._loss._logger = SILENCE  # type: ignore[assignment]
        self._events = Few()  # type: ignore[assignment]
        self._datagrams_pending = Few()  # type: ignore[assignment]

    def _initialize(self, peer_cid: bytes) -> None:
        super()._initialize(peer_cid)
        for space in self._spaces.values():
            space.received_packets = Window()  # type: ignore[assignment]
        for path in self._network_paths:
            path.remote_challenges = Few()  # type: ignore[assignment]

    def settle(self) -> None:
        """Let go of what was for the handshake. What still comes of it is not for us any more."""
        crypto, space = self._cryptos[Epoch.ONE_RTT], self._spaces[Epoch.ONE_RTT]
        for context in (crypto.recv, crypto.send):
            context._setup_cb = context._teardown_cb = NoCallback
        self._cryptos = {Epoch.ONE_RTT: crypto, Epoch.ZERO_RTT: NO_KEYS}
        self._cryptos_initial = {}
        self._crypto_buffers = {}
        self._crypto_streams = {Epoch.ONE_RTT: self._crypto_streams[Epoch.ONE_RTT]}
        self._spaces = {Epoch.ONE_RTT: space}
        self._keys, self._space, self._late_hello = crypto, space, self._crypto_streams[Epoch.ONE_RTT].sender
        self._loss.spaces = [space]
        self.tls = NO_TLS  # type: ignore[assignment]
        self._session_ticket_fetcher = self._session_ticket_handler = None
        self._remote_version_information = None
        idle = self._configuration.idle_timeout
        if self._remote_max_idle_timeout is not None:
            idle = min(idle, self._remote_max_idle_timeout)
        self._idle = idle if idle > IDLE_PLAIN else 0.0
        self._ack_delay = ACK_DELAY
        self._skip_at = self._packet_number + 1 + randbelow(SKIP_MORE)
        self._settled = True

    # -- sending ---------------------------------------------------------------------------------------------

    def datagrams_to_send(self, now: float) -> list[tuple[bytes, NetworkAddress]]:
        """As aioquic's, by the short way where that is enough."""
        if not self._settled:
            return [] if self._is_silent() else super().datagrams_to_send(now)
        busy = self._common(now)
        if busy is None:
            self._unacknowledged = 0
            return super().datagrams_to_send(now)
        return self._send_short(busy, now)

    def _is_silent(self) -> bool:
        """Whether the handshake has nothing to say now: half of its turns end like that, and finding out is cheap."""
        return not (
            self._handshake_complete
            or self._close_pending
            or self._probe_pending
            or self._streams
            or self._datagrams_pending
            or any(space.ack_at is not None for space in self._loss.spaces)
            or any(len(stream.sender._pending) for stream in self._crypto_streams.values())
        )

    def _common(self, now: float) -> list[QuicStream] | None:
        """The streams with something to send; None when more is to be said than data and acknowledgements."""
        path = self._network_paths[0]
        data = self._local_max_data
        if (
            self._state is not QuicConnectionState.CONNECTED
            or self._close_pending
            or not path.is_validated
            or path.remote_challenges
            or self._handshake_done_pending
            or self._probe_pending
            or self._ping_pending
            or self._retire_connection_ids
            or self._streams_blocked_pending
            or self._keys._update_key_requested
            or not self._late_hello.buffer_is_empty
            or data.value != data.sent
            or self.credit.connection_limit() != data.value
            or is_worth_telling(self._local_max_streams_bidi)
            or is_worth_telling(self._local_max_streams_uni)
        ):
            return None
        for each in self._host_cids:
            if not each.was_sent:
                return None
        for other in self._network_paths[1:]:
            if other.remote_challenges or not (other.is_validated or other.local_challenge_sent):
                return None
        busy = []
        for stream in self._streams_queue:
            sender, receiver = stream.sender, stream.receiver
            if (
                sender.reset_pending
                or receiver.stop_pending
                or (sender.is_finished and receiver.is_finished)
                or stream.max_stream_data_local_sent != stream.max_stream_data_local
                or (stream.max_stream_data_local and self.credit.stream_limit(stream) != stream.max_stream_data_local)
            ):
                return None
            if not sender.buffer_is_empty and not stream.is_blocked:
                if len(sender._pending) or sender._pending_eof:
                    busy.append(stream)
                else:
                    sender.buffer_is_empty = True
        return busy

    def _send_short(self, busy: list[QuicStream], now: float) -> list[tuple[bytes, NetworkAddress]]:
        """Packets of acknowledgements, datagrams and stream data, as many as may go."""
        path, space, loss = self._network_paths[0], self._space, self._loss
        pending = self._datagrams_pending
        leaving: list[tuple[bytes, NetworkAddress]] = []
        room = self._max_datagram_size - 3 - len(self._peer_cid.cid) - TAG
        self._pacing_at = None
        while True:
            frames: list[bytes] = []
            handlers: list[Any] = []
            left = room
            has_data = bool(busy or pending)
            due = space.ack_at is not None and (has_data or space.ack_at <= now)
            if has_data:
                flight = loss._cc.congestion_window - loss._cc.bytes_in_flight - 3 - len(self._peer_cid.cid) - TAG
                self._pacing_at = loss._pacer.next_send_time(now=now)
                if self._pacing_at is not None or flight < LEAST:
                    has_data = False
                    due = space.ack_at is not None and space.ack_at <= now
                else:
                    left = min(room, flight)
            if due:
                acknowledgement = self._acknowledgement(space, now)
                frames.append(acknowledgement)
                left -= len(acknowledgement)
                handlers.append((self._on_ack_delivery, (space, space.largest_received_packet)))
                space.ack_at = None
                self._unacknowledged = 0
            if has_data:
                left = self._fill_datagrams(pending, frames, left)
                busy = self._fill_streams(busy, frames, handlers, left)
            eliciting = has_data and len(frames) > due
            if not frames:
                break
            packet = self._protected(b"".join(frames))
            leaving.append((packet, path.addr))
            path.bytes_sent += len(packet)
            if not eliciting:
                break
            self._on_sent(Sent(self._packet_number - 1, len(packet), now, handlers), space, now)
        if len(busy) > 1:  # whose turn it is comes first the next time
            waiting = set(busy)
            self._streams_queue = busy + [stream for stream in self._streams_queue if stream not in waiting]
        return leaving

    @staticmethod
    def _fill_datagrams(pending: Any, frames: list[bytes], left: int) -> int:
        while pending:
            size = len(pending[0])
            head = b"\x31" + varint(size)
            if len(head) + size > left:
                break
            frames.append(head)
            frames.append(pending.popleft())
            left -= len(head) + size
        return left

    def _fill_streams(
        self, busy: list[QuicStream], frames: list[bytes], handlers: list[Any], left: int
    ) -> list[QuicStream]:
        """Put in what fits of each stream in turn; those that have more, the served ones last."""
        again: list[QuicStream] = []
        for index, stream in enumerate(busy):
            sender = stream.sender
            stream_id = stream.stream_id or 0
            offset = sender.next_offset
            head = 2 + len(varint(stream_id)) + (len(varint(offset)) if offset else 0) + 1
            if left <= head:
                return busy[index:] + again if frames else []
            highest = sender.highest_offset
            limit = min(highest + self._remote_max_data - self._remote_max_data_used, stream.max_stream_data_remote)
            frame = sender.get_frame(left - head, limit)
            if frame is None:
                continue
            size = len(frame.data)
            kind = 0x0A | (4 if offset else 0) | frame.fin
            frames.append(
                bytes((kind,))
                + varint(stream_id)
                + (varint(offset) if offset else b"")
                + (size | 0x4000).to_bytes(2, "big")
            )
            frames.append(frame.data)
            handlers.append((sender.on_data_delivery, (offset, offset + size, frame.fin)))
            left -= head + size
            self._remote_max_data_used += sender.highest_offset - highest
            if len(sender._pending) or sender._pending_eof:
                again.append(stream)
        return again

    def _acknowledgement(self, space: QuicPacketSpace, now: float) -> bytes:
        ranges = space.ack_queue
        delay = int((now - (space.largest_received_time or now)) * 1_000_000) >> self._local_ack_delay_exponent
        last = ranges[-1]
        parts = [b"\x02", varint(last.stop - 1), varint(max(delay, 0))]
        below = list(ranges)[-2:-32:-1]
        parts += (varint(len(below)), varint(last.stop - 1 - last.start))
        start = last.start
        for each in below:
            parts += (varint(start - each.stop - 1), varint(each.stop - each.start - 1))
            start = each.start
        return b"".join(parts)

    def _protected(self, payload: bytes) -> bytes:
        """The packet around these frames, by the keys in use."""
        number = self._packet_number
        if number >= self._skip_at:
            # A number that is never used: who acknowledges it acknowledges what it has not seen, to have us send
            # faster than the path can take (RFC 9000 section 21.4).
            self._skipped, number = number, number + 1
            self._skip_at = number + SKIP_LEAST + randbelow(SKIP_MORE)
        self._packet_number = number + 1
        crypto = self._keys.send
        aead: Any = crypto.aead
        protection: Any = crypto.hp
        first = 0x41 | self._spin_bit << 5 | crypto.key_phase << 2
        cid = self._peer_cid.cid
        short = number & 0xFFFF
        if len(payload) < 2:
            payload += b"\0"
        sealed: bytes = aead._aead.encrypt(
            (aead._iv ^ number).to_bytes(12, "big"), payload, bytes((first,)) + cid + short.to_bytes(2, "big")
        )
        mask: bytes = protection._mask(sealed[2 : 2 + SAMPLE])
        short ^= mask[1] << 8 | mask[2]
        return bytes((first ^ mask[0] & 0x1F,)) + cid + short.to_bytes(2, "big") + sealed

    def _on_sent(self, packet: Sent, space: QuicPacketSpace, now: float) -> None:
        loss = self._loss
        space.sent_packets[packet.packet_number] = packet  # type: ignore[assignment]
        space.ack_eliciting_in_flight += 1
        loss._time_of_last_sent_ack_eliciting_packet = now
        loss._cc.on_packet_sent(packet=packet)  # type: ignore[arg-type]
        loss._pacer.update_after_send(now=now)
        if not self._ack_eliciting_sent_since_receipt:
            self._close_at = now + (self._idle or self._idle_timeout())
            self._ack_eliciting_sent_since_receipt = True

    # -- time ------------------------------------------------------------------------------------------------

    def deadline(self) -> float:
        """When `handle_timer` is due; aioquic's `get_timer` in fewer steps."""
        if not self._settled or not self._network_paths[0].is_validated or self._state is not _CONNECTED:
            at = self.get_timer()
            return _NEVER if at is None else at
        at = _NEVER if self._close_at is None else self._close_at
        space, loss = self._space, self._loss
        if space.ack_at is not None and space.ack_at < at:
            at = space.ack_at
        if self._pacing_at is not None and self._pacing_at < at:
            at = self._pacing_at
        lost = space.loss_time
        if lost is None and space.ack_eliciting_in_flight:
            lost = loss._time_of_last_sent_ack_eliciting_packet + loss.get_probe_timeout() * (1 << loss._pto_count)
        self._loss_at = lost
        return at if lost is None or lost >= at else lost
