"""Bus and locations inside one process: the default of a single machine, and the double that tests use.

Nothing here may reach a socket, a file or another thread. Both classes belong to one Trio run.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
import trio

from gateway.backends.memory_stream import MemoryStream
from gateway.backends.subjects import checked_pattern, checked_subject
from gateway.core.ports import (
    BusHandler,
    Claimed,
    Confirmation,
    Consumption,
    Location,
    LoginPolicy,
    NodeRecord,
    StreamItem,
    Subscription,
)

log = logging.getLogger("gateway.bus")

_ROUTES: Final = 4096
"""Subjects whose receivers are remembered; past it all are looked up anew, so that strangers' ids cost no memory."""
_LOG_INTERVAL: Final = 1.0
"""Seconds between two log lines about one failing handler."""


class BusStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """What a MemoryBus has done and holds."""

    published: int
    refused: int
    handed_on: int
    """Payloads taken off the queue, whether anybody subscribed to them or not."""
    failures: int
    """Exceptions out of handlers."""
    queued_messages: int
    queued_bytes: int
    subscriptions: int


class _Subscription:
    __slots__ = ("bus", "failures", "handler", "logged_at", "names", "open", "queue")

    def __init__(self, bus: MemoryBus, subject: str, handler: BusHandler, queue: str) -> None:
        self.bus = bus
        self.names = subject.split(".")
        self.handler = handler
        self.queue = queue
        self.open = True
        self.failures = 0
        self.logged_at = float("-inf")

    def close(self) -> None:
        if self.open:
            self.open = False
            self.bus._forget(self)

    def matches(self, names: Sequence[str]) -> bool:
        return len(names) == len(self.names) and all(
            mine in ("*", name) for mine, name in zip(self.names, names, strict=True)
        )


class _Route:
    """Who receives one subject: every plain subscriber, and of each queue group the next one in turn."""

    __slots__ = ("groups", "only", "plain", "turn")

    def __init__(self, subscriptions: Sequence[_Subscription]) -> None:
        self.plain = [each for each in subscriptions if not each.queue]
        groups: dict[str, list[_Subscription]] = {}
        for each in subscriptions:
            if each.queue:
                groups.setdefault(each.queue, []).append(each)
        self.groups = list(groups.values())
        self.only: list[_Subscription] | None = None if groups else self.plain
        """The receivers, where they are the same for each payload."""
        if not self.plain and len(self.groups) == 1 and len(self.groups[0]) == 1:
            self.only = self.groups[0]
        self.turn = 0

    def receivers(self) -> list[_Subscription]:
        """Of the next payload."""
        if self.only is not None:
            return self.only
        self.turn += 1
        return [*self.plain, *(group[self.turn % len(group)] for group in self.groups)]


