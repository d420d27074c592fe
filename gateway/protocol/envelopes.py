"""The bus envelopes that are not hot. Upstream and Downstream are in `gateway._framing`."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Self

import msgspec

from gateway._framing import verify_envelope
from gateway.protocol.fbs import internal_generated
from gateway.protocol.tables import Table


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """Base: the Struct's name is the table's in schema/internal.fbs."""

    def encode(self) -> bytes:
        """The whole buffer. ValueError for a value that the schema cannot hold."""
        return _TABLES[type(self)].encode(self)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Verify and read.

        Raises:
            FrameError: `data` is no such table (code 4000).
        """
        verify_envelope(cls.__name__, data)
        envelope: Self = _TABLES[cls].decode(data)
        return envelope


class EventKind(StrEnum):
    """What nodes tell of a user's sessions. Every other kind is somebody's own, and goes to the user's connections."""

    ONLINE = "online"
    OFFLINE = "offline"
    """The session is gone, however it ended; comes once for each `online`."""
    KICKED = "kicked"
    """It was displaced or removed, the code in `data` as digits; `offline` follows."""


class UserEvent(Envelope, frozen=True, kw_only=True):
    """On `im.user.{user_id}.event`: online, offline, kicked, or any other kind. `at` is Unix milliseconds."""

    kind: str = ""
    user_id: int = 0
    node_id: str = ""
    conn_id: int = 0
    device_id: str = ""
    platform: str = ""
    at: int = 0
    data: bytes = b""


class Undelivered(Envelope, frozen=True, kw_only=True):
    """On `im.logic.undelivered`: `downstream` (an encoded Downstream) whose target is not on this node."""

    node_id: str = ""
    user_id: int = 0
    conn_id: int = 0
    reason: str = ""
    downstream: bytes = b""


_TABLES: dict[type[Envelope], Table[Any]] = {
    struct: Table(struct, internal_generated, struct.__name__) for struct in (UserEvent, Undelivered)
}
