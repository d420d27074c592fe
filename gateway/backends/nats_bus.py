"""The bus of a cluster: a Bus (`gateway.core.ports`) on NATS, its Trio side. docs/cluster.md says what it keeps.

Bounds, validation and handlers live here; clients, reconnecting and confirmation are the carrier's
(`nats_carrier.py`), on the asyncio thread. Between the two are deques and one wake-up per batch each way.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import Final

import trio

from gateway.backends.asyncio_thread import AsyncioThread
from gateway.backends.nats_carrier import Carrier
from gateway.backends.nats_jetstream import JetStream
from gateway.backends.nats_parcels import Parcels, StreamStatistics
from gateway.backends.nats_statistics import NatsBusStatistics
from gateway.backends.nats_stream import StreamSide
from gateway.backends.nats_taking import Item, Taking
from gateway.backends.settings_nats import NatsSettings
from gateway.backends.subjects import checked_pattern, checked_subject
from gateway.core.ports import BusHandler, BusUnusable, Confirmation, Consumption, StreamItem, Subscription
from gateway.core.wake import Wake
from gateway.protocol.ids import checked_name

log = logging.getLogger("gateway.bus")

KNOWN: Final = 4096
"""Subjects remembered as valid; past it all are checked anew, so that strangers' ids cost no memory."""
HEADERS: Final = 64
"""Bytes that a durable payload's headers take beside its key."""
SLICE: Final = 128
"""Payloads handed to handlers until other tasks have their turn."""
LOG_INTERVAL: Final = 1.0
"""Seconds between two log lines about one failing handler, or about payloads dropped on arrival."""


class _Subscription:
    """Made and closed on the Trio side; `arrived` is called on the asyncio thread."""

    __slots__ = ("bus", "failures", "handler", "logged_at", "open", "queue", "subject")

    def __init__(self, bus: NatsBus, subject: str, handler: BusHandler, queue: str) -> None:
        self.bus = bus
        self.subject = subject
        self.handler = handler
        self.queue = queue
        self.open = True
        self.failures = 0
        self.logged_at = float("-inf")

    def close(self) -> None:
        if self.open:
            self.open = False
            self.bus._forget(self)

    def arrived(self, subject: str, payload: bytes) -> None:
        self.bus._arrived(self, subject, payload)

    def take(self, payload: bytes, subject: str) -> None:
        if self.open:
            self.handler(subject, payload)