class MemoryBus:
    """A Bus (`gateway.core.ports`) within one Trio run.

    One queue for all subjects, bounded in messages and in bytes; `run` hands it on in slices, with a
    checkpoint after each, so that a flood delays nobody else by more than one slice.
    """

    def __init__(
        self,
        *,
        max_messages: int = 65_536,
        max_bytes: int = 67_108_864,
        max_payload: int = 1_048_576,
        slice_messages: int = 128,
    ) -> None:
        """
        Args:
            max_messages: payloads that may wait; one more is refused.
            max_bytes: bytes of payloads that may wait together.
            max_payload: largest single payload in bytes; the same as a NATS server takes by default.
            slice_messages: payloads handed on without giving way to other tasks.
        """
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._max_payload = max_payload
        self._slice = slice_messages
        self._queue: deque[tuple[str, bytes]] = deque()
        self._bytes = 0
        self._subscriptions: list[_Subscription] = []
        self._routes: dict[str, _Route] = {}
        self._running = False
        self._wake = trio.Event()
        self._progress = trio.Event()
        self._published = self._refused = self._handed_on = self._failures = 0
        self._streams: dict[str, MemoryStream] = {}

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Carry payloads until cancelled; what waits then is forgotten. May run again afterwards."""
        if self._running:
            raise RuntimeError("this bus is already running")
        self._running = True
        try:
            task_status.started()
            while True:
                if self._queue:
                    await trio.lowlevel.checkpoint()
                elif self._streams:
                    with trio.move_on_at(min(stream.due for stream in self._streams.values())):
                        await self._wake.wait()
                    self._wake = trio.Event()
                else:
                    self._wake = trio.Event()
                    await self._wake.wait()
                for stream in self._streams.values():
                    stream.turn(self._slice)
                self._hand_on_slice()
        finally:
            self._running = False
            self._handed_on += len(self._queue)
            self._queue.clear()
            self._bytes = 0
            for stream in self._streams.values():
                stream.end()
            self._progress.set()

    def publish(self, subject: str, payload: bytes) -> bool:
        """Queue `payload`; False when the bound is reached or `run` is not running."""
        if subject not in self._routes:
            checked_subject(subject)
        size = len(payload)
        if size > self._max_payload:
            raise ValueError(f"a payload of {size} bytes; at most {self._max_payload}")
        if not self._running or len(self._queue) >= self._max_messages or self._bytes + size > self._max_bytes:
            self._refused += 1
            return False
        if not self._queue:
            self._wake.set()
        self._queue.append((subject, payload))
        self._bytes += size
        self._published += 1
        return True

    def subscribe(self, subject: str, handler: BusHandler, *, queue: str = "") -> Subscription:
        """Call `handler` for each payload on `subject`; `*` stands for one name. With `queue`, share it."""
        checked_pattern(subject, queue)
        subscription = _Subscription(self, subject, handler, queue)
        self._subscriptions.append(subscription)
        self._routes.clear()
        return subscription

    def publish_durable(self, subject: str, payload: bytes, key: str, done: Callable[[Confirmation], None]) -> bool:
        """Have the stream of `subject` keep `payload`, as long as this bus lives; see DurableBus."""
        checked_subject(key)
        if len(payload) > self._max_payload:
            raise ValueError(f"a payload of {len(payload)} bytes; at most {self._max_payload}")
        return self._stream(subject).offer(payload, key, done) if self._running else False

    def consume(self, subject: str, handler: Callable[[StreamItem], None], *, group: str) -> Consumption:
        """Take from the stream of `subject`; see DurableBus. It has one group, whatever its name."""
        checked_subject(group)
        return self._stream(subject).take(handler)

    def _stream(self, subject: str) -> MemoryStream:
        stream = self._streams.get(subject)
        if stream is None:
            checked_subject(subject)
            stream = MemoryStream(self._ring, max_messages=self._max_messages, max_bytes=self._max_bytes)
            self._streams[subject] = stream
        return stream

    def _ring(self) -> None:
        self._wake.set()

    async def drain(self) -> None:
        """Return when everything published before has been handed on. The caller holds a deadline."""
        await trio.lowlevel.checkpoint()
        goal = self._handed_on + len(self._queue)
        while self._handed_on < goal or any(stream.speaking for stream in self._streams.values()):
            if self._progress.is_set():
                self._progress = trio.Event()
            await self._progress.wait()

    @property
    def healthy(self) -> bool:
        """True while `run` runs."""
        return self._running

    def statistics(self) -> BusStatistics:
        """Counters since the start, and what is held now."""
        return BusStatistics(
            published=self._published,
            refused=self._refused,
            handed_on=self._handed_on,
            failures=self._failures,
            queued_messages=len(self._queue),
            queued_bytes=self._bytes,
            subscriptions=len(self._subscriptions),
        )

    def _hand_on_slice(self) -> None:
        queue, routes = self._queue, self._routes
        for _ in range(min(len(queue), self._slice)):
            subject, payload = queue.popleft()
            self._bytes -= len(payload)
            for subscription in (routes.get(subject) or self._route(subject)).receivers():
                if subscription.open:
                    try:
                        subscription.handler(subject, payload)
                    except Exception:
                        self._contain(subscription, subject)
            self._handed_on += 1
        self._progress.set()

    def _route(self, subject: str) -> _Route:
        route = self._routes.get(subject)
        if route is None:
            if len(self._routes) >= _ROUTES:
                self._routes.clear()
            names = subject.split(".")
            route = self._routes[subject] = _Route([each for each in self._subscriptions if each.matches(names)])
        return route

    def _forget(self, subscription: _Subscription) -> None:
        self._subscriptions.remove(subscription)
        self._routes.clear()

    def _contain(self, subscription: _Subscription, subject: str) -> None:
        self._failures += 1
        subscription.failures += 1
        now = trio.current_time()
        if now - subscription.logged_at >= _LOG_INTERVAL:
            log.exception("a handler of %s failed (%d since the last line)", subject, subscription.failures)
            subscription.failures = 0
            subscription.logged_at = now


class MemoryLocationStore:
    """A LocationStore (`gateway.core.ports`); the nodes of one process share one instance.

    Lifetimes are kept on the monotonic clock, so a jump of the wall clock loses nobody; `expires_at` of
    what is returned is the wall clock's view, for people. Every operation is atomic because it has no
    checkpoint inside: the one at its beginning is where it may be cancelled, and then nothing was done.
    """

    def __init__(self, *, lifetime: float = 120.0) -> None:
        """
        Args:
            lifetime: seconds that a claim or a renewal lasts.
        """
        self._lifetime = lifetime
        self._users: dict[int, dict[str, Location]] = {}
        self._deadlines: dict[tuple[int, str], float] = {}
        """In order of expiry: the lifetime is one for all, and a renewed entry moves to the end."""

    async def run(
        self,
        record: Callable[[], NodeRecord] | None = None,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Nothing to do: the store lives as long as the process, and so do all nodes that share it."""
        task_status.started()
        await trio.sleep_forever()

    async def wait_recovered(self) -> None:
        """Never returns: it is never away."""
        await trio.sleep_forever()

    async def claim(self, location: Location, policy: LoginPolicy) -> Sequence[Location] | None:
        """Enter `location`; the entries it displaced, or None when a newer one would have had to go."""
        await self._begin()
        devices = self._users.get(location.user_id, {})
        rivals = [each for each in devices.values() if policy.displaces(each, location) and not _same(each, location)]
        if any(each.conn_id >= location.conn_id for each in rivals):
            return None
        for each in rivals:
            self._remove(each)
        self._enter(location)
        return rivals

    async def reclaim(self, locations: Sequence[Location], policy: LoginPolicy) -> Sequence[Claimed]:
        """Claim many at once."""
        return [await self.claim(each, policy) for each in locations]

    async def renew(self, locations: Sequence[Location]) -> Sequence[Location]:
        """Extend those still owned; return those that are not (expired ones among them)."""
        await self._begin()
        lost = []
        for location in locations:
            if self._owned(location):
                self._enter(location)
            else:
                lost.append(location)
        return lost

    async def release(self, location: Location) -> bool:
        """Remove it if it is still its owner's."""
        await self._begin()
        if not self._owned(location):
            return False
        self._remove(location)
        return True

    async def lookup(self, user_ids: Sequence[int]) -> dict[int, list[Location]]:
        """Live locations of each user; users without one are absent."""
        await self._begin()
        found = {}
        for user_id in user_ids:
            devices = self._users.get(user_id)
            if devices:
                found[user_id] = list(devices.values())
        return found

    @property
    def healthy(self) -> bool:
        """Always: there is nothing to reach."""
        return True

    @property
    def entries(self) -> int:
        """Locations held, those included that have expired since the last operation."""
        return len(self._deadlines)

    async def _begin(self) -> None:
        await trio.lowlevel.checkpoint()
        now = trio.current_time()
        while self._deadlines:
            key = next(iter(self._deadlines))
            if self._deadlines[key] > now:
                break
            self._remove(self._users[key[0]][key[1]])

    def _owned(self, location: Location) -> bool:
        held = self._users.get(location.user_id, {}).get(location.device_id)
        return held is not None and _same(held, location)

    def _enter(self, location: Location) -> None:
        key = location.user_id, location.device_id
        self._deadlines.pop(key, None)
        self._deadlines[key] = trio.current_time() + self._lifetime
        self._users.setdefault(location.user_id, {})[location.device_id] = msgspec.structs.replace(
            location, expires_at=int(time.time() + self._lifetime)
        )

    def _remove(self, location: Location) -> None:
        del self._deadlines[location.user_id, location.device_id]
        devices = self._users[location.user_id]
        del devices[location.device_id]
        if not devices:
            del self._users[location.user_id]


def _same(left: Location, right: Location) -> bool:
    return left.conn_id == right.conn_id and left.boot_id == right.boot_id
