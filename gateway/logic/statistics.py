"""What Logic has done, as plain numbers, and the accounts made of them. Nothing is decided here."""

from __future__ import annotations

import msgspec

from gateway.core.books import Account


class Tally:
    """Things of one kind that came, by what became of them. Whatever is neither counted nor waits is a bug of ours."""

    __slots__ = ("became", "came")

    def __init__(self, *outcomes: str) -> None:
        """
        Args:
            outcomes: those that are shown from the start; others are added when they are met.
        """
        self.came = 0
        self.became = dict.fromkeys(outcomes, 0)

    def add(self, outcome: str, count: int = 1) -> None:
        """So many met this end."""
        self.became[outcome] = self.became.get(outcome, 0) + count

    def sum(self, prefix: str) -> int:
        """How many met an end whose name begins with `prefix`."""
        return sum(count for outcome, count in self.became.items() if outcome.startswith(prefix))

    def account(self, name: str, waiting: int) -> Account:
        """As an account, with what has met no end yet."""
        return Account(name, self.came, {**self.became, "waiting": waiting})


def upstreams() -> Tally:
    """What nodes hand up. `rejected_CODE` are added."""
    return Tally(
        "stored", "repeated", "receipts_new", "receipts_old", "receipts_lost", "syncs", "syncs_refused", "signals",
        "fetches", "fetches_refused",
        "dropped_invalid", "dropped_full", "unknown", "malformed",
    )  # fmt: skip


def reports() -> Tally:
    """What nodes could not deliver and say so (Undelivered)."""
    return Tally("rerouted", "offline", "not_sent", "not_asked", "full", "malformed")


def downstreams() -> Tally:
    """What is to be sent to nodes: `given_up` after patience, `dropped` at once, `refused`: what no bus can carry."""
    return Tally("sent", "given_up", "dropped", "refused")


class LogicStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """What a LogicService has done since the start, and what waits now. `LogicService.books` has it in full."""

    received: int
    """Upstream envelopes."""
    stored: int
    repeated: int
    rejected: int
    receipts: int
    """Receipts that were news."""
    syncs: int
    signals: int
    """Signals that were passed on to whoever was online."""
    store_failures: int
    lookups_failed: int
    sent: int
    """Downstreams published."""
    not_sent: int
    """Downstreams given up: the bus stayed full or cannot carry them."""
    rerouted: int
    """Deliveries that a node could not place, sent once more to where their user is now."""
    malformed: int
    dropped: int
    waiting: int
    waiting_bytes: int
