"""The one table of codes: in frames, as WebSocket close codes, as QUIC application errors (protocol section 3)."""

from __future__ import annotations

from enum import IntEnum


class Code(IntEnum):
    """Why a request was refused or a link was closed."""

    OK = 0

    MALFORMED_FRAME = 4000
    FRAME_TOO_LARGE = 4001
    UNKNOWN_TYPE = 4002
    TYPE_MISMATCH = 4003
    INVALID_PAYLOAD = 4004
    OUT_OF_ORDER = 4005
    EARLY_DATA_REFUSED = 4006
    VERSION_UNSUPPORTED = 4007

    TOKEN_INVALID = 4100
    TOKEN_EXPIRED = 4101
    USER_BANNED = 4102
    AUTH_TIMEOUT = 4103
    AUTH_UNAVAILABLE = 4104

    REPLACED_BY_SAME_DEVICE = 4200
    KICKED_BY_POLICY = 4201
    KICKED_BY_ADMIN = 4202
    SESSION_EXPIRED = 4203

    NODE_FULL = 4300
    TOO_MANY_CONNECTIONS = 4301
    RATE_LIMITED = 4302
    SLOW_CONSUMER = 4303
    TOO_MANY_STREAMS = 4304

    GOING_AWAY = 4400
    INTERNAL_ERROR = 4401
    UPSTREAM_UNAVAILABLE = 4402
    HEARTBEAT_TIMEOUT = 4403

    @property
    def label(self) -> str:
        """The name of the table: `malformed_frame`."""
        return self.name.lower()


ANSWERED = frozenset({Code.UNKNOWN_TYPE, Code.INVALID_PAYLOAD, Code.UPSTREAM_UNAVAILABLE})
"""Protocol errors that are answered and leave the link open, up to ten a minute."""


class Reconnect(IntEnum):
    """What a client may do after a close with some code."""

    NEVER = 0
    WITH_NEW_TOKEN = 1
    WITH_BACKOFF = 2


def reconnect_after(code: int) -> Reconnect:
    """What the range of `code` says; anything outside the table (a lost link) is worth another try."""
    if code // 100 in (40, 42):
        return Reconnect.NEVER
    if code // 100 == 41 and code != Code.AUTH_UNAVAILABLE:
        return Reconnect.WITH_NEW_TOKEN
    return Reconnect.WITH_BACKOFF
