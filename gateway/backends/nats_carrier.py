"""The asyncio side of NatsBus: one client after another, what it writes, and what the server has confirmed.

Knows nothing of handlers and bounds; those are NatsBus's, on the Trio side. nats-py's own reconnecting is not used:
it forgets to bound what it holds, and some errors end it for good. Every loss discards the client and makes a new one.

A payload is held until a PONG has come for a PING written after it. What a lost client leaves unconfirmed is written
again to the next one, so a loss may repeat payloads but, as long as the bus runs, drops none of ours.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import random
from collections import deque
from typing import Final, Protocol

from nats.errors import Error as NatsError

from gateway.backends.asyncio_thread import AsyncioThread, AsyncioThreadClosed
from gateway.backends.nats_client import BusClient, open_client
from gateway.backends.nats_jetstream import Lost, Unusable
from gateway.backends.nats_stream import StreamSide
from gateway.backends.settings_nats import NatsSettings

log = logging.getLogger("gateway.nats")

BATCH: Final = 512
"""Payloads in one write."""
BATCH_BYTES: Final = 1_048_576
"""Bytes of them: the transport bounds nothing."""
TICK: Final = 0.25
"""Seconds between two looks at whether a client still lives."""
PAUSE: Final = 0.05
"""Seconds between two PINGs while payloads flow; one confirms all before it. At 5 ms they took a seventh of the
processor time of a lightly loaded node; what is held meanwhile is small beside the bound."""
FIRST_PAUSE: Final = 0.05
"""Seconds before the second attempt to connect; it doubles up to the configured cap."""
LOG_INTERVAL: Final = 10.0
"""Seconds between two log lines about a server that stays away."""
BLAMED: Final = ("maximum payload", "maximum control line", "parser error", "unknown protocol", "invalid")
"""Parts of what a server says when it closes because of something that we wrote: that is not written again."""


class Interest(Protocol):
    """A subscription, as it is seen from here."""

    subject: str
    queue: str
    open: bool

    def arrived(self, subject: str, payload: bytes) -> None:
        """A payload, on the asyncio thread."""


class Owner(Protocol):
    """Whom the carrier tells what happened; called on the Trio thread, in order."""

    def connected(self, server: str, max_payload: int) -> None:
        """Subscriptions are in force, payloads flow."""

    def lost(self, reason: str) -> None:
        """Nothing flows until `connected`."""

    def unusable(self, reason: str) -> None:
        """A server is there and cannot be what is configured; `lost` follows."""

    def settled(self, messages: int, size: int, dropped: int) -> None:
        """So many payloads, with so many bytes, are held no more; `dropped` of them nobody will get."""


class Carrier:
    """Made for one run of a bus. `serve` is for the asyncio thread; `waiting`, `changes`, `notify` are Trio's end."""

    def __init__(
        self,
        settings: NatsSettings,
        name: str,
        thread: AsyncioThread,
        owner: Owner,
        stream: StreamSide | None = None,
    ) -> None:
        self._settings = settings
        self._name = name
        self._thread = thread
        self._owner = owner
        self._stream = stream
        self.waiting: deque[tuple[str, bytes]] = deque()
        """To be written, in order: Trio appends, we take."""
        self.changes: deque[Interest] = deque()
        """Subscriptions that were made or closed: Trio appends, we take."""
        self.round_trip = 0.0
        """Seconds of the last PING; for the statistics."""
        self._woken = False
        self._wanted: dict[Interest, int] = {}
        """Open subscriptions with the client's number for them."""
        self._sent: deque[tuple[str, bytes]] = deque()
        """Written to this client and not confirmed, in order."""
        self._written = self._left = self._confirmed = 0
        """Payloads given to this client; of those, out of its buffer; of those, confirmed."""
        self._failures = 0
        self._was_there = self._returning = False
        """Whether a client was connected; whether this one is not the first."""
        self._logged_at = float("-inf")

    def notify(self) -> None:
        """From Trio: there is something in `waiting` or `changes`. One wake-up for all of it."""
        if not self._woken:
            self._woken = True
            with contextlib.suppress(AsyncioThreadClosed):  # then `serve` has ended, and says so itself
                self._thread.call_soon(self._ring)

    def _ring(self) -> None:
        if self._bell is not None:
            self._bell.set()

    _bell: asyncio.Event | None = None

    # -- life ----------------------------------------------------------------------------------------------

    async def serve(self) -> None:
        """One client after another, until cancelled."""
        self._bell, self._news = asyncio.Event(), asyncio.Event()
        first = random.randrange(len(self._settings.servers))
        for server in itertools.islice(itertools.cycle(self._settings.servers), first, None):
            client, reason = BusClient(), ""
            try:
                await self._use(client, server)
            except (Lost, NatsError, OSError, ValueError, TimeoutError) as error:
                reason = describe(error)
            except Unusable as error:
                reason = str(error)
                self._thread.call_trio(self._owner.unusable, reason)
            except Exception:
                log.exception("nats_broken")
                reason = "an error of ours"
            finally:
                await client.discard()
            self._after(client, server, reason)
            pause = min(FIRST_PAUSE * 2.0 ** min(self._failures, 10), self._settings.reconnect_cap)
            self._failures += 1
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))

    async def _use(self, client: BusClient, server: str) -> None:
        """Connect, subscribe, write and confirm; raises why it ended."""
        lost = asyncio.Event()
        async with asyncio.timeout(self._settings.connect_timeout):
            await open_client(client, self._settings, server, self._name, lost)
        self._note_changes()
        async with asyncio.timeout(self._settings.ping_timeout):
            for interest in self._wanted:
                self._wanted[interest] = await client.follow(interest.subject, interest.queue, interest.arrived)
            await self._leave(client)
            await self._ask(client)
        if self._stream is not None:
            await self._stream.prepare(client, server)
        self._failures = 0
        self._returning, self._was_there = self._was_there, True
        self._logged_at = float("-inf")
        log.info("bus_connected", extra={"server": server})
        self._thread.call_trio(self._owner.connected, server, client.max_payload)
        steps = [self._write(client), self._confirm(client), self._mourn(client, lost)]
        if self._stream is not None:
            steps += self._stream.steps(client, server)
        tasks = [asyncio.create_task(step) for step in steps]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            await _end(tasks)

    def _after(self, client: BusClient, server: str, reason: str) -> None:
        """What is unconfirmed waits again, before everything newer, unless the server blamed it."""
        blame = str(client.last_error or "").lower()
        if self._sent and any(part in blame for part in BLAMED):
            log.error("bus_refused", extra={"server": server, "reason": blame[:200], "messages": len(self._sent)})
            size = sum(len(payload) for _, payload in self._sent)
            self._thread.call_trio(self._owner.settled, len(self._sent), size, len(self._sent))
        else:
            self.waiting.extendleft(reversed(self._sent))
        self._sent.clear()
        self._written = self._left = self._confirmed = 0
        if self._stream is not None:
            self._stream.lost()
        self._note_changes()
        self._thread.call_trio(self._owner.lost, reason)
        now = asyncio.get_running_loop().time()
        if now - self._logged_at >= LOG_INTERVAL:
            self._logged_at = now
            log.warning("bus_away", extra={"server": server, "reason": reason})

    # -- out -----------------------------------------------------------------------------------------------

    async def _write(self, client: BusClient) -> None:
        assert self._bell is not None
        if self._returning:
            await asyncio.sleep(self._settings.reconnect_cap)  # whoever listens is on their way back too
        while True:
            self._woken = False  # before the queues are read: whoever appends later rings again
            self._bell.clear()
            if self.changes:
                await self._apply_changes(client)
                await self._leave(client)
            batch = self._batch(client)
            if batch:
                self._sent.extend(batch)
                self._written += len(batch)
                await client.send(batch)
                self._left = self._written
                self._news.set()
            if not self.waiting and not self.changes:
                await self._bell.wait()

    def _batch(self, client: BusClient) -> list[tuple[str, bytes]]:
        """The next payloads, about BATCH_BYTES of them at most."""
        batch: list[tuple[str, bytes]] = []
        size = 0
        while self.waiting and len(batch) < BATCH and size <= BATCH_BYTES:
            subject, payload = self.waiting.popleft()
            if len(payload) > client.max_payload:  # accepted while we were away, under another server's limit
                log.error("bus_payload_too_large", extra={"subject": subject, "bytes": len(payload)})
                self._thread.call_trio(self._owner.settled, 1, len(payload), 1)
            else:
                batch.append((subject, payload))
                size += len(payload)
        return batch

    async def _leave(self, client: BusClient) -> None:
        """Until nats-py's buffer is empty. Its PING overtakes what is in there, and would confirm too much."""
        turns = 0
        while client.pending_data_size:
            if not client.is_connected:
                raise Lost(describe(client.last_error or Lost("closed")))
            turns += 1
            await asyncio.sleep(0 if turns < 20 else 0.001)

    async def _mourn(self, client: BusClient, lost: asyncio.Event) -> None:
        """Notice the client's end; not every one is announced."""
        while client.is_connected and not lost.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TICK):
                    await lost.wait()
        raise Lost(describe(client.last_error or Lost("closed by the server")))

    async def _confirm(self, client: BusClient) -> None:
        """Ask after what was written; after `ping_interval` without anything, ask all the same."""
        while True:
            self._news.clear()
            if self._left == self._confirmed:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._settings.ping_interval):
                        await self._news.wait()
            await self._ask(client)
            await asyncio.sleep(PAUSE)

    async def _ask(self, client: BusClient) -> None:
        """PING, and confirm with its PONG. `rtt`, not `flush`, which says yes for a client whose reader is dead."""
        mark = self._left
        try:
            self.round_trip = await client.rtt(timeout=self._settings.ping_timeout)  # type: ignore[arg-type]
        except TimeoutError:
            raise Lost(f"no answer for {self._settings.ping_timeout:g} s") from None
        size = 0
        for _ in range(mark - self._confirmed):
            size += len(self._sent.popleft()[1])
        if mark > self._confirmed:
            self._thread.call_trio(self._owner.settled, mark - self._confirmed, size, 0)
            self._confirmed = mark

    # -- subscriptions -------------------------------------------------------------------------------------

    def _note_changes(self) -> None:
        """While no client lives: only remember what is wanted."""
        while self.changes:
            interest = self.changes.popleft()
            if interest.open:
                self._wanted[interest] = 0
            else:
                self._wanted.pop(interest, None)

    async def _apply_changes(self, client: BusClient) -> None:
        while self.changes:
            interest = self.changes.popleft()
            if interest.open and interest not in self._wanted:
                self._wanted[interest] = 0  # remembered first, should the client end meanwhile
                self._wanted[interest] = await client.follow(interest.subject, interest.queue, interest.arrived)
            elif not interest.open and interest in self._wanted:
                await client.forget(self._wanted.pop(interest))


def describe(error: Exception) -> str:
    """An error in a few words for a log line."""
    text = str(error).removeprefix("nats: ").strip("'")
    return (
        f"{type(error).__name__}: {text}"[:200]
        if text and not isinstance(error, Lost)
        else text or type(error).__name__
    )


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    """Cancel and wait. More than once: nats-py swallows a cancellation that meets it while it flushes."""
    for _ in range(50):
        alive = [task for task in tasks if not task.done()]
        if not alive:
            break
        for task in alive:
            task.cancel()
        await asyncio.wait(alive, timeout=0.05)
    for task in tasks:
        if task.done() and not task.cancelled():
            task.exception()  # asked for, or asyncio would complain that nobody did
