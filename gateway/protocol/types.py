"""The enumerations of the schema, as Python's, and the lanes. Nothing but numbers lives here."""

from __future__ import annotations

from enum import IntEnum


class MsgType(IntEnum):
    """What a frame is: its header's type, and its packet's `msg_type`."""

    HEARTBEAT = 0
    AUTH = 1
    AUTH_ACK = 2
    ERROR = 3
    KICK = 4
    GO_AWAY = 5
    MESSAGE = 10
    MESSAGE_ACK = 11
    SIGNAL = 12
    SYNC = 20
    SYNC_ACK = 21
    EVENT = 30
    FILE_OFFER = 40
    FILE_ACK = 41
    FILE_CHUNK = 42


class AckStatus(IntEnum):
    """How far a message has come."""

    ACCEPTED = 0
    STORED = 1
    DELIVERED = 2
    READ = 3
    REJECTED = 4


class Action(IntEnum):
    """What a Downstream asks a node to do with its targets."""

    DELIVER = 0
    KICK = 1


class Lane(IntEnum):
    """What a stream carries; on QUIC and WebTransport the first byte of each stream (protocol section 4)."""

    SOLE = 0
    """TCP and WebSocket: one lane for everything. Never on the wire."""
    CONTROL = 1
    MESSAGE = 2
    EPHEMERAL = 3
