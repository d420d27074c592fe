"""The port to what Logic keeps: messages, every user's timeline, receipts, group membership. No SQL lives here.

A user's timeline holds what was sent to them and a copy of what they sent, numbered 1, 2, 3, ... by `server_seq`
without a hole. Users and groups are int64 above zero, times are Unix milliseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from gateway.protocol.types import AckStatus

INT64_MAX = 2**63 - 1
ENTRY_BYTES = 192
"""What a ChatMessage takes in a SyncResponse beside its content, at most."""
OWED_PER_PAGE = 500
RECENT = 256
"""How far back a receipt without server_seq is looked for."""


class Value(msgspec.Struct, frozen=True, gc=False):
    """Base of all values here."""


class Post(Value, frozen=True, gc=False):
    """A message to be stored. Exactly one of `to_user`, `group_id` is above zero."""

    sender: int
    msg_id: str
    to_user: int
    group_id: int
    content: str
    content_type: int
    sent_at: int


class Receipt(Value, frozen=True, gc=False):
    """`user_id` says how far a message of their timeline has come: by `server_seq`, or if that is 0 by `msg_id`
    among their newest. A `msg_id` that is not that message's makes it void."""

    user_id: int
    server_seq: int
    msg_id: str
    status: AckStatus


class Told(Value, frozen=True, gc=False):
    """The sender has been told that message `key` came as far as `status`."""

    key: int
    status: AckStatus


Write = Post | Receipt | Told


class Posted(msgspec.Struct, frozen=True):
    """A Post is stored, now or (`repeated`) earlier."""

    server_seq: int
    """Its place in the sender's own timeline."""
    stored_at: int
    recipients: list[tuple[int, int]] = []
    """(user_id, server_seq) of all others who got it by this Post; nobody when repeated."""
    repeated: bool = False


class NotMember(Value, frozen=True, gc=False):
    """A Post to a group that does not exist or that the sender is not in; nothing is stored."""


class Raised(Value, frozen=True, gc=False):
    """A Receipt was the first to bring message `key` as far as `status`: its sender is owed the news."""

    key: int
    sender: int
    msg_id: str
    server_seq: int
    """Its place in the sender's timeline."""
    status: AckStatus


Outcome = Posted | NotMember | Raised | None
"""What became of a Write: Posted or NotMember of a Post, Raised or None (no news) of a Receipt, None of a Told."""


class History(Value, frozen=True, gc=False):
    """Ask for a user's timeline after `cursor`."""

    user_id: int
    cursor: int
    limit: int
    max_bytes: int
    """Most bytes of messages, their tables' own included; the first message always fits."""


class Entry(Value, frozen=True, gc=False):
    """One place of a timeline."""

    server_seq: int
    msg_id: str
    sender: int
    to_user: int
    group_id: int
    content: str
    content_type: int
    sent_at: int


class Page(msgspec.Struct, frozen=True):
    """The answer to a History, oldest first."""

    entries: list[Entry]
    next_cursor: int
    """The last entry's `server_seq`; without entries the asked cursor, or less if the timeline is not that long."""
    has_more: bool
    owed: list[Raised]
    """News about this user's own messages that they may not have been told."""


class Retention(Value, frozen=True, gc=False):
    """What a timeline need not keep. Its newest entry always stays, so that numbers go on where they were."""

    before_ms: int
    """Entries of messages stored before may go; 0: none for their age."""
    keep: int
    """Entries beyond so many of a timeline may go, the oldest first; 0: none for their number."""


class StoreFailed(Exception):
    """The store could not do it (disk full, locked, broken, away); of a `write`, nothing was done, or all of what would
    have been returned: with a store elsewhere its answer may be lost. Nothing is done later."""


class Store(Protocol):
    """What LogicService needs. Calls may overlap; a call that has begun is not abandoned when cancelled."""

    async def write(self, writes: Sequence[Write], now_ms: int) -> list[Outcome]:
        """Do a prefix of `writes`, at least one, atomically and in order; when it returns, they survive kill -9.

        Returns:
            As many outcomes as writes were done; the caller comes again with the rest.

        Raises:
            StoreFailed
        """

    async def read(self, queries: Sequence[History]) -> list[Page]:
        """Answer each, from what has been written so far.

        Raises:
            StoreFailed
        """

    async def members(self, group_ids: Sequence[int]) -> dict[int, frozenset[int]]:
        """The members of each group; groups without any are absent.

        Raises:
            StoreFailed
        """

    async def prune(self, retention: Retention, after: str) -> str:
        """Forget a little of what need not be kept, so that others hardly wait: one step of a round over all timelines.

        A message goes with the last entry that shows it; then its `msg_id` is free again.

        Args:
            retention: the same for a whole round.
            after: where the last step ended; empty to begin a round.

        Returns:
            Where the next step begins; empty when the round is over.

        Raises:
            StoreFailed
        """
