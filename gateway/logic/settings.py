"""What an operator may turn in the reference Logic. `config` composes it; every field says its unit and reason."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from gateway.backends.settings_redis import RedisSettings
from gateway.core.settings import Count, Port, Seconds, Settings

SYNC_BYTES = 61_440
"""Bytes of messages in one SyncResponse: with its envelope it stays under the 64 KiB that a client takes."""

STORE_FILE = "logic.sqlite"
"""The store's name in `data_dir`."""


class LogicSettings(Settings, frozen=True):
    """The reference Logic: where it runs, bounds on what it holds, and its patience."""

    embedded: bool = False
    """With NATS: whether this node also runs Logic inside itself, beside or instead of `python -m gateway logic`.
    Without NATS it always does."""
    store: Literal["sqlite", "redis"] = "sqlite"
    """Where messages and groups are kept: `sqlite`, a file in `data_dir` that the Logics of one machine share, or
    `redis`, in the server of section `logic.redis`, or else `redis`, which all share and which must sync each write to
    its disk."""
    redis: RedisSettings | None = None
    """Another Redis than where locations are, for messages and groups only: of `store = "redis"`. No cluster: a
    transaction concerns many users. `timeout` is not for it."""
    console_port: Port = 0
    """Port of the console of `python -m gateway logic`, at `console.host`; 0 lets the system choose, and the log says
    which. A node's own is `console.port`."""
    keep_days: Annotated[float, Meta(ge=0, le=36_500)] = 0.0
    """Days after which a message is forgotten, but for the newest of each user; 0 keeps all. A message sent again later
    than that is a new one."""
    keep_messages: Annotated[int, Meta(ge=0, le=2**53)] = 0
    """Messages kept in the timeline of each user, the newest; 0 keeps all."""
    content_bytes: Annotated[int, Meta(ge=1, le=49_152)] = 32_768
    """Largest `content` of a message in UTF-8 bytes; more is Rejected with 4004. One always fits a Sync answer."""
    signal_bytes: Annotated[int, Meta(ge=0, le=49_152)] = 1_024
    """Largest `data` of a Signal; a larger one is dropped. A datagram carries about so much."""
    sync_limit: Annotated[int, Meta(ge=1, le=1_000)] = 200
    """Most messages in one Sync answer, whatever the client asks for."""
    max_waiting: Count = 10_000
    """Messages and receipts that may wait to be stored or routed; one more is Rejected with 4402."""
    max_waiting_bytes: Count = 67_108_864
    """Bytes that those may hold together."""
    max_syncs: Count = 10_000
    """Sync requests that may wait; one more is answered 4402."""
    max_signals: Count = 4_096
    """Signals that may wait; one more is dropped."""
    commit_messages: Annotated[int, Meta(ge=1, le=10_000)] = 512
    """Messages and receipts in one transaction: larger ones cost less each and take longer together."""
    send_patience: Seconds = 2.0
    """Seconds in which a full bus is asked again; after that the delivery is left to the client's Sync."""
    lookup_timeout: Seconds = 3.0
    """Seconds that the location store has for one lookup; after that everybody counts as offline."""
