"""WebSocket (RFC 6455) as the gateway speaks it: the names of the wire. The codec itself is `gateway._websocket`."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from gateway._websocket import Intake, ServerCodec, close_frame, pong_frame, server_header

__all__ = [
    "SUBPROTOCOL",
    "CloseCode",
    "Intake",
    "Opcode",
    "ServerCodec",
    "close_frame",
    "close_frame_for",
    "pong_frame",
    "sendable",
    "server_header",
]

SUBPROTOCOL: Final = "im.v1"
"""What a client may offer at the upgrade; echoed if it does (protocol section 4)."""


class Opcode(IntEnum):
    """Kinds of frame (RFC 6455 section 5.2)."""

    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


class CloseCode(IntEnum):
    """Close codes of the RFC that we say; those of our own table (`codes.Code`) go out as they are."""

    NORMAL = 1000
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    NO_STATUS = 1005
    """Never on the wire: a Close frame without a body."""
    INVALID_DATA = 1007
    POLICY_VIOLATION = 1008
    MESSAGE_TOO_BIG = 1009
    INTERNAL_ERROR = 1011


def sendable(code: int, reason: str) -> tuple[int, str]:
    """What may stand in a Close frame: 0 (no fault) is 1000, what may not be sent is 1011, a long reason is cut."""
    try:
        frame = close_frame(code or CloseCode.NORMAL, reason)
    except ValueError:
        frame = close_frame(CloseCode.INTERNAL_ERROR, reason)
    return int.from_bytes(frame[2:4], "big"), frame[4:].decode()


def close_frame_for(code: int, reason: str) -> bytes:
    """The Close frame that says a code of ours or of the RFC, see `sendable`."""
    return close_frame(*sendable(code, reason))
