"""The books of several processes as one: what left some of them, and what of it has arrived at the others.

Numbers only; who was asked, and when, is the caller's. Exact once nothing is on its way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from gateway.core.books import Account

Books = Sequence[Account]
"""The accounts of one process."""


def merged(processes: Iterable[Books]) -> list[Account]:
    """The sums of all accounts of a name, in the order they are met."""
    came: Counter[str] = Counter()
    became: dict[str, Counter[str]] = {}
    for books in processes:
        for account in books:
            came[account.name] += account.came
            ends = became.setdefault(account.name, Counter())
            for end, count in account.became.items():
                ends[end] += count
    return [Account(name, came[name], dict(ends)) for name, ends in became.items()]


def between(processes: Sequence[Books]) -> list[Account]:
    """What one process handed to the bus for another, and what has arrived there.

    A difference is on its way, was held by a process that was killed, or was for one; below zero, it was heard twice
    after the bus was lost. All nodes are taken to have been there from the start, since each hears all events.
    """
    sums = {account.name: account for account in merged(processes)}
    nodes = sum(any(account.name == "frames" for account in books) for books in processes)

    def came(name: str) -> int:
        return sums[name].came if name in sums else 0

    def sent(name: str, end: str = "sent") -> int:
        return sums[name].became.get(end, 0) if name in sums else 0

    def crossing(name: str, left: int, arrived: int) -> Account:
        return Account(name, left, {"arrived": arrived})

    upstreams = sent("published", "upstreams") + sent("uplink", "confirmed")
    downstreams = sent("logic_downstreams") + sent("pushed") + sent("published", "kicks")
    events = sent("published", "events") + sent("pushed_events")
    return [
        crossing("nodes_to_logic", upstreams, came("logic_upstreams")),
        crossing("reports_to_logic", sent("published", "reports"), came("logic_undelivered")),
        crossing("to_nodes", downstreams + nodes * sent("pushed_to_everyone"), came("downstreams")),
        crossing("events_to_nodes", nodes * events, came("events")),
    ]
