"""One frozen Struct per table of schema/message.fbs, and whole frames from and to them.

For what is not hot: logins, syncs, notices, clients, tests. The hot path reads frames in place (`gateway._framing`).
Fields, order and defaults are the schema's; unknown numbers in enumerations pass through as they are.
"""

from __future__ import annotations

from typing import Any

import msgspec

from gateway._framing import HEADER, Frame, build_frame, build_heartbeat
from gateway.protocol.fbs import message_generated
from gateway.protocol.tables import Table
from gateway.protocol.types import AckStatus, MsgType


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """Base of everything that a frame can carry."""


class Heartbeat(Message, frozen=True, kw_only=True):
    """A sign of life; has no payload."""


class AuthRequest(Message, frozen=True, kw_only=True):
    """Auth: the first frame of a client. `token` is never logged, so `repr` does not show it."""

    token: str = ""
    device_id: str = ""
    platform: str = ""
    protocol_version: int = 1
    client: str = ""
    resume_ticket: str = ""
    sync_cursor: int = 0
    """Non-zero: a Sync after this cursor follows at once."""

    def __repr__(self) -> str:
        return f"AuthRequest(device_id={self.device_id!r}, platform={self.platform!r}, client={self.client!r})"


class AuthResponse(Message, frozen=True, kw_only=True):
    """AuthAck: `code` 0 binds the session. `server_time` is Unix milliseconds, `max_frame` bytes."""

    code: int = 0
    user_id: int = 0
    message: str = ""
    session_id: str = ""
    node_id: str = ""
    heartbeat_interval_ms: int = 0
    heartbeat_timeout_ms: int = 0
    max_frame: int = 0
    server_time: int = 0
    resume_ticket: str = ""

    def __repr__(self) -> str:
        return f"AuthResponse(code={self.code}, user_id={self.user_id}, node_id={self.node_id!r})"


class ChatMessage(Message, frozen=True, kw_only=True):
    """Message: one of `to_user`, `group_id` is set. `timestamp` is Unix milliseconds, `server_seq` the recipient's."""

    msg_id: str = ""
    from_user: int = 0
    to_user: int = 0
    content: str = ""
    content_type: int = 0
    timestamp: int = 0
    group_id: int = 0
    server_seq: int = 0


class MessageAck(Message, frozen=True, kw_only=True):
    """MessageAck: how far `msg_id` has come (an AckStatus, or a newer number)."""

    msg_id: str = ""
    status: int = AckStatus.ACCEPTED
    code: int = 0
    server_seq: int = 0
    timestamp: int = 0


class Signal(Message, frozen=True, kw_only=True):
    """Signal: typing, presence, cursor positions; never stored, may be dropped."""

    to_user: int = 0
    from_user: int = 0
    group_id: int = 0
    kind: str = ""
    data: bytes = b""


class SyncRequest(Message, frozen=True, kw_only=True):
    """Sync: messages after `cursor`, at most `limit`."""

    cursor: int = 0
    limit: int = 100


class SyncResponse(Message, frozen=True, kw_only=True):
    """SyncAck: oldest first; ask again from `next_cursor` while `has_more`."""

    code: int = 0
    messages: tuple[ChatMessage, ...] = ()
    next_cursor: int = 0
    has_more: bool = False


class ErrorMessage(Message, frozen=True, kw_only=True):
    """Error: about the request with the packet's seq."""

    code: int = 0
    message: str = ""
    retry_after_ms: int = 0


class Kick(Message, frozen=True, kw_only=True):
    """Kick: why the link is about to be closed."""

    code: int = 0
    message: str = ""
    device_id: str = ""
    platform: str = ""


class GoAway(Message, frozen=True, kw_only=True):
    """GoAway: reconnect after `reconnect_after_ms` plus a random part of `jitter_ms`, trying `endpoints` in order."""

    code: int = 0
    message: str = ""
    reconnect_after_ms: int = 0
    jitter_ms: int = 0
    endpoints: tuple[str, ...] = ()


class Event(Message, frozen=True, kw_only=True):
    """Event: something published on the user's event subject."""

    kind: str = ""
    data: bytes = b""


class FileOffer(Message, frozen=True, kw_only=True):
    """FileOffer: a file of `size` bytes is about to come; `sha256` is the 32 bytes of its digest."""

    file_id: str = ""
    to_user: int = 0
    group_id: int = 0
    name: str = ""
    size: int = 0
    sha256: bytes = b""
    content_type: str = ""


class FileAck(Message, frozen=True, kw_only=True):
    """FileAck: `received` bytes of the file have arrived."""

    file_id: str = ""
    code: int = 0
    message: str = ""
    received: int = 0


class FileChunk(Message, frozen=True, kw_only=True):
    """FileChunk: at most 16 KiB of the file, from `offset`."""

    file_id: str = ""
    offset: int = 0
    data: bytes = b""
    last: bool = False


def _table(struct: type[Message], name: str = "", element: Table[Any] | None = None) -> Table[Any]:
    return Table(struct, message_generated, name or struct.__name__, element)


_CHAT = _table(ChatMessage)
TABLES: dict[MsgType, Table[Any]] = {
    MsgType.AUTH: _table(AuthRequest),
    MsgType.AUTH_ACK: _table(AuthResponse),
    MsgType.ERROR: _table(ErrorMessage, "Error"),
    MsgType.KICK: _table(Kick),
    MsgType.GO_AWAY: _table(GoAway),
    MsgType.MESSAGE: _CHAT,
    MsgType.MESSAGE_ACK: _table(MessageAck),
    MsgType.SIGNAL: _table(Signal),
    MsgType.SYNC: _table(SyncRequest),
    MsgType.SYNC_ACK: _table(SyncResponse, element=_CHAT),
    MsgType.EVENT: _table(Event),
    MsgType.FILE_OFFER: _table(FileOffer),
    MsgType.FILE_ACK: _table(FileAck),
    MsgType.FILE_CHUNK: _table(FileChunk),
}
"""How the payload of each type is written and read; a Heartbeat has none."""
_TYPES: dict[type, MsgType] = {Heartbeat: MsgType.HEARTBEAT} | {table.struct: kind for kind, table in TABLES.items()}


def type_of(message: Message) -> MsgType:
    """The frame type that carries this Struct."""
    return _TYPES[type(message)]


def encode(message: Message, *, seq: int = 0, timestamp: int = 0) -> bytes:
    """A whole frame, header and body.

    Raises:
        ValueError: a value that the schema cannot hold, or a body over CEILING.
        OverflowError: a `seq` or `timestamp` that is no uint64.
    """
    kind = type_of(message)
    if kind is MsgType.HEARTBEAT:
        return build_heartbeat(seq, timestamp)
    return build_frame(kind, seq, timestamp, TABLES[kind].encode(message))


def packet(message: Message, *, seq: int = 0, timestamp: int = 0) -> bytes:
    """The Packet alone, as Downstream.packet carries it. Raises as `encode` does."""
    return encode(message, seq=seq, timestamp=timestamp)[HEADER:]


def decode(frame: Frame) -> Message:
    """What a verified frame says."""
    if frame.type == MsgType.HEARTBEAT:
        return Heartbeat()
    message: Message = TABLES[MsgType(frame.type)].decode(frame.payload)
    return message
