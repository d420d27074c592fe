"""Deliveries in order, each once: between what arrives and what the program takes. No I/O, no waiting, no clock.

The server numbers a user's messages from 1 without holes, those they sent among them: an own message is known
by its acknowledgement and is not handed out. What arrives in order is ready at once. What is ahead of its turn is
held and a Sync is wanted. What finds no room is forgotten: it is stored at the server, and a Sync brings it when
there is room. So the reader never waits for the program, and memory is bounded.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from gateway.client.messages import Delivery


class Timeline:
    """One user's deliveries on this device, over all connections of the client."""

    def __init__(self, cursor: int, capacity: int) -> None:
        self.cursor = cursor
        """Everything up to this server_seq was handed to the program, or sent by it."""
        self.position = cursor
        """The highest server_seq that is ready or handed out: Sync goes on from here."""
        self.unsynced = False
        """There may be more at the server than has been seen here: since the login, or a page with more behind it."""
        self.capacity = capacity
        self.automatic = True
        """Whether there is a Sync to fill holes with."""
        self.handed_out = 0
        self.duplicates = 0
        self.gaps = 0
        self.dropped = 0
        self._ready: deque[Delivery | int] = deque()
        """In order; a bare number is an own message, which only moves the cursor."""
        self._early: dict[int, tuple[Delivery | int, int]] = {}
        """By server_seq: what is ahead of its turn, and how many Syncs had been sent when it came."""
        self._wanted = (0, 0)
        self._asked = 0
        self._asked_from = cursor

    def __len__(self) -> int:
        return len(self._ready)

    @property
    def room(self) -> int:
        """How many more deliveries may become ready."""
        return max(0, self.capacity - len(self._ready))

    @property
    def behind(self) -> bool:
        """Something is missing, as far as is known: a Sync is wanted."""
        return self.unsynced or bool(self._early) or self._wanted[0] > self.position

    def logged_in(self, automatic: bool) -> None:
        """A new connection: whatever happened meanwhile has to be asked for."""
        self.automatic = automatic
        self.unsynced = automatic

    def take(self) -> Delivery | None:
        """The next delivery for the program."""
        if not self._ready:
            return None
        delivery = self._ready.popleft()
        assert isinstance(delivery, Delivery)
        self.cursor = max(self.cursor, delivery.server_seq)
        self._pass_own()
        self._advance()
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
                self._append(seq, delivery)
            else:
                self.dropped += 1
        elif seq == self.position + 1 and self.room:
            self._append(seq, delivery)
            self._advance()
        else:
            self._hold(seq, delivery)

    def sent(self, seq: int) -> None:
        """The server gave an own message of this device the place `seq`."""
        if not self.automatic or seq <= self.position:
            return
        if seq == self.position + 1:
            self._append(seq, seq)
            self._advance()
        elif seq not in self._early:
            self._hold(seq, seq)

    def asked(self) -> int:
        """A Sync from `position` is being sent; the result goes to `answered` with its answer."""
        self._asked += 1
        self._asked_from = self.position
        return self._asked

    def answered(self, stamp: int, page: Sequence[Delivery | int], next_cursor: int, has_more: bool) -> int:
        """The answer to the Sync `stamp`, own messages as bare numbers; returns how many others were new."""
        new = 0
        for what in page:
            seq = what if isinstance(what, int) else what.server_seq
            held, _ = self._early.pop(seq, (what, 0))
            if seq > self.position:
                own = isinstance(held, int)
                self._append(seq, held if own else what)
                new += not own
        self.position = max(self.position, next_cursor)
        self._advance()
        if has_more and next_cursor > self._asked_from:
            self.unsynced = True
            return new
        self._release(stamp)
        if self._wanted[1] < stamp:
            self._wanted = (0, 0)
        self.unsynced = False
        return new

    def rewind(self) -> None:
        """The server's numbering is younger than ours (its store began anew): begin again."""
        self.position = self.cursor = 0
        self._early.clear()
        self._wanted = (0, 0)
        self.unsynced = True

    def abandon(self) -> None:
        """There is no Sync on this connection: hand out what is held, holes and all."""
        self.automatic = self.unsynced = False
        self._wanted = (0, 0)
        self._release(self._asked + 1)

    def _append(self, seq: int, what: Delivery | int) -> None:
        self.position = seq
        if isinstance(what, int) and self._ready and isinstance(self._ready[-1], int):
            self._ready.pop()  # one number is enough: it stands for all up to it
        self._ready.append(what)
        self._pass_own()

    def _pass_own(self) -> None:
        while self._ready and isinstance(own := self._ready[0], int):
            self.cursor = own
            self._ready.popleft()

    def _advance(self) -> None:
        while self._early and (held := self._early.pop(self.position + 1, None)) is not None:
            self._append(self.position + 1, held[0])

    def _hold(self, seq: int, what: Delivery | int) -> None:
        if not self.behind:
            self.gaps += seq > self.position + 1
        if len(self._early) < self.capacity:
            self._early[seq] = (what, self._asked)
        elif seq > self._wanted[0]:
            self._wanted = (seq, self._asked)

    def _release(self, stamp: int) -> None:
        """Hand out what was held before Sync `stamp` was sent and was not in its answer: the server has no more."""
        for seq in sorted(self._early):
            what, held_at = self._early[seq]
            if seq > self.position and held_at >= stamp:
                break
            del self._early[seq]
            if seq > self.position:
                self._append(seq, what)
        self._advance()
