"""The books of one node: what came in, and what became of it. Whatever does not add up is a bug of ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

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


def books(hub: Hub) -> list[Account]:
    """Every account, now. Exact between two steps of the event loop, so at any time for a caller.

    Heartbeats are answered in C and not counted there: they are what remains of the frames, and never negative.
    """
    count = hub.metrics
    live = list(hub.registry)
    sending, fetching = (hub.files.sending, hub.files.fetching) if hub.files is not None else (0, 0)
    frames = count.frames + sum(connection.frames for connection in live) + count.implied_syncs
    handled = {
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
    return [
        Account("frames", frames, {**handled, "heartbeat": frames - sum(handled.values())}),
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
                "under_way": sending,
            },
        ),
        Account(
            "fetches",
            count.fetches_asked,
            {
                "fetched": count.files_fetched,
                "refused": sum(count.fetches_refused.values()),
                "interrupted": count.fetches_interrupted,
                "under_way": fetching,
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
