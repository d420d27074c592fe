"""The bus subjects (protocol section 5). They are made here and nowhere else."""

from __future__ import annotations

from gateway.protocol.ids import checked_name

LOGIC_QUEUE = "logic-group"
"""The queue group in which Logic services share the upstream."""
INT64_MAX = 2**63 - 1


class Subjects:
    """All subjects under one prefix."""

    __slots__ = ("broadcast", "durable", "prefix", "undelivered", "upstream", "user_events")

    def __init__(self, prefix: str = "im") -> None:
        """Raises ValueError for a prefix that is no name: no dots, no wildcards."""
        self.prefix = checked_name(prefix, "the subject prefix")
        self.upstream = f"{prefix}.logic.upstream"
        """Access to Logic: `Upstream`, shared in the queue group `LOGIC_QUEUE`."""
        self.durable = f"{prefix}.logic.durable"
        """Access to Logic, through a stream: `Upstream` of a Message, when the uplink is durable."""
        self.undelivered = f"{prefix}.logic.undelivered"
        """Access to Logic: `Undelivered`."""
        self.broadcast = f"{prefix}.access.broadcast"
        """Logic to every node: `Downstream` without targets."""
        self.user_events = f"{prefix}.user.*.event"
        """The events of all users, to subscribe to."""

    def downstream(self, node_id: str) -> str:
        """Logic to one node: `Downstream`. Raises ValueError for a node id that is no name."""
        return f"{self.prefix}.access.{checked_name(node_id, 'a node id')}.downstream"

    def user_event(self, user_id: int) -> str:
        """Both ways: `UserEvent` of one user. Raises ValueError unless `user_id` is a positive int64."""
        if type(user_id) is not int or not 0 < user_id <= INT64_MAX:
            shown = user_id if type(user_id) is int and abs(user_id) < 2**64 else type(user_id).__name__
            raise ValueError(f"a user id must be a whole number from 1 to 2^63-1, not {shown}")
        return f"{self.prefix}.user.{user_id}.event"

    def user_of(self, subject: str) -> int:
        """The user whose event subject this is. Raises ValueError for any other subject."""
        head, _, tail = subject.partition(".user.")
        digits = tail.removesuffix(".event")
        if head == self.prefix and digits != tail and digits.isascii() and digits.isdecimal() and len(digits) < 20:
            user_id = int(digits)
            if str(user_id) == digits and 0 < user_id <= INT64_MAX:
                return user_id
        raise ValueError(f"not a user's event subject: {subject[:80]!r}")
