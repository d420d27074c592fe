"""What an operator may turn in the core. `config` composes these; every field says its unit and reason."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta, structs

from gateway.core.ports import LoginPolicy

Port = Annotated[int, Meta(ge=0, le=65_535)]
"""A port number; 0 lets the system choose."""
Seconds = Annotated[float, Meta(gt=0, le=31_536_000)]
"""A length of time above zero and up to a year."""
Count = Annotated[int, Meta(ge=1, le=2**53)]
"""How many, at least one."""
FrameBytes = Annotated[int, Meta(ge=64, le=16_777_216)]
"""The size of a body; the upper bound is protocol section 1's hard ceiling."""
_SECRET = Meta(extra={"secret": True})
Secret = Annotated[str, _SECRET]
"""A text that is never printed nor logged."""


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every configuration Struct: immutable, by keyword, typos refused; secrets stay out of its repr."""

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        values = [(field, getattr(self, field.name)) for field in structs.fields(self)]
        return [(field.name, "[secret]" if value and _is_secret(field) else value) for field, value in values]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"


def _is_secret(field: structs.FieldInfo) -> bool:
    return _SECRET in getattr(field.type, "__metadata__", ())


class LimitSettings(Settings, frozen=True):
    """Bounds on what clients may make this node hold or do."""

    max_connections: Count = 50_000
    """Connections on this node; further ones are refused with 4300."""
    max_connections_per_address: Count = 10_000
    """Connections from one IPv4 address or IPv6 /64; further ones are refused with 4301."""
    message_rate: Annotated[float, Meta(gt=0, le=1e9)] = 50.0
    """Messages per second that one user may send on this node, over all their devices."""
    message_burst: Count = 200
    """Messages that a user may send at once after silence."""
    rate_patience: Seconds = 30.0
    """Seconds that a connection may stay over the rate, not being read, before it is closed with 4302."""
    max_frame: FrameBytes = 65_536
    """Largest body in bytes after authentication; larger closes with 4001."""
    max_frame_before_auth: FrameBytes = 8_192
    """Largest body in bytes before authentication."""
    outbox_bytes: Count = 1_048_576
    """Bytes that may wait for one connection; over it the reader is too slow and closed with 4303."""
    datagram_rate: Annotated[float, Meta(gt=0, le=1e9)] = 100.0
    """Datagrams per second that one QUIC or WebTransport connection may send; those over it are dropped."""
    datagram_burst: Count = 200
    """Datagrams that a connection may send at once after silence."""
    protocol_errors_per_minute: Count = 10
    """Errors of the kind that leave the link open; one more closes it."""


class HeartbeatSettings(Settings, frozen=True):
    """Keeping connections alive (protocol section 3)."""

    interval: Seconds = 30.0
    """Seconds between a client's heartbeats, told at login."""
    timeout: Seconds = 90.0
    """Seconds without any frame until the connection is closed with 4403."""


class LoginSettings(Settings, frozen=True):
    """From accept to a session."""

    policy: LoginPolicy = LoginPolicy.MULTI_DEVICE
    """Who gives way on a new login: multi_device, single_device or single_per_platform."""
    link_timeout: Seconds = 5.0
    """Seconds from accept until the link (TLS, upgrade) must be up, in total."""
    auth_timeout: Seconds = 5.0
    """Seconds from the link being up until Auth must have arrived, in total; then 4103."""
    backend_timeout: Seconds = 3.0
    """Seconds that the authenticator and the location store have for one login; then 4104."""
    max_questions: Count = 256
    """Logins that the authenticator is asked about at the same time; further ones wait for their turn, within
    `backend_timeout`. One that hangs is not asked more and more."""
    admit_without_store: bool = False
    """Whether logins are admitted while the location store is away, instead of refused with 4104. Until it is back, the
    policy holds on each node by itself, and users who log in anew are not found from other nodes."""


class DrainSettings(Settings, frozen=True):
    """Leaving (SIGTERM)."""

    timeout: Seconds = 30.0
    """Seconds from SIGTERM until what is left is closed, at most: who has not left 3 s after the time that clients are
    told (`reconnect_after` and `jitter`) is closed then."""
    reconnect_after: Annotated[float, Meta(ge=0, le=3600)] = 0.5
    """Seconds that clients are told to wait before they reconnect elsewhere."""
    jitter: Annotated[float, Meta(ge=0, le=3600)] = 5.0
    """Seconds over which clients are told to spread their reconnecting."""
