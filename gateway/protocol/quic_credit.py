"""How much further a peer may send: as much as was dealt with, and a window. Flow control, and nothing else.

aioquic lets credit follow the highest offset that it has *seen* and fills the gaps with zeros: 13 frames of one byte
at far offsets make it hold a gigabyte. Here it follows what was delivered in order (RFC 9000 section 4.2 leaves the
rule to us), so what a connection can make us hold is its window, whatever it sends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aioquic.quic.stream import QuicStream

if TYPE_CHECKING:
    from aioquic.quic.connection import Limit


class _Account:
    """A stream whose credit is granted by hand. It outlives aioquic's record of a finished stream."""

    __slots__ = ("granted", "stream")

    def __init__(self, stream: QuicStream) -> None:
        self.stream = stream
        self.granted = 0

    @property
    def outstanding(self) -> int:
        """Bytes that arrived, or may yet, and were not granted."""
        return self.stream.receiver.highest_offset - self.granted


class Credit:
    """The flow control of one connection, in bytes.

    Args:
        limit: aioquic's count of what the peer has used up and may use.
        streams: aioquic's table of the connection's streams, which it goes on keeping.
        window: what the peer may have sent beyond what was dealt with, over all streams; the memory it can claim.
        stream_window: the same for one stream.
    """

    __slots__ = ("_accounts", "_limit", "_stream_window", "_streams", "_window")

    def __init__(self, limit: Limit, streams: dict[int, QuicStream], window: int, stream_window: int) -> None:
        self._limit = limit
        self._streams = streams
        self._window = window
        self._stream_window = stream_window
        self._accounts: dict[int, _Account] | None = None

    def take_over(self, stream_id: int) -> None:
        """From now on credit for this stream comes by `grant` alone."""
        stream = self._streams.get(stream_id)
        if stream is not None:
            if self._accounts is None:
                self._accounts = {}
            self._accounts.setdefault(stream_id, _Account(stream))

    def grant(self, stream_id: int, count: int) -> bool:
        """So much of it was dealt with; whether the peer should be told of it by a packet now."""
        account = self._accounts.get(stream_id) if self._accounts else None
        if account is None or self._accounts is None:
            return False
        receiver = account.stream.receiver
        account.granted = min(account.granted + count, receiver.starting_offset())
        if receiver.is_finished and account.granted >= receiver.starting_offset():
            del self._accounts[stream_id]
        elif not receiver.is_finished and self._is_worth_telling(account.stream, account.granted):
            return True
        return self.connection_limit() != self._limit.value

    def release(self, stream_id: int) -> None:
        """The stream was reset or stopped: what nobody will take counts as dealt with."""
        if self._accounts:
            self._accounts.pop(stream_id, None)

    def stream_limit(self, stream: QuicStream) -> int:
        """What MAX_STREAM_DATA should say; the old value while too little has changed to say anything."""
        receiver = stream.receiver
        if receiver.is_finished or receiver._stop_error_code is not None:
            return stream.max_stream_data_local
        account = self._accounts.get(stream.stream_id or 0) if self._accounts else None
        dealt_with = receiver.starting_offset() if account is None else account.granted
        if self._is_worth_telling(stream, dealt_with):
            return dealt_with + self._stream_window
        return stream.max_stream_data_local

    def _is_worth_telling(self, stream: QuicStream, dealt_with: int) -> bool:
        return (dealt_with + self._stream_window - stream.max_stream_data_local) * 2 >= self._stream_window

    def connection_limit(self) -> int:
        """What MAX_DATA should say; the old value while too little has changed to say anything."""
        limit = self._limit
        if (limit.used + self._window - limit.value) * 2 < self._window:  # nothing is held, as a rule: look no further
            return limit.value
        value = limit.used - self.held + self._window
        return value if (value - limit.value) * 2 >= self._window else limit.value

    @property
    def held(self) -> int:
        """Bytes that the peer has used up credit for and that are not dealt with."""
        accounts = self._accounts or {}
        held = sum(account.outstanding for account in accounts.values())
        for stream_id, stream in self._streams.items():
            receiver = stream.receiver
            if stream_id not in accounts and not receiver.is_finished:
                held += receiver.highest_offset - receiver.starting_offset()
        return held
