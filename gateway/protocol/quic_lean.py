"""Small things of which a settled QUIC connection is made, in place of larger ones of aioquic's. No protocol."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from aioquic import tls
from aioquic._buffer import BufferReadError
from aioquic.quic.connection import Limit
from aioquic.quic.crypto import CryptoPair
from aioquic.quic.packet import QuicPacketType
from aioquic.tls import Epoch


class Window:
    """The packet numbers received of late: two integers instead of a set that grows to sixteen kilobytes.

    What lies below counts as received, as in aioquic: a duplicate must never be taken for new.
    """

    __slots__ = ("_bits", "_lowest")
    SIZE: Final = 256

    def __init__(self) -> None:
        self._lowest = 0
        self._bits = 0

    def add(self, number: int) -> None:
        """Remember that it came."""
        at = number - self._lowest
        if at < 0:
            return
        if at >= self.SIZE:
            forget = at - self.SIZE // 2
            self._bits >>= forget
            self._lowest += forget
            at -= forget
        self._bits |= 1 << at

    def __contains__(self, number: int) -> bool:
        at = number - self._lowest
        return at < 0 or self._bits >> at & 1 == 1


class Silence:
    """Instead of a logger per connection: peers must not be able to fill our log, and no line of it costs anything."""

    def debug(self, *_: object) -> None:
        """Nothing."""

    info = warning = error = debug


class Few(list[Any]):
    """A queue that is nearly always empty: a deque takes 600 bytes for that."""

    __slots__ = ()

    def popleft(self) -> Any:
        """The first."""
        return self.pop(0)


class Sent:
    """A packet under way, as recovery wants to know it."""

    __slots__ = (
        "delivery_handlers",
        "epoch",
        "in_flight",
        "is_ack_eliciting",
        "is_crypto_packet",
        "packet_number",
        "packet_type",
        "quic_logger_frames",
        "sent_bytes",
        "sent_time",
    )

    def __init__(self, number: int, size: int, now: float, handlers: list[Any]) -> None:
        self.epoch = Epoch.ONE_RTT
        self.in_flight = self.is_ack_eliciting = True
        self.is_crypto_packet = False
        self.packet_number = number
        self.packet_type = QuicPacketType.ONE_RTT
        self.sent_bytes = size
        self.sent_time = now
        self.delivery_handlers = handlers
        self.quic_logger_frames = ()


class NoTls:
    """What is left of TLS: any further handshake message is an error, as TLS itself would say."""

    legacy_session_id = b""

    def handle_message(self, _data: bytes, _output: object) -> None:
        """Refuse."""
        raise tls.AlertUnexpectedMessage("the handshake is over")


class OneRange:
    """One range of packet numbers, as much of a RangeSet as recovery asks for."""

    __slots__ = ("_range",)

    def __init__(self, start: int, stop: int) -> None:
        self._range = range(start, stop)

    def bounds(self) -> range:
        """From the lowest to the highest."""
        return self._range

    def __iter__(self) -> Iterator[range]:
        return iter((self._range,))


def is_worth_telling(limit: Limit) -> bool:
    """Whether MAX_STREAMS should be sent: fewer streams are left to the peer than it would add."""
    added = limit.value - limit.sent
    return added > 0 and limit.sent - limit.used < added


def pull_varint(data: bytes, at: int) -> tuple[int, int]:
    """An integer of variable length (RFC 9000 section 16), and where it ends."""
    first = data[at]
    if first < 0x40:
        return first, at + 1
    size = 1 << (first >> 6)
    if at + size > len(data):
        raise BufferReadError
    return int.from_bytes(data[at : at + size], "big") & (1 << (8 * size - 2)) - 1, at + size


NO_TLS: Final = NoTls()
NO_KEYS: Final = CryptoPair()
SILENCE: Final = Silence()
