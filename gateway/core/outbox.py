"""What waits to be written to one connection. Bounded in bytes; never waits, gives a verdict."""

from __future__ import annotations

from enum import Enum

from gateway._framing import SharedFrame

Item = bytes | SharedFrame
SignalKey = tuple[int, str]
"""(from_user, kind): of several queued Signals with the same one only the newest is kept."""

ITEM_COST = 64
"""Bytes counted for each item beside its own, so that a million empty frames are not free."""


class Verdict(Enum):
    """What became of a push."""

    QUEUED = "queued"
    CONFLATED = "conflated"
    """Queued, in place of an older Signal of the same kind."""
    DROPPED = "dropped"
    """A Signal that found no room, or anything for a connection that is closing."""
    OVERFLOW = "overflow"
    """No room: the reader is too slow."""


class Outbox:
    """A list of frames and, beside it, the newest Signal of each kind. Taken in slices by whoever writes."""

    __slots__ = ("_items", "_signals", "limit", "waiting")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.waiting = 0
        """Bytes that wait, with the cost of keeping them; 0 exactly when nothing waits."""
        self._items: list[Item] = []
        self._signals: dict[SignalKey, Item] | None = None

    def __len__(self) -> int:
        return len(self._items) + (len(self._signals) if self._signals else 0)

    def push(self, item: Item, unsent: int = 0) -> Verdict:
        """Queue one frame; `unsent` bytes that the link holds count against the bound too."""
        cost = len(item) + ITEM_COST
        if self.waiting + unsent + cost > self.limit:
            return Verdict.OVERFLOW
        self.waiting += cost
        self._items.append(item)
        return Verdict.QUEUED

    def push_signal(self, key: SignalKey, item: Item, unsent: int = 0) -> Verdict:
        """Queue a Signal, in place of an older one with the same key; dropped, itself alone, when there is no room."""
        signals = self._signals
        if signals is None:
            signals = self._signals = {}
        older = signals.get(key)
        cost = len(item) + ITEM_COST - (len(older) + ITEM_COST if older is not None else 0)
        if self.waiting + unsent + cost > self.limit:
            return Verdict.DROPPED
        self.waiting += cost
        signals.pop(key, None)  # to the end
        signals[key] = item
        return Verdict.QUEUED if older is None else Verdict.CONFLATED

    def take(self, most: int) -> list[Item]:
        """The next frames in order, about `most` bytes of them and at least one; Signals come last."""
        if self.waiting <= most:
            items = self._items
            if self._signals:
                items.extend(self._signals.values())
            self._items, self._signals, self.waiting = [], None, 0
            return items
        if not self._items:
            self._items, self._signals = list((self._signals or {}).values()), None
        size = count = 0
        for item in self._items:
            if count and size + len(item) + ITEM_COST > most:
                break
            size += len(item) + ITEM_COST
            count += 1
        taken, self._items = self._items[:count], self._items[count:]
        self.waiting -= size
        return taken

    def clear(self) -> None:
        """Forget everything."""
        self._items, self._signals, self.waiting = [], None, 0
