"""What the core needs from outside, as small interfaces with their promises. No driver lives here.

Every implementation passes the same contract suite (`tests/contracts`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum, StrEnum
from typing import Literal, Protocol

import msgspec
import trio

BusHandler = Callable[[str, bytes], None]
"""`handler(subject, payload)`: synchronous, on the Trio thread, in order; what it raises is logged and dropped."""


class Subscription(Protocol):
    """A live subscription."""

    def close(self) -> None:
        """Stop; idempotent. The handler is not called again."""


class Bus(Protocol):
    """Publish and subscribe by subject (protocol section 5).

    Promises: `publish` never waits and never blocks; payloads from one publisher on one subject arrive in
    the order published; each plain subscriber gets every payload, one member of each queue group gets it;
    a handler never runs inside `publish`. What nobody subscribes to is forgotten.
    """

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Carry payloads until cancelled. `started` when publish and subscribe work."""

    def publish(self, subject: str, payload: bytes) -> bool:
        """Queue `payload`; False when the bound is reached or the bus is away, and then nothing was queued.

        Raises:
            ValueError: a subject that is no sequence of names, or a payload over the bus's maximum.
        """

    def subscribe(self, subject: str, handler: BusHandler, *, queue: str = "") -> Subscription:
        """Call `handler` for each payload on `subject`; `*` stands for one name. With `queue`, share it."""

    async def drain(self) -> None:
        """Return when everything published before has been handed on. The caller holds a deadline."""

    @property
    def healthy(self) -> bool:
        """False while the bus cannot be reached: readiness, not liveness."""


class Confirmation(Enum):
    """What became of a payload that a stream was asked to keep."""

    CONFIRMED = "confirmed"
    """The stream has it, whether anybody takes it or not."""
    REPEATED = "repeated"
    """The stream has, or had, an earlier one under the same key; this one was not kept."""
    REFUSED = "refused"
    """The stream has it not and will not: full, gone, or never reached."""
    UNKNOWN = "unknown"
    """No word came in time; it may have it."""


class StreamItem(Protocol):
    """A payload out of a stream. It comes again, to somebody, until one says `settle`."""

    @property
    def payload(self) -> bytes: ...

    @property
    def attempt(self) -> int:
        """1 the first time; more when an earlier one was put back, or its taker ended without a word."""

    def settle(self) -> None:
        """It is done and need not come again. What is said first of an item counts."""

    def put_back(self, delay: float = 0.0) -> None:
        """It is to come again, to anybody of the group, after `delay` seconds."""


class Consumption(Subscription, Protocol):
    """Who takes from a stream. `close`: take nothing more; what was taken can still be settled."""

    def abandon(self) -> None:
        """Close, and put back whatever was taken and is not settled."""


class DurableBus(Bus, Protocol):
    """A Bus that also keeps streams: bounded, and with nobody there to take from them.

    Promises: what was CONFIRMED is handed to one taker of the group until that settles it, also when takers
    or (a remote bus) this process and the server's are killed meanwhile. Payloads of one publisher are kept in the
    order published, and first handed on in the order kept. An item that was handed on `max_deliveries`
    times and never settled is dropped, counted and logged: it must be what ends its takers.
    """

    def publish_durable(self, subject: str, payload: bytes, key: str, done: Callable[[Confirmation], None]) -> bool:
        """Ask the stream of `subject` to keep `payload`; False when the bound on what waits for its word is reached.

        Args:
            subject: one that a stream is kept for.
            payload: what is to be kept.
            key: names the payload: of several under one key within the stream's window, the first is kept.
            done: called exactly once if True is returned, never inside this call, at the latest when `run` ends.

        Raises:
            ValueError: a subject without a stream, a key that is no sequence of names, too large a payload.
        """

    def consume(self, subject: str, handler: Callable[[StreamItem], None], *, group: str) -> Consumption:
        """Hand each item of a stream to one taker of `group`; at most a bounded number is unsettled here at a time.

        What `handler` raises is logged, and the item put back. There is one group for a stream.
        """


class BusUnusable(Exception):
    """The server is there and cannot be what is configured; says in one line what would help."""


class LoginPolicy(StrEnum):
    """Who gives way when a user logs in again (protocol section 6)."""

    MULTI_DEVICE = "multi_device"
    SINGLE_DEVICE = "single_device"
    SINGLE_PER_PLATFORM = "single_per_platform"

    def displaces(self, held: Location, newcomer: Location) -> bool:
        """Whether a login of the same user elsewhere, if it is older, gives way to `newcomer`."""
        return (
            held.device_id == newcomer.device_id
            or self is LoginPolicy.SINGLE_DEVICE
            or (self is LoginPolicy.SINGLE_PER_PLATFORM and held.platform == newcomer.platform)
        )


class Location(msgspec.Struct, frozen=True, kw_only=True):
    """Where one device of a user is connected: one field of `im:user:conn:{user_id}`.

    `login_time` and `expires_at` are Unix seconds. A location is owned by (conn_id, boot_id).
    """

    user_id: int
    access_node: str
    conn_id: int
    device_id: str
    platform: str
    login_time: int
    address: str = ""
    transport: str = ""
    region: str = ""
    boot_id: str = ""
    expires_at: int = 0


class NodeRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What a node says of itself to the others: `im:node:{node_id}` (protocol section 6)."""

    node_id: str
    boot_id: str
    address: str = ""
    region: str = ""
    connections: int = 0
    capacity: int = 0
    state: Literal["serving", "draining"] = "serving"
    endpoints: tuple[str, ...] = ()


class StoreUnavailable(Exception):
    """A backend could not be asked in time."""

    def __init__(self, reason: str = "", found: dict[int, list[Location]] | None = None) -> None:
        """
        Args:
            reason: for people.
            found: what a lookup found of those users who could be asked for, when others could not.
        """
        super().__init__(reason)
        self.found = found or {}


Claimed = Sequence[Location] | None | StoreUnavailable
"""What became of one of many claims: what `claim` returns, or raises."""


class LocationStore(Protocol):
    """Where users are. Claim, renew and release are each atomic; the newest claim (by conn_id) wins any race.

    Every operation fails with StoreUnavailable, within a second, when the store cannot be asked; and what was
    given up is not done later.
    """

    async def run(
        self,
        record: Callable[[], NodeRecord] | None = None,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until cancelled, and keep the node that `record` describes known as alive for as long.

        `started` when the store has been asked for the first time, whether or not it answered.
        """

    async def wait_recovered(self) -> None:
        """Return when the store is back after it was away, or may have forgotten: everything is to be renewed now.

        For one waiter; what happened while it did not wait is told at its next call.
        """

    async def claim(self, location: Location, policy: LoginPolicy) -> Sequence[Location] | None:
        """Enter `location` and remove what the policy displaces, atomically.

        Returns:
            Exactly the entries displaced (the same device's older one always), or None when `location`
            itself is older than an entry that the policy would have it displace: the caller lost the race.

        Raises:
            StoreUnavailable: within a second when the store cannot be asked.
        """

    async def reclaim(self, locations: Sequence[Location], policy: LoginPolicy) -> Sequence[Claimed]:
        """Claim many at once, in few round trips; each is as atomic as by `claim`, and they are not one transaction.

        Returns:
            For each, in order, what `claim` would have returned or raised.
        """

    async def renew(self, locations: Sequence[Location]) -> Sequence[Location]:
        """Extend the life of those still owned by their (conn_id, boot_id); return those that are not, or that could
        not be asked for while others could."""

    async def release(self, location: Location) -> bool:
        """Remove it if it is still its owner's; False if it was not there or is somebody else's."""

    async def lookup(self, user_ids: Sequence[int]) -> dict[int, list[Location]]:
        """Live locations of each user; users without one are absent.

        Raises:
            StoreUnavailable: some could not be asked for; its `found` has the others.
        """

    @property
    def healthy(self) -> bool:
        """False while the store cannot be reached."""


class SessionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What others may know of one login: `im:session:{session_id}` (protocol section 6). Times are Unix seconds."""

    session_id: str
    user_id: int
    device_id: str
    platform: str
    access_node: str
    conn_id: int
    boot_id: str
    login_time: int
    last_active: int
    """When the client was heard last, as of the last writing: a renewal interval late at most."""
    expires_at: int
    """When its token runs out."""
    address: str = ""
    transport: str = ""
    region: str = ""


class SessionStore(Protocol):
    """The logins of all nodes, for whoever answers questions about them. A record lives 120 s unless put again.

    A session counts only while its user's location has its `conn_id` and `boot_id`: a killed node leaves records
    behind until they run out. Every operation fails with StoreUnavailable within a second or so; writing is idempotent,
    so whoever writes comes again.
    """

    async def put(self, records: Sequence[SessionRecord]) -> None:
        """Write each as it is now, and extend its life."""

    async def remove(self, records: Sequence[SessionRecord]) -> None:
        """Forget them; those that are not there are no error."""

    async def find(self, session_id: str) -> SessionRecord | None:
        """One session; None when there is none of that id."""

    async def of_user(self, user_id: int) -> list[SessionRecord]:
        """All sessions of a user, the oldest login first."""


class Dedup(Protocol):
    """Which messages came within the last five minutes, to any node: `im:dedup:{from_user}:{msg_id}`."""

    async def first(self, from_user: int, msg_id: str) -> bool:
        """Enter a message; False when it was entered before.

        Raises:
            ValueError: the id is no name.
            StoreUnavailable: it cannot be asked, or holds as many as it may; the message must not pass by it.
        """

    async def forget(self, from_user: int, msg_id: str) -> None:
        """Undo `first`: the message was not passed on. Never fails; what cannot be undone runs out."""

    async def stored(self, from_user: int, msg_id: str, server_seq: int) -> None:
        """Note under which number the message was stored, for whoever asks the key. Never fails."""


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Who a token speaks for. `expires_at` is Unix seconds."""

    user_id: int
    expires_at: float


class Credentials(msgspec.Struct, frozen=True, kw_only=True):
    """What a client presents. Never logged."""

    token: str
    device_id: str
    platform: str
    address: str


class AuthRefused(Exception):
    """The credentials were not accepted; `code` is of the 41xx range, the message may be shown to the client."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Authenticator(Protocol):
    """From a token to an identity. Fails closed."""

    async def authenticate(self, credentials: Credentials) -> Identity:
        """Raises:
        AuthRefused: with the code to tell. Anything else it raises is told as 4104.
        """
