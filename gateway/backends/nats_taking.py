"""The Trio side of a durable uplink, inwards: items out of a stream, handed to a handler and kept until settled.

How they are pulled is `nats_stream.py`'s, on the asyncio thread.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, Protocol

import trio

from gateway.core.ports import StreamItem

log = logging.getLogger("gateway.bus")

FIRST_DELAY: Final = 0.1
"""Seconds until an item that a handler failed on comes again; it doubles up to LAST_DELAY."""
LAST_DELAY: Final = 10.0
PARTING: Final = 0.1
"""Seconds until what was abandoned comes to another: at once, a request of ours that still stands could bring it here,
where nobody takes it any more."""
ACK: Final = b"+ACK"
WORKING: Final = b"+WPI"
TERMINATE: Final = b"+TERM"


class Sender(Protocol):
    """The bus, as it is seen from here."""

    def control(self, subject: str, payload: bytes) -> None:
        """Send word about an item to the server; kept over a loss like all that is published."""

    def room(self) -> None:
        """An item was settled: there may be room to pull more."""


class Item:
    """One item, until somebody says what becomes of it."""

    __slots__ = ("_taking", "attempt", "payload", "reply", "since")

    def __init__(self, taking: Taking, reply: str, payload: bytes, attempt: int) -> None:
        self._taking: Taking | None = taking
        self.reply = reply
        self.payload = payload
        self.attempt = attempt
        self.since = 0.0
        """When the server was last told that somebody works on it."""

    def __len__(self) -> int:
        return len(self.payload)

    def settle(self) -> None:
        """It need not come again."""
        self._say(ACK)

    def put_back(self, delay: float = 0.0) -> None:
        """It is to come again after `delay` seconds."""
        self._say(b'-NAK {"delay": %d}' % (delay * 1e9) if delay > 0 else b"-NAK")

    def drop(self) -> None:
        """It is to come to nobody any more."""
        self._say(TERMINATE)

    def lapse(self) -> None:
        """What is said from now on comes too late."""
        self._taking = None

    def _say(self, word: bytes) -> None:
        taking, self._taking = self._taking, None
        if taking is not None:
            taking.said(self, word)


class Taking:
    """A Consumption of a NatsBus. `arrived` and `may_pull` are called on the asyncio thread."""

    def __init__(
        self,
        handler: Callable[[StreamItem], None],
        group: str,
        bus: Sender,
        arrive: Callable[[Taking, Item], None],
        forget: Callable[[Taking], None],
        *,
        most: int,
        max_deliveries: int,
    ) -> None:
        self.handler = handler
        self.group = group
        self.open = True
        self.failures = 0
        self.logged_at = float("-inf")
        self._bus = bus
        self._arrive = arrive
        self._forget = forget
        self._most = most
        self._max_deliveries = max_deliveries
        self._unsettled: dict[Item, None] = {}
        self._arrived = 0  # the asyncio thread's
        self._said = 0
        self.keep_every = 1.0
        """Seconds after which the server is to hear that an item is being worked on; the asyncio thread's."""
        self.dropped = 0
        """Items given up: handed out `max_deliveries` times, and nobody settled them."""

    # -- for whoever takes ---------------------------------------------------------------------------------

    def close(self) -> None:
        """Take nothing more."""
        if self.open:
            self.open = False
            self._forget(self)

    def abandon(self) -> None:
        """Close, and put back whatever is not settled."""
        self.close()
        for item in list(self._unsettled):
            item.put_back(PARTING)

    @property
    def unsettled(self) -> int:
        """Items that are here and not settled."""
        return self._arrived - self._said

    # -- for the bus ---------------------------------------------------------------------------------------

    def may_pull(self) -> int:
        """How many more items there is room for."""
        return self._most - self.unsettled

    def arrived(self, reply: str, payload: bytes, attempt: int) -> None:
        """On the asyncio thread: an item came."""
        self._arrived += 1
        self._arrive(self, Item(self, reply, payload, attempt))

    def take(self, item: Item, subject: str) -> None:
        """Give it to the handler; what that raises passes on, the item is put back."""
        if not self.open:
            item.put_back()
            return
        if item.attempt > self._max_deliveries:
            self.dropped += 1
            log.error(
                "stream_poisoned", extra={"attempts": item.attempt - 1, "bytes": len(item), "item": item.reply[-80:]}
            )
            item.drop()
            return
        item.since = trio.current_time()
        self._unsettled[item] = None
        try:
            self.handler(item)
        except Exception:
            item.put_back(min(FIRST_DELAY * 2.0 ** min(item.attempt - 1, 10), LAST_DELAY))
            raise

    def said(self, item: Item, word: bytes) -> None:
        """Somebody decided about an item."""
        self._unsettled.pop(item, None)
        self._said += 1
        self._bus.control(item.reply, word)
        self._bus.room()

    def keep(self, now: float) -> None:
        """Tell the server of what has been here for a while that it is still being worked on."""
        for item in self._unsettled:
            if now - item.since >= self.keep_every * 0.7:  # looked at twice as often
                item.since = now
                self._bus.control(item.reply, WORKING)

    def lapse(self) -> None:
        """The bus has ended: the server hands what is not settled to others, after its `ack_wait`."""
        for item in self._unsettled:
            item.lapse()
        self._unsettled.clear()
        self._said = self._arrived
