"""What the program sees: deliveries, receipts, signals, events and changes of the connection's state.

Frozen values only. Times of messages are Unix milliseconds, delays are seconds.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from gateway.protocol.types import AckStatus


class Value(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all values here."""


class Delivery(Value, frozen=True, kw_only=True):
    """One message for this user: to them, to a group of theirs, or a copy of what another of their devices sent."""

    msg_id: str
    from_user: int
    to_user: int = 0
    group_id: int = 0
    content: str = ""
    content_type: int = 0
    sent_at: int = 0
    """When the sender says it was sent."""
    server_seq: int = 0
    """Its place in this user's messages, from 1; 0 when the server does not keep it."""
    missed: bool = False
    """It came by Sync: it was sent while this client was not connected, or was too slow."""


class Receipt(Value, frozen=True, kw_only=True):
    """How far one of this client's own messages has come."""

    msg_id: str
    status: AckStatus
    code: int = 0
    """Why it was rejected; else 0."""
    reason: str = ""
    server_seq: int = 0
    at: int = 0


class Signal(Value, frozen=True, kw_only=True):
    """Typing, presence and the like: never stored, never acknowledged."""

    from_user: int
    to_user: int = 0
    group_id: int = 0
    kind: str = ""
    data: bytes = b""


class Event(Value, frozen=True, kw_only=True):
    """Something that was published on the user's event subject."""

    kind: str
    data: bytes = b""


class OfferedFile(Value, frozen=True, kw_only=True):
    """Somebody sent a file to this user or to a group of theirs: `Client.fetch` brings it. Its size, digest and name
    are what its sender says, and the server checked the first two."""

    reference: str
    """By what name it is fetched."""
    from_user: int
    name: str
    """For people: a file's name without a path. Where it is to be put, decide yourself."""
    size: int
    sha256: bytes
    to_user: int = 0
    group_id: int = 0
    content_type: str = ""


class SentFile(Value, frozen=True, kw_only=True):
    """A file of this client's is stored at the server."""

    file_id: str
    reference: str
    """By what name others know it, and the msg_id of the message that announces it."""
    size: int
    server_seq: int = 0
    """Of that message; 0 when it was not waited for, or Logic keeps no such thing."""


class Complaint(Value, frozen=True, kw_only=True):
    """The server refused something that nobody waits for: a Signal, an acknowledgement."""

    code: int
    reason: str = ""


class State(StrEnum):
    """Where the connection is."""

    CONNECTING = "connecting"
    ONLINE = "online"
    LEAVING = "leaving"
    """The server will go away; still connected, about to reconnect."""
    WAITING = "waiting"
    """Not connected; the next attempt comes after `delay`."""
    CLOSED = "closed"
    """For good: by the program, or by a code after which a client must not come back."""


class StateChange(Value, frozen=True, kw_only=True):
    """The connection entered `state`."""

    state: State
    url: str
    code: int = 0
    reason: str = ""
    delay: float = 0.0
    """Seconds until the next attempt (WAITING) or until this connection is left (LEAVING)."""


class Synced(Value, frozen=True, kw_only=True):
    """Everything that was missed before this login has been put before the iteration."""

    missed: int
    """How many messages that were."""
    cursor: int


class Page(Value, frozen=True, kw_only=True):
    """One answer to `Client.sync`."""

    deliveries: tuple[Delivery, ...]
    next_cursor: int
    has_more: bool


Notice = Receipt | Signal | Event | OfferedFile | Complaint | StateChange | Synced


class Statistics(Value, frozen=True, kw_only=True):
    """Counts since the client began, and what it holds now."""

    state: State
    logins: int
    attempts: int
    """Connections tried, the successful ones among them."""
    sent: int
    """Messages written, resends among them."""
    resent: int
    stored: int
    rejected: int
    unacknowledged: int
    """Messages held until the server has answered for them."""
    delivered: int
    """Deliveries handed to the program."""
    duplicates: int
    gaps: int
    syncs: int
    buffered: int
    """Deliveries waiting for the program to take them."""
    deliveries_dropped: int
    """Deliveries without server_seq that came while the buffer was full; the others are fetched again by Sync."""
    notices_dropped: int
    acknowledgements_dropped: int
    bytes_in: int
    bytes_out: int
    round_trip: float
    """Seconds that the last heartbeat took; 0 before the first."""
