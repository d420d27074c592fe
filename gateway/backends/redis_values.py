"""Keys and values in Redis, exactly as protocol section 6 has them. No connection and no clock lives here."""

from __future__ import annotations

from typing import Final

import msgspec

from gateway.core.ports import Location, NodeRecord
from gateway.protocol.ids import checked_name

_ADDRESS: Final = 256
"""Characters kept of an address: more than any has."""
_LARGEST: Final = 2**63 - 1


class Keys:
    """The keys under one prefix. Made of checked names and numbers only, so none can hold `:` or `{}` of a client's."""

    def __init__(self, prefix: str) -> None:
        """
        Raises:
            ValueError: the prefix is no name.
        """
        self._prefix = checked_name(prefix, "prefix")

    def user(self, user_id: int) -> bytes:
        """Where a user is connected."""
        return b"%s:user:conn:%d" % (self._prefix.encode(), checked_number(user_id, "user id"))

    def session(self, session_id: str) -> bytes:
        """One login."""
        return f"{self._prefix}:session:{checked_name(session_id, 'session id')}".encode()

    def user_sessions(self, user_id: int) -> bytes:
        """The ids of a user's logins."""
        return b"%s:user:sessions:%d" % (self._prefix.encode(), checked_number(user_id, "user id"))

    def seen(self, from_user: int, msg_id: str) -> bytes:
        """That a message came lately; `msg_id` is a checked name."""
        return f"{self._prefix}:dedup:{checked_number(from_user, 'user id')}:{msg_id}".encode()

    def node(self, node_id: str) -> bytes:
        """What a node says of itself."""
        return f"{self._prefix}:node:{checked_name(node_id, 'node id')}".encode()


def checked_number(number: int, what: str) -> int:
    """Return `number` if it is one from 1 to 2^63 - 1; ValueError names `what`."""
    if type(number) is not int or not 0 < number <= _LARGEST:
        raise ValueError(f"{what} must be a number from 1 to 2^63 - 1, not {str(number)[:80]!r}")
    return number


class _Entry(msgspec.Struct, frozen=True):
    """A Location as it is stored; the key has the user. The scripts rely on `expires_at` being last."""

    access_node: str
    conn_id: int
    device_id: str
    platform: str
    login_time: int = 0
    address: str = ""
    transport: str = ""
    region: str = ""
    boot_id: str = ""
    expires_at: int = 0


class _Node(msgspec.Struct, frozen=True):
    """A NodeRecord as it is stored; the key has the node's id."""

    boot_id: str
    address: str = ""
    region: str = ""
    connections: int = 0
    capacity: int = 0
    state: str = "serving"
    endpoints: tuple[str, ...] = ()


_read_entry: Final = msgspec.json.Decoder(_Entry).decode
_read_node: Final = msgspec.json.Decoder(_Node).decode


def entry_head(location: Location) -> bytes:
    """The value of a location up to the number of `expires_at`, which the server's clock makes.

    Raises:
        ValueError: a part that becomes a field, or is compared, is no name or number.
    """
    checked_number(location.user_id, "user id")
    entry = _Entry(
        access_node=checked_name(location.access_node, "node id"),
        conn_id=checked_number(location.conn_id, "connection id"),
        device_id=checked_name(location.device_id, "device id"),
        platform=checked_name(location.platform, "platform"),
        login_time=location.login_time,
        address=location.address[:_ADDRESS].encode("utf-8", "replace").decode(),
        transport=location.transport,
        region=location.region,
        boot_id=checked_name(location.boot_id, "boot id"),
    )
    return msgspec.json.encode(entry)[: -len("0}")]


def read_location(user_id: int, value: bytes) -> Location | None:
    """The location that a value tells; None for a value that nobody of ours wrote."""
    try:
        entry = _read_entry(value)
    except msgspec.DecodeError:
        return None
    return Location(user_id=user_id, **msgspec.structs.asdict(entry))


def node_value(record: NodeRecord) -> bytes:
    """What stands under a node's key.

    Raises:
        ValueError: the boot id is no name.
    """
    checked_name(record.boot_id, "boot id")
    told = {name: getattr(record, name) for name in _Node.__struct_fields__}
    return msgspec.json.encode(_Node(**told))


def read_boot_id(value: object) -> str | None:
    """The boot id in a node's value; None when there is none."""
    if not isinstance(value, bytes):
        return None
    try:
        return _read_node(value).boot_id
    except msgspec.DecodeError:
        return None