class NatsBus:
    """A Bus on NATS. Away from its server it keeps what is published, up to the bound, and sends it on return."""

    def __init__(
        self,
        settings: NatsSettings,
        thread: AsyncioThread,
        *,
        name: str = "gateway",
        max_messages: int = 65_536,
        max_bytes: int = 67_108_864,
        max_payload: int = 1_048_576,
    ) -> None:
        """
        Args:
            settings: servers, credentials, TLS, patience.
            thread: entered for as long as `run` runs.
            name: what NATS shows for this connection.
            max_messages: payloads that may be on their way to the server, unconfirmed ones among them; one more is
                refused. The same number may wait for their handlers; one more is dropped and counted.
            max_bytes: bytes of payloads, likewise.
            max_payload: largest single payload in bytes; the server's own limit counts too, once it is known.
        """
        self._settings = settings
        self._thread = thread
        self._name = name
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._own_max_payload = self._max_payload = max_payload
        self._known: set[str] = set()
        self._subscriptions: dict[_Subscription, None] = {}
        self._carrier: Carrier | None = None
        self._connected = trio.Event()
        self._healthy = False
        self._progress = trio.Event()
        self._bell = Wake()
        self._resting = False
        """Whether the task that hands on waits for `_bell`."""
        self._inbound: deque[tuple[_Subscription, str, bytes] | tuple[Taking, str, Item]] = deque()
        self._woken = False
        # Each number is written by one thread only; the other one reads.
        self._published = self._refused = self._confirmed = self._dropped = self._connections = 0
        self._controls = 0
        self._held_messages = self._held_bytes = 0
        self._handed_on = self._handed_bytes = self._failures = 0
        self._received = self._received_bytes = self._overrun = 0  # these three: the asyncio thread
        self._overrun_seen = 0
        self._overrun_logged_at = float("-inf")
        self._jetstream: JetStream | None = None
        self._stream: StreamSide | None = None
        self._takings: dict[Taking, None] = {}
        self._closing: list[Taking] = []
        """Closed, with items that may still be settled."""
        self._dropped_items = 0
        self._tried = trio.Event()
        self._unusable = ""
        if settings.uplink == "jetstream":
            self._jetstream = JetStream(settings)
            patience = settings.stream.confirm_timeout
            self._parcels = Parcels(thread, patience=patience, most=max_messages, most_bytes=max_bytes)

    # -- life ----------------------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Carry payloads until cancelled; what is held then is forgotten. May run again afterwards.

        Does not wait for the first connection: until then `healthy` is False. With a durable uplink it does wait for
        one attempt, to see whether its server can keep the stream.

        Raises:
            BusUnusable: it cannot, as that first attempt showed. Found later, it is logged and tried again.
            ExceptionGroup: of an AsyncioThreadClosed; the thread has ended.
        """
        if self._carrier is not None:
            raise RuntimeError("this bus is already running")
        if self._jetstream is not None:
            self._stream = StreamSide(self._settings, self._thread, self._jetstream, self._parcels.answered)
            self._stream.takings.extend(self._takings)
        self._carrier = carrier = Carrier(self._settings, self._name, self._thread, self, self._stream)
        carrier.changes.extend(self._subscriptions)
        self._tried, self._unusable = trio.Event(), ""
        started = False
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._thread.run, carrier.serve)
                nursery.start_soon(self._hand_on)
                if self._jetstream is not None:
                    nursery.start_soon(self._parcels.run, self._progressed)
                    nursery.start_soon(self._keep_items)
                    await self._tried.wait()
                if self._unusable:
                    nursery.cancel_scope.cancel()
                else:
                    started = True
                    task_status.started()
            if not started:
                raise BusUnusable(self._unusable)
        finally:
            self._end_stream()
            self._carrier = None
            self._resting = False
            self.lost("the bus has ended")
            self._held_messages = self._held_bytes = 0
            self._handed_on += len(self._inbound)
            self._handed_bytes = self._received_bytes
            self._inbound.clear()
            self._progress.set()

    @property
    def healthy(self) -> bool:
        """Whether payloads flow to and from a server now."""
        return self._healthy

    async def wait_healthy(self) -> None:
        """Return once connected, with all subscriptions in force. The caller holds a deadline."""
        while not self._healthy:
            await self._connected.wait()

    def statistics(self) -> NatsBusStatistics:
        """Counters since the start, and what is held now."""
        received = self._received  # once: the asyncio thread goes on counting
        return NatsBusStatistics(
            published=self._published,
            controls=self._controls,
            refused=self._refused,
            confirmed=self._confirmed,
            dropped=self._dropped,
            received=received,
            overrun=self._overrun,
            handed_on=self._handed_on,
            failures=self._failures,
            held_messages=self._held_messages,
            held_bytes=self._held_bytes,
            waiting_messages=received - self._handed_on,
            waiting_bytes=self._received_bytes - self._handed_bytes,
            subscriptions=len(self._subscriptions),
            connections=self._connections,
            round_trip=self._carrier.round_trip if self._carrier is not None else 0.0,
        )

    def stream_statistics(self) -> StreamStatistics | None:
        """Counts of the durable uplink; None where the configuration has none."""
        return self._parcels.statistics() if self._jetstream is not None else None

    @property
    def dropped_items(self) -> int:
        """Items of the stream given up here: handed out too often, and nobody settled them."""
        return self._dropped_items + sum(each.dropped for each in self._takings)

    # -- out -----------------------------------------------------------------------------------------------

    def publish(self, subject: str, payload: bytes) -> bool:
        """Queue `payload`; False when the bound is reached or `run` is not running. Away from the server it is kept.

        Raises:
            ValueError: no subject, or more bytes than the server takes.
        """
        if subject not in self._known:
            checked_subject(subject)
            if len(self._known) >= KNOWN:
                self._known.clear()
            self._known.add(subject)
        size = len(payload)
        if size > self._max_payload:
            raise ValueError(f"a payload of {size} bytes; at most {self._max_payload}")
        carrier = self._carrier
        if carrier is None or self._held_messages >= self._max_messages or self._held_bytes + size > self._max_bytes:
            self._refused += 1
            return False
        self._held_messages += 1
        self._held_bytes += size
        self._published += 1
        carrier.waiting.append((subject, payload))
        carrier.notify()
        return True

    async def drain(self) -> None:
        """Return when everything published before is confirmed by the server, and what had arrived here by then has
        been handed on. While the server is away that takes as long as it does: the caller holds a deadline."""
        await trio.lowlevel.checkpoint()
        goal = self._published
        carrier = self._carrier
        while self._carrier is carrier is not None and self._published - self._held_messages < goal:
            await self._wait_progress()
        if self._jetstream is not None:
            goal = self._parcels.offered
            while self._carrier is carrier is not None and self._parcels.settled < goal:
                await self._wait_progress()
        arrived = self._received
        while self._carrier is carrier is not None and self._handed_on < arrived:
            await self._wait_progress()

    async def _wait_progress(self) -> None:
        if self._progress.is_set():
            self._progress = trio.Event()
        await self._progress.wait()

    # -- what the carrier tells us, on the Trio side -------------------------------------------------------

    def connected(self, server: str, max_payload: int) -> None:
        """Payloads flow."""
        self._healthy = True
        self._connections += 1
        self._max_payload = min(self._own_max_payload, max_payload)
        self._connected.set()
        self._tried.set()

    def unusable(self, reason: str) -> None:
        """The server cannot be what is configured; before anything flowed, that ends `run`."""
        if self._tried.is_set():
            log.error("bus_stream_unusable", extra={"reason": reason})
        else:
            self._unusable = reason

    def lost(self, reason: str) -> None:
        """Payloads are kept until they flow again."""
        self._healthy = False
        self._connected = trio.Event()
        self._tried.set()

    def settled(self, messages: int, size: int, dropped: int) -> None:
        """So many payloads are held no more."""
        if self._carrier is None:
            return
        self._held_messages -= messages
        self._held_bytes -= size
        self._dropped += dropped
        self._confirmed += messages - dropped
        self._progress.set()

    # -- a stream ------------------------------------------------------------------------------------------

    def publish_durable(self, subject: str, payload: bytes, key: str, done: Callable[[Confirmation], None]) -> bool:
        """Ask JetStream to keep `payload`; see DurableBus. Its word has `nats.stream.confirm_timeout` seconds.

        Raises:
            ValueError: a subject without a stream, a key that is no sequence of names, too large a payload.
        """
        self._check_stream(subject)
        checked_subject(key)
        if len(payload) > self._max_payload - HEADERS - len(key):
            raise ValueError(f"a payload of {len(payload)} bytes; at most {self._max_payload - HEADERS - len(key)}")
        if self._stream is None:
            self._parcels.turn_away()
            return False
        parcel = self._parcels.offer(payload, key, done)
        if parcel is None:
            return False
        self._stream.waiting.append(parcel)
        self._stream.notify()
        return True

    def consume(self, subject: str, handler: Callable[[StreamItem], None], *, group: str) -> Consumption:
        """Take from the stream as one of `group`, its durable pull consumer; see DurableBus.

        Raises:
            ValueError: a subject without a stream, no group.
        """
        self._check_stream(subject)
        stream = self._settings.stream
        taking = Taking(
            handler,
            checked_name(group, "a group"),
            self,
            self._item_arrived,
            self._forget_taking,
            most=stream.unsettled,
            max_deliveries=stream.max_deliveries,
        )
        self._takings[taking] = None
        self._taking_changed(taking)
        return taking

    def _check_stream(self, subject: str) -> None:
        if self._jetstream is None or subject != self._jetstream.subject:
            raise ValueError(f"no stream is kept for {subject[:80]!r}: see nats.uplink and nats.prefix")

    def _forget_taking(self, taking: Taking) -> None:
        del self._takings[taking]
        self._closing.append(taking)
        self._dropped_items += taking.dropped
        self._taking_changed(taking)

    def _taking_changed(self, taking: Taking) -> None:
        if self._stream is not None:
            self._stream.takings.append(taking)
            self._stream.notify_room()

    def _item_arrived(self, taking: Taking, item: Item) -> None:
        """On the asyncio thread. Bounded by what was asked for."""
        self._received += 1
        self._received_bytes += len(item)
        self._inbound.append((taking, "", item))
        if not self._woken:
            self._woken = True
            self._thread.call_trio(self._ring)

    def control(self, subject: str, payload: bytes) -> None:
        """Word about an item. Held like a payload, but never refused: there are no more than items."""
        carrier = self._carrier
        if carrier is not None:
            self._held_messages += 1
            self._held_bytes += len(payload)
            self._published += 1
            self._controls += 1
            carrier.waiting.append((subject, payload))
            carrier.notify()

    def room(self) -> None:
        """An item was settled."""
        if self._stream is not None:
            self._stream.notify_room()

    async def _keep_items(self) -> None:
        """An item that takes its time stays ours."""
        while True:
            await trio.sleep(
                min([self._settings.stream.ack_wait / 6, *(each.keep_every / 2 for each in self._takings)])
            )
            now = trio.current_time()
            self._closing = [each for each in self._closing if each.unsettled]
            for taking in (*self._takings, *self._closing):
                taking.keep(now)

    def _progressed(self) -> None:
        self._progress.set()

    def _end_stream(self) -> None:
        self._stream = None
        if self._jetstream is not None:
            self._parcels.end()
        for taking in (*self._takings, *self._closing):
            taking.lapse()
        self._closing.clear()

    # -- in ------------------------------------------------------------------------------------------------

    def subscribe(self, subject: str, handler: BusHandler, *, queue: str = "") -> Subscription:
        """Call `handler` for each payload on `subject`; `*` stands for one name. With `queue`, share it.

        In force before anything that is published afterwards here, and restored after every loss.

        Raises:
            ValueError: no subject, or no queue group.
        """
        checked_pattern(subject, queue)
        subscription = _Subscription(self, subject, handler, queue)
        self._subscriptions[subscription] = None
        self._changed(subscription)
        return subscription

    def _forget(self, subscription: _Subscription) -> None:
        del self._subscriptions[subscription]
        self._changed(subscription)

    def _changed(self, subscription: _Subscription) -> None:
        if self._carrier is not None:
            self._carrier.changes.append(subscription)
            self._carrier.notify()

    def _arrived(self, subscription: _Subscription, subject: str, payload: bytes) -> None:
        """On the asyncio thread: one payload, straight from the parser."""
        size = len(payload)
        if (
            self._received - self._handed_on >= self._max_messages
            or self._received_bytes - self._handed_bytes + size > self._max_bytes
        ):
            self._overrun += 1
        else:
            self._received += 1
            self._received_bytes += size
            self._inbound.append((subscription, subject, payload))
        if not self._woken:
            self._woken = True
            self._thread.call_trio(self._ring)

    def _ring(self) -> None:
        """Something has arrived: hand on a first slice here and now, without a task switch, the rest in the task."""
        if self._resting:
            self._woken = False  # before the queue is read: whoever appends later rings again
            self._hand_on_slice()
            if self._inbound:
                self._resting = False
                self._bell.wake()

    async def _hand_on(self) -> None:
        while True:
            self._woken = False
            if self._inbound:
                self._hand_on_slice()
                await trio.lowlevel.checkpoint()
            else:
                self._resting = True
                await self._bell.wait()

    def _hand_on_slice(self) -> None:
        for _ in range(min(len(self._inbound), SLICE)):
            subscription, subject, payload = self._inbound.popleft()
            try:
                subscription.take(payload, subject)  # type: ignore[arg-type]  # each its own kind
            except Exception:
                self._contain(subscription, subject)
            self._handed_on += 1
            self._handed_bytes += len(payload)
        self._progress.set()
        if self._overrun != self._overrun_seen:
            self._tell_overrun()

    def _contain(self, subscription: _Subscription | Taking, subject: str) -> None:
        self._failures += 1
        subscription.failures += 1
        now = trio.current_time()
        if now - subscription.logged_at >= LOG_INTERVAL:
            log.exception("a handler of %s failed (%d since the last line)", subject, subscription.failures)
            subscription.failures = 0
            subscription.logged_at = now

    def _tell_overrun(self) -> None:
        now = trio.current_time()
        if now - self._overrun_logged_at >= LOG_INTERVAL:
            log.error("bus_overrun", extra={"dropped": self._overrun - self._overrun_seen})
            self._overrun_seen = self._overrun
            self._overrun_logged_at = now
