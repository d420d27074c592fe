"""What a QUIC endpoint counts, for the metrics. Numbers only."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from gateway.transports.quic.pump import Pump
    from gateway.transports.quic.tickets import Tickets


class Drop(Enum):
    """Why a datagram was dropped; also the label of the metric."""

    MALFORMED = "malformed"
    """No QUIC, or cut off."""
    UNKNOWN_CONNECTION = "unknown_connection"
    """A short header of no connection of ours: a stateless reset answers it, as often as that is allowed."""
    NOT_INITIAL = "not_initial"
    """A long header of no connection of ours, and no first packet either."""
    TOO_SMALL = "too_small"
    """An Initial in less than 1,200 bytes."""
    TOO_MANY_HALF_OPEN = "too_many_half_open"
    INVALID_TOKEN = "invalid_token"
    """A Retry token that is made up, too old, used, or somebody else's."""
    REFUSED = "refused"
    """The node takes nobody, or nobody more from there."""
    UNREADABLE = "unreadable"
    """An Initial that does not decrypt, or is no ClientHello."""
    TRUNCATED = "truncated"
    """Longer than anything we take."""
    OTHER_WORKER = "other_worker"
    """Of a connection that another process has."""
    PARTED = "parted"
    """Of a connection that has ended."""


@dataclass(frozen=True, slots=True)
class QuicStatistics:
    """What `QuicEndpoint.statistics` returns. All but the first five only ever grow."""

    connections: int
    half_open: int
    connection_ids: int
    """Ids under which datagrams find their connection, those of connections that have just ended included."""
    timers: int
    tickets: int
    """TLS session tickets kept."""
    packets_in: int
    """Datagrams received."""
    packets_out: int
    """Datagrams that the kernel took."""
    bytes_in: int
    bytes_out: int
    batches_in: int
    """System calls that received something."""
    batches_out: int
    segmented: int
    """Datagrams that left as part of a larger one (GSO)."""
    send_refused: int
    """System calls that the kernel refused, to be repeated or, for a single datagram, for good."""
    send_dropped: int
    """Datagrams that the kernel refused for good, or that waited in vain."""
    receive_errors: int
    slices: int
    """How often the pump let others run while it had more to do."""
    accepted: int
    """Handshakes begun."""
    completed: int
    """Handshakes completed."""
    expired: int
    """Handshakes that took too long."""
    resumed: int
    """Handshakes by a ticket."""
    tickets_issued: int
    tickets_redeemed: int
    """Tickets shown and taken out."""
    tickets_refused: int
    """Tickets shown and not known: used before, too old, pushed out, or of another process."""
    retries: int
    """Retry packets sent."""
    version_negotiations: int
    resets: int
    """Stateless resets sent."""
    refusals: int
    """Initials answered by CONNECTION_REFUSED or INVALID_TOKEN."""
    migrations: int
    """Times that a client went on from another address."""
    closed: dict[int, int]
    """Ends by the application's code; 0 where there was none."""
    failures: int
    """Exceptions in handlers or in aioquic: bugs, each logged, each the end of one connection."""
    dropped: dict[str, int] = field(default_factory=dict)
    """Datagrams dropped, by `Drop`."""


CODES: Final = 100
"""Different close codes that are counted apart: ours and HTTP/3's are fifty."""
OTHER: Final = -1
"""Stands for all others."""


class _Codes(Counter[int]):
    """Counts by code; a client may close with any of 2^62, so that only so many are told apart."""

    def __setitem__(self, code: int, count: int) -> None:
        if code not in self and len(self) >= CODES:
            code, count = OTHER, self[OTHER] + 1
        super().__setitem__(code, count)


class Counts:
    """The counters as they run."""

    __slots__ = (
        "accepted",
        "closed",
        "completed",
        "dropped",
        "expired",
        "failures",
        "migrations",
        "refusals",
        "resets",
        "resumed",
        "retries",
        "version_negotiations",
    )

    def __init__(self) -> None:
        self.accepted = self.completed = self.expired = self.resumed = self.retries = 0
        self.version_negotiations = self.resets = self.refusals = self.migrations = self.failures = 0
        self.closed: Counter[int] = _Codes()
        self.dropped: Counter[Drop] = Counter()


def counted(
    counts: Counts, pump: Pump | None, tickets: Tickets, *, open: int, half_open: int, ids: int
) -> QuicStatistics:
    """The counters as they stand."""
    dropped = {why.value: counts.dropped[why] for why in Drop}
    receiver = pump.receiver if pump is not None else None
    sender = pump.sender if pump is not None else None
    dropped[Drop.TRUNCATED.value] = receiver.truncated if receiver is not None else 0
    return QuicStatistics(
        connections=open,
        half_open=half_open,
        connection_ids=ids,
        timers=pump.timers if pump is not None else 0,
        tickets=len(tickets),
        packets_in=receiver.datagrams if receiver is not None else 0,
        packets_out=sender.datagrams if sender is not None else 0,
        bytes_in=receiver.octets if receiver is not None else 0,
        bytes_out=sender.octets if sender is not None else 0,
        batches_in=receiver.batches if receiver is not None else 0,
        batches_out=sender.batches if sender is not None else 0,
        segmented=sender.segmented if sender is not None else 0,
        send_refused=sender.refused if sender is not None else 0,
        send_dropped=sender.dropped + sender.overflowed if sender is not None else 0,
        receive_errors=receiver.errors if receiver is not None else 0,
        slices=pump.slices if pump is not None else 0,
        accepted=counts.accepted,
        completed=counts.completed,
        expired=counts.expired,
        resumed=counts.resumed,
        tickets_issued=tickets.issued,
        tickets_redeemed=tickets.redeemed,
        tickets_refused=tickets.refused,
        retries=counts.retries,
        version_negotiations=counts.version_negotiations,
        resets=counts.resets,
        refusals=counts.refusals,
        migrations=counts.migrations,
        closed=dict(counts.closed),
        failures=counts.failures,
        dropped=dropped,
    )
