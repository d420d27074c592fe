"""Deliveries in order, each once: between what arrives and what the program takes. No I/O, no waiting, no clock.

The server numbers a user's messages from 1 without holes. What arrives in order is ready at once. What is
ahead of its turn is held and a Sync is wanted. What finds no room is forgotten: it is stored at the server,
and a Sync brings it when there is room. So the reader never waits for the program, and memory is bounded.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from gateway.client.messages import Delivery


class Timeline:
    """One user's deliveries on this device, over all connections of the client."""

    def __init__(self, cursor: int, capacity: int) -> None:
        self.cursor = cursor
        """The highest server_seq handed to the program."""
        self.position = cursor
        """The highest server_seq that is ready or handed out: Sync goes on from here."""
        self.behind = False
        """Something is missing, as far as is known: a Sync is wanted."""
        self.capacity = capacity
        self.automatic = True
        """Whether there is a Sync to fill holes with."""
        self.handed_out = 0
        self.duplicates = 0
        self.gaps = 0
        self.dropped = 0
        self._ready: deque[Delivery] = deque()
        self._early: dict[int, tuple[Delivery, int]] = {}
        self._wanted = (0, 0)
        self._asked = 0
        self._asked_from = cursor

    def __len__(self) -> int:
        return len(self._ready)

    @property
    def room(self) -> int:
        """How many more deliveries may become ready."""
        return max(0, self.capacity - len(self._ready))

    def logged_in(self, automatic: bool) -> None:
        """A new connection: whatever happened meanwhile has to be asked for."""
        self.automatic = automatic
        self.behind = automatic

    def take(self) -> Delivery | None:
        """The next delivery for the program."""
        if not self._ready:
            return None
        delivery = self._ready.popleft()
        self.cursor = max(self.cursor, delivery.server_seq)
        self.handed_out += 1
        return delivery

    def arrived(self, delivery: Delivery) -> None:
        """The server pushed this one."""
        seq = delivery.server_seq
        if seq == 0:
            if self.room:
                self._ready.append(delivery)
            else:
                self.dropped += 1
        elif seq <= self.position or seq in self._early:
            self.duplicates += 1
        elif not self.automatic:
            if self.room:
                self._append(delivery)
            else:
                self.dropped += 1
        elif seq == self.position + 1 and self.room:
            self._append(delivery)
            self._advance()
        else:
            self._hold(delivery)

    def asked(self) -> int:
        """A Sync from `position` is being sent; the result goes to `answered` with its answer."""
        self._asked += 1
        self._asked_from = self.position
        return self._asked

    def answered(self, stamp: int, deliveries: Sequence[Delivery], next_cursor: int, has_more: bool) -> int:
        """The answer to the Sync `stamp`; returns how many of its messages were new."""
        new = 0
        for delivery in deliveries:
            self._early.pop(delivery.server_seq, None)
            if delivery.server_seq > self.position:
                self._append(delivery)
                new += 1
        self.position = max(self.position, next_cursor)
        self._advance()
        if has_more and next_cursor > self._asked_from:
            return new
        self._release(stamp)
        if self._wanted[0] <= self.position or self._wanted[1] < stamp:
            self._wanted = (0, 0)
        self.behind = bool(self._early) or self._wanted[0] > self.position
        return new

    def rewind(self) -> None:
        """The server's numbering is younger than ours (its store began anew): begin again."""
        self.position = self.cursor = 0
        self._early.clear()
        self._wanted = (0, 0)
        self.behind = True

    def abandon(self) -> None:
        """There is no Sync on this connection: hand out what is held, holes and all."""
        self.automatic = False
        self.behind = False
        self._wanted = (0, 0)
        self._release(self._asked + 1)

    def _append(self, delivery: Delivery) -> None:
        self._ready.append(delivery)
        self.position = delivery.server_seq

    def _advance(self) -> None:
        while self._early and (held := self._early.pop(self.position + 1, None)) is not None:
            self._append(held[0])

    def _hold(self, delivery: Delivery) -> None:
        if not self.behind:
            self.behind = True
            self.gaps += delivery.server_seq > self.position + 1
        if len(self._early) < self.capacity:
            self._early[delivery.server_seq] = (delivery, self._asked)
        elif delivery.server_seq > self._wanted[0]:
            self._wanted = (delivery.server_seq, self._asked)

    def _release(self, stamp: int) -> None:
        """Hand out what was held before Sync `stamp` was sent and was not in its answer: the server has no more."""
        for seq in sorted(self._early):
            delivery, held_at = self._early[seq]
            if seq > self.position and held_at >= stamp:
                break
            del self._early[seq]
            if seq > self.position:
                self._append(delivery)
        self._advance()
