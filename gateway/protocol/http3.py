"""What HTTP/3 and WebTransport over it put on the wire: numbers, frames, capsules, error codes. Sans-I/O.

RFC 9114 (HTTP/3), 9204 (QPACK), 9297 (datagrams, capsules), 9220 (extended CONNECT), draft-ietf-webtrans-http3 from 02
to 15: their stream forms, capsules and error codes are the same. No stream, connection or rule is kept here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from enum import Enum, IntEnum
from typing import Final

from gateway.protocol.varints import read_varint, varint


class H3Code(IntEnum):
    """Error codes of streams and connections (RFC 9114 section 8.1, RFC 9204 section 6, the draft's section 9.5)."""

    NO_ERROR = 0x100
    GENERAL_PROTOCOL_ERROR = 0x101
    INTERNAL_ERROR = 0x102
    STREAM_CREATION_ERROR = 0x103
    CLOSED_CRITICAL_STREAM = 0x104
    FRAME_UNEXPECTED = 0x105
    FRAME_ERROR = 0x106
    EXCESSIVE_LOAD = 0x107
    ID_ERROR = 0x108
    SETTINGS_ERROR = 0x109
    MISSING_SETTINGS = 0x10A
    REQUEST_REJECTED = 0x10B
    REQUEST_CANCELLED = 0x10C
    REQUEST_INCOMPLETE = 0x10D
    MESSAGE_ERROR = 0x10E
    QPACK_DECOMPRESSION_FAILED = 0x200
    QPACK_ENCODER_STREAM_ERROR = 0x201
    QPACK_DECODER_STREAM_ERROR = 0x202
    DATAGRAM_ERROR = 0x33
    SESSION_GONE = 0x170D7B68
    BUFFERED_STREAM_REJECTED = 0x3994BD84


class FrameType(IntEnum):
    """Frames that mean something to us (RFC 9114 section 7.2)."""

    DATA = 0x0
    HEADERS = 0x1
    CANCEL_PUSH = 0x3
    SETTINGS = 0x4
    PUSH_PROMISE = 0x5
    GOAWAY = 0x7
    MAX_PUSH_ID = 0xD
    WEBTRANSPORT_STREAM = 0x41
    """Not a frame: what a bidirectional stream of a session begins with, followed by the session's id."""


class StreamType(IntEnum):
    """What a unidirectional stream begins with."""

    CONTROL = 0x0
    PUSH = 0x1
    QPACK_ENCODER = 0x2
    QPACK_DECODER = 0x3
    WEBTRANSPORT = 0x54
    """Followed by the session's id."""


class Setting(IntEnum):
    """Settings that mean something to us."""

    QPACK_MAX_TABLE_CAPACITY = 0x1
    MAX_FIELD_SECTION_SIZE = 0x6
    QPACK_BLOCKED_STREAMS = 0x7
    ENABLE_CONNECT_PROTOCOL = 0x8
    H3_DATAGRAM = 0x33
    WEBTRANSPORT_DRAFT02 = 0x2B603742
    """ENABLE_WEBTRANSPORT of draft 02: Chromium."""
    WEBTRANSPORT_DRAFT07 = 0xC671706A
    """WEBTRANSPORT_MAX_SESSIONS of drafts 07 to 12: quinn, Safari."""
    WEBTRANSPORT_DRAFT13 = 0x14E9CD29
    """WT_MAX_SESSIONS of drafts 13 and 14."""
    WEBTRANSPORT_DRAFT15 = 0x2C7CF000
    """WT_ENABLED of draft 15."""


class Capsule(IntEnum):
    """Capsules on the stream of a session's CONNECT."""

    CLOSE_SESSION = 0x2843
    DRAIN_SESSION = 0x78AE


FORBIDDEN_FRAMES: Final = frozenset((0x2, 0x6, 0x8, 0x9))
"""HTTP/2's, which have no place in HTTP/3 (RFC 9114 section 7.2.8)."""
FORBIDDEN_SETTINGS: Final = frozenset((0x0, 0x2, 0x3, 0x4, 0x5))
"""Likewise (section 7.2.4.1)."""
MAX_REASON: Final = 1_024
"""Bytes of the reason in a CLOSE_SESSION capsule."""
_APPLICATION_FIRST: Final = 0x52E4A40FA8DB
_APPLICATION_LAST: Final = 0x52E5AC983162


class H3Failure(Exception):
    """The peer broke HTTP/3: its connection ends with `code`."""

    def __init__(self, code: H3Code, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


# -- error codes of a session's streams (the draft's section 4.4) --------------------------------------------------


def to_h3(code: int) -> int:
    """The code that carries an application's code (32 bits) on a stream of a session."""
    return _APPLICATION_FIRST + code + code // 0x1E


def from_h3(code: int) -> int | None:
    """The application's code in it; None for a code of HTTP/3's own, which says nothing of the application."""
    if not _APPLICATION_FIRST <= code <= _APPLICATION_LAST or (code - 0x21) % 0x1F == 0:
        return None
    shifted = code - _APPLICATION_FIRST
    return shifted - shifted // 0x1F


# -- frames and capsules: both are type, length, value -----------------------------------------------------------


def frame(kind: int, payload: bytes) -> bytes:
    """A whole frame, or a whole capsule."""
    return varint(kind) + varint(len(payload)) + payload


def settings_frame(settings: Mapping[int, int]) -> bytes:
    """A SETTINGS frame."""
    return frame(FrameType.SETTINGS, b"".join(varint(key) + varint(value) for key, value in settings.items()))


def parse_settings(payload: bytes) -> dict[int, int]:
    """What a SETTINGS frame says.

    Raises:
        H3Failure: it is not whole, or says what may not be said.
    """
    settings: dict[int, int] = {}
    at = 0
    while at < len(payload):
        key = read_varint(payload, at)
        value = read_varint(payload, key[1]) if key is not None else None
        if key is None or value is None:
            raise H3Failure(H3Code.FRAME_ERROR, "SETTINGS end within a setting")
        if key[0] in FORBIDDEN_SETTINGS:
            raise H3Failure(H3Code.SETTINGS_ERROR, f"setting {key[0]:#x} is HTTP/2's")
        if key[0] in settings:
            raise H3Failure(H3Code.SETTINGS_ERROR, f"setting {key[0]:#x} comes twice")
        if key[0] in _SWITCHES and value[0] > 1:
            raise H3Failure(H3Code.SETTINGS_ERROR, f"setting {key[0]:#x} is 0 or 1")
        settings[key[0]], at = value
    return settings


_SWITCHES: Final = frozenset((Setting.ENABLE_CONNECT_PROTOCOL, Setting.H3_DATAGRAM, Setting.WEBTRANSPORT_DRAFT02))


def close_capsule(code: int, reason: str) -> bytes:
    """CLOSE_SESSION; a reason that is too long is cut between two characters."""
    text = reason.encode()[:MAX_REASON].decode(errors="ignore").encode()
    return frame(Capsule.CLOSE_SESSION, (code & 0xFFFF_FFFF).to_bytes(4, "big") + text)


def parse_close(payload: bytes) -> tuple[int, str]:
    """Code and reason of a CLOSE_SESSION capsule.

    Raises:
        H3Failure: it has no code.
    """
    if len(payload) < 4:
        raise H3Failure(H3Code.MESSAGE_ERROR, "CLOSE_SESSION has a code of four bytes")
    return int.from_bytes(payload[:4], "big"), payload[4:].decode(errors="replace")


class Manner(Enum):
    """What is done with a value."""

    GATHER = 1
    """Handed over when it is whole."""
    FLOW = 2
    """Handed over piece by piece, as it comes."""
    SKIP = 3
    """Thrown away as it comes."""


class Reader:
    """Cuts a stream into (type, value). Holds what came of one gathered value, never what a length declares."""

    __slots__ = ("_head", "_judge", "_kind", "_left", "_manner", "_parts")

    def __init__(self, judge: Callable[[int, int], Manner]) -> None:
        """`judge(type, length)` is asked once for each, on its header; it raises for what may not come."""
        self._judge = judge
        self._head = b""
        self._kind = 0
        self._left = 0
        self._manner: Manner | None = None
        self._parts: list[bytes] = []

    @property
    def partial(self) -> bool:
        """Whether a value, or a header, has begun and not ended."""
        return bool(self._head) or self._manner is not None

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Give what is whole or flows, in order. To be run to its end; stops for good when it raises."""
        at = 0
        while True:
            manner = self._manner
            if manner is None:
                at = self._header(data, at)
                manner = self._manner
                if manner is None:
                    return
            piece = data[at : at + self._left]
            at += len(piece)
            self._left -= len(piece)
            ended = self._left == 0
            if ended:
                self._manner = None
            if manner is Manner.FLOW:
                if piece:
                    yield self._kind, piece
            elif manner is Manner.GATHER:
                self._parts.append(piece)
                if ended:
                    whole, self._parts = b"".join(self._parts), []
                    yield self._kind, whole
            if not ended:
                return

    def _header(self, data: bytes, at: int) -> int:
        """Read type and length; where the value begins. `_manner` stays None when more is needed."""
        before = len(self._head)
        head = self._head + data[at : at + 16 - before]
        kind = read_varint(head)
        length = read_varint(head, kind[1]) if kind is not None else None
        if kind is None or length is None:
            self._head = head
            return len(data)
        self._head = b""
        self._kind, self._left = kind[0], length[0]
        self._manner = self._judge(kind[0], length[0])
        return at + length[1] - before
