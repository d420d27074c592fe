"""The books of one node: what came in, and what became of it. Whatever does not add up is a bug of ours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import msgspec

if TYPE_CHECKING:
    from gateway.core.hub import Hub


class Account(msgspec.Struct, frozen=True):
    """One kind of thing: how many came, and how many met each end."""

    name: str
    came: int
    became: dict[str, int]

    @property
    def balanced(self) -> bool:
        """Whether everything that came is accounted for."""
        return self.came == sum(self.became.values()) and min(self.became.values()) >= 0

    @property
    def difference(self) -> int:
        """How many came that nothing is known of; below zero when more ends were counted than came."""
        return self.came - sum(self.became.values())


def table(accounts: Sequence[Account]) -> str:
    """Accounts for a person to read: what came, every end that was met, and what does not add up."""
    lines: list[str] = []
    for account in accounts:
        lines.append(f"{account.name:<24}{account.came:>15,}")
        lines += [f"    {end:<20}{count:>15,}" for end, count in account.became.items() if count]
        if not account.balanced:
            lines.append(f"    {'DOES NOT ADD UP BY':<20}{account.difference:>15,}")
    return "\n".join(lines)


def books(hub: Hub) -> list[Account]:
    """Every account of a node's core, now. Exact between two steps of the event loop, so at any time for a caller."""
    count = hub.metrics
    live = list(hub.registry)
    return [
        _frames(hub),
        Account(
            "uplink",
            count.uplink_asked,
            {
                "confirmed": count.uplink_confirmed,
                "repeated": count.uplink_repeated,
                "refused": count.uplink_refused,
                "unknown": count.uplink_unknown,
                "waiting": count.uplink_waiting,
            },
        ),
        Account(
            "downstreams",
            count.downstreams,
            {
                "delivered": count.delivered,
                "unheard": count.unheard,
                "kick": count.kicks,
                "undelivered": count.undelivered,
                "expired": count.expired,
                "malformed": count.malformed_downstream,
            },
        ),
        Account(
            "reports",
            count.undelivered,
            {
                "sent": count.reports_sent,
                "refused": count.reports_refused,
                "not_due": count.reports_not_due,
            },
        ),
        Account(
            "copies",
            count.copies,
            {
                "queued": count.copies_queued,
                "conflated": count.signals_conflated,
                "dropped": count.copies_dropped,
                "overflowed": count.copies_overflowed,
            },
        ),
        Account(
            "outboxes",
            count.copies_queued + count.signals_conflated + count.replies_queued,
            {
                "written": count.written,
                "replaced": count.signals_conflated,
                "discarded": count.discarded,
                "waiting": sum(connection.queued for connection in live),
            },
        ),
        Account(
            "files",
            count.files_offered,
            {
                "received": count.files_received,
                "repeated": count.files_repeated,
                "refused": sum(count.files_refused.values()),
                "interrupted": count.files_interrupted,
                "under_way": count.files_sending,
            },
        ),
        Account(
            "fetches",
            count.fetches_asked,
            {
                "fetched": count.files_fetched,
                "refused": sum(count.fetches_refused.values()),
                "interrupted": count.fetches_interrupted,
                "under_way": count.files_fetching,
            },
        ),
        Account(
            "events",
            count.events_received,
            {
                "elsewhere": count.events_elsewhere,
                "presence": count.events_presence,
                "delivered": count.events_delivered,
                "malformed": count.events_malformed,
            },
        ),
    ]


def _frames(hub: Hub) -> Account:
    count = hub.metrics
    frames = count.frames + sum(connection.frames for connection in hub.registry) + count.implied_syncs
    tables = (hub.greeting, hub.seated, hub.datagrams, hub.early_bound, hub.early_unbound)
    became = {
        "heartbeat": sum(table.echoes for table in tables),
        "login": count.auth_requests,
        "accepted": count.messages_received,
        "passed_up": count.passed_up,
        "held_back": count.signals_held_back,
        "early_held": count.early_held,
        "early_repeated": count.early_repeated,
        "early_dropped": count.early_dropped,
        "datagrams_refused": count.datagrams_refused,
        "files": count.file_frames,
        **{f"refused_{code}": times for code, times in sorted(count.refused.items())},
    }
    # a frame whose handler failed ended its connection; nothing else says what became of it
    became["fault"] = max(0, min(count.faults, frames - sum(became.values())))
    return Account("frames", frames, became)


@runtime_checkable
class CountingBus(Protocol):
    """A Bus that says what it has carried."""

    def statistics(self) -> Any:
        """`published`, and more: see `bus_books`."""


def publishers(statistics: Any, hub: Hub | None, accounts: Sequence[Account]) -> Account:
    """What this process has handed to its bus, by who did: a node's core, and those whose accounts are given."""
    became: dict[str, int] = {}
    if hub is not None:
        count = hub.metrics
        relayed = 0 if hub.uplink is not None else count.messages_received  # else the stream has them
        became = {
            "upstreams": relayed + count.passed_up + count.upstreams_beside,
            "reports": count.reports_sent,
            "kicks": count.kicks_sent,
            "events": count.events_published,
        }
    senders = ("logic_downstreams", "pushed", "pushed_to_everyone", "pushed_events")
    became |= {each.name: each.became["sent"] for each in accounts if each.name in senders}
    if controls := getattr(statistics, "controls", 0):
        became["stream_words"] = controls
    return Account("published", statistics.published, became)


def bus_books(statistics: Any) -> list[Account]:
    """The accounts of a bus, from its `statistics()`: what it took, and what came for handlers here."""
    if hasattr(statistics, "confirmed"):  # one that speaks to a server
        out = {"confirmed": statistics.confirmed, "dropped": statistics.dropped, "waiting": statistics.held_messages}
        handed = {
            "handed_on": statistics.handed_on,
            "overrun": statistics.overrun,
            "waiting": statistics.waiting_messages,
        }
        return [
            Account("bus_published", statistics.published, out),
            Account("bus_received", statistics.received + statistics.overrun, handed),
        ]
    out = {"handed_on": statistics.handed_on, "waiting": statistics.queued_messages}
    return [Account("bus_published", statistics.published, out)]
