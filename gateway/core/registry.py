"""The connections of this node, by id and by user."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from gateway._framing import Downstream
from gateway.core.limits import TokenBucket

if TYPE_CHECKING:
    from gateway.core.connection import Connection

DEPARTED = 4096
"""Message budgets of users who left, remembered so that logging in again does not refill a bucket."""


class Registry:
    """Every connection is entered by id when it comes, and by user when it is seated."""

    def __init__(self) -> None:
        self._by_id: dict[int, Connection] = {}
        self._by_user: dict[int, list[Connection]] = {}
        self._departed: dict[int, TokenBucket] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Connection]:
        return iter(list(self._by_id.values()))

    def enter(self, connection: Connection) -> None:
        """Make a new connection known by its id."""
        self._by_id[connection.id] = connection

    def seat(self, connection: Connection, user_id: int) -> None:
        """Make a connection known by its user."""
        self._by_user.setdefault(user_id, []).append(connection)

    def leave(self, connection: Connection) -> None:
        """Forget a connection; idempotent."""
        if self._by_id.pop(connection.id, None) is None:
            return
        session = connection.session
        if session is None:
            return
        seated = self._by_user.get(session.user_id)
        if seated is None or connection not in seated:
            return
        seated.remove(connection)
        if not seated:
            del self._by_user[session.user_id]
            self._remember(session.user_id, session.bucket)

    def connection(self, conn_id: int) -> Connection | None:
        """The connection with this id, seated or not."""
        return self._by_id.get(conn_id)

    def of_user(self, user_id: int) -> Sequence[Connection]:
        """The seated connections of a user, oldest first."""
        return self._by_user.get(user_id, ())

    def seated(self) -> Iterable[Connection]:
        """Every authenticated connection."""
        return [connection for connections in self._by_user.values() for connection in connections]

    def users(self) -> int:
        """How many users have a connection here."""
        return len(self._by_user)

    def bucket(self, user_id: int, rate: float, burst: float, now: float) -> TokenBucket:
        """The message budget of a user, one for all their connections here."""
        for connection in self._by_user.get(user_id, ()):
            if connection.session is not None:
                return connection.session.bucket
        return self._departed.pop(user_id, None) or TokenBucket(rate, burst, now)

    def targets(self, down: Downstream) -> Sequence[Connection]:
        """Whom a Downstream means, most precise first (protocol section 5)."""
        exclude = down.exclude_conn_id
        if down.conn_ids:
            by_id = self._by_id
            found = (by_id.get(conn_id) for conn_id in down.conn_ids)
            return [each for each in found if each is not None and _hears(each) and each.id != exclude]
        if not down.user_id:
            return [each for each in self.seated() if each.id != exclude]
        device, platform = down.device_id, down.platform
        return [
            each
            for each in self._by_user.get(down.user_id, ())
            if each.id != exclude
            and each.session is not None
            and (not device or each.session.device_id == device)
            and (not platform or each.session.platform == platform)
        ]

    def _remember(self, user_id: int, bucket: TokenBucket) -> None:
        self._departed[user_id] = bucket
        if len(self._departed) > DEPARTED:
            del self._departed[next(iter(self._departed))]


def _hears(connection: Connection) -> bool:
    """A login has come, or something was said early that is being answered."""
    return connection.session is not None or connection.provisional is not None
