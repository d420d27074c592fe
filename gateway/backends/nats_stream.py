"""The asyncio side of a durable uplink: the stream made or looked at, parcels written to it, items pulled from it.

Made for one run of a bus and used by its Carrier on one client after another. nats-py's own JetStream context is not
used: it holds a future for each payload, bounds nothing that survives a reconnection, and its pulls are tasks.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final

from gateway.backends.asyncio_thread import AsyncioThread, AsyncioThreadClosed
from gateway.backends.nats_client import BusClient
from gateway.backends.nats_jetstream import ANSWER, Answer, JetStream
from gateway.backends.nats_parcels import Parcel
from gateway.backends.nats_taking import Taking
from gateway.backends.settings_nats import NatsSettings
from gateway.core.ports import Confirmation

log = logging.getLogger("gateway.nats")

WINDOW: Final = 2_048
"""Parcels written and not answered for: enough for any latency, and far fewer than a server queues for a stream."""
WINDOW_BYTES: Final = 8_388_608
BATCH: Final = 256
"""Parcels in one write."""
PULL: Final = 256
"""Items asked for at once."""
PULL_LIFE: Final = 0.6
"""Of `ping_timeout`, how long a request for items stands; a server forgets it then, and says so. Shorter than what a
silent server is given: one that wakes up after we have left hands nothing to requests that nobody stands behind."""
LOOK: Final = 2.0
"""Seconds between two looks at what nobody rings for."""
LOOK_AGAIN: Final = 0.5
"""Seconds between two looks at a stream or consumer that seems to have gone."""


class StreamSide:
    """One stream, seen from the asyncio thread. `waiting`, `takings`, `notify` and `notify_room` are Trio's end."""

    def __init__(
        self,
        settings: NatsSettings,
        thread: AsyncioThread,
        jetstream: JetStream,
        answered: Callable[[Parcel, Confirmation], None],
    ) -> None:
        self._settings = settings
        self._thread = thread
        self._jetstream = jetstream
        self._answered = answered
        self.waiting: deque[Parcel] = deque()
        """To be written, in order: Trio appends, we take."""
        self.takings: deque[Taking] = deque()
        """Made or closed: Trio appends, we take."""
        self._written: dict[int, Parcel] = {}
        """Written to this client and not answered for, in order."""
        self._written_bytes = 0
        self._inbox = ""
        self._write_bell, self._pull_bell = asyncio.Event(), asyncio.Event()
        self._write_woken = self._pull_woken = False
        self._gone = False
        self._pulls: dict[Taking, _Pull] = {}

    # -- from Trio -----------------------------------------------------------------------------------------

    def notify(self) -> None:
        """There is something in `waiting`."""
        if not self._write_woken:
            self._write_woken = True
            with contextlib.suppress(AsyncioThreadClosed):
                self._thread.call_soon(self._write_bell.set)

    def notify_room(self) -> None:
        """There is something in `takings`, or room in one of them."""
        if not self._pull_woken:
            self._pull_woken = True
            with contextlib.suppress(AsyncioThreadClosed):
                self._thread.call_soon(self._pull_bell.set)

    # -- one client ----------------------------------------------------------------------------------------

    async def prepare(self, client: BusClient, server: str) -> None:
        """Before anything flows: the stream is there, and so is where its answers come.

        Raises:
            Unusable, Lost: it cannot be what is configured; or not now.
        """
        self._inbox = client.new_inbox()
        await client.follow_whole(f"{self._inbox}.*", self._heard)
        await self._jetstream.ensure_stream(client, server)
        self._note_takings()
        for taking, pull in self._pulls.items():
            await self._begin(client, server, taking, pull)
        self._gone = False

    def steps(self, client: BusClient, server: str) -> Iterable[Coroutine[Any, Any, None]]:
        """What is to run for as long as the client lives."""
        return self._write(client, server), self._pull(client, server)

    def lost(self) -> None:
        """The client has gone: what it was not answered for waits again, before everything newer."""
        self.waiting.extendleft(reversed(self._written.values()))
        self._written.clear()
        self._written_bytes = 0
        for pull in self._pulls.values():
            pull.sid = pull.asked = 0

    # -- out -----------------------------------------------------------------------------------------------

    async def _write(self, client: BusClient, server: str) -> None:
        while True:
            self._write_woken = False  # before the queue is read: whoever appends later rings again
            self._write_bell.clear()
            if self._gone:
                await self._jetstream.ensure_stream(client, server)
                self._gone = False
            if len(self._written) >= WINDOW or self._written_bytes >= WINDOW_BYTES:
                self._forget_overdue()
            batch = self._batch(client)
            if batch:
                await client.write(batch)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK if self.waiting else None):
                    await self._write_bell.wait()
            if self._gone:
                await asyncio.sleep(LOOK_AGAIN)

    def _batch(self, client: BusClient) -> list[bytes]:
        """The next parcels as commands, as far as the window has room for them."""
        batch: list[bytes] = []
        while self.waiting and len(batch) < BATCH and len(self._written) < WINDOW:
            if self._written_bytes >= WINDOW_BYTES:
                break
            parcel = self.waiting.popleft()
            again = parcel.written
            parcel.written = True  # before it is looked whether it was given up: see Parcel
            if parcel.over:
                continue
            headers = b"NATS/1.0\r\nNats-Msg-Id: %b\r\n\r\n" % parcel.key.encode()
            size = len(headers) + len(parcel.payload)
            if size > client.max_payload:
                log.error("bus_payload_too_large", extra={"subject": self._jetstream.subject, "bytes": size})
                self._answered(parcel, Confirmation.UNKNOWN if again else Confirmation.REFUSED)
                continue
            command = f"HPUB {self._jetstream.subject} {self._inbox}.{parcel.number} {len(headers)} {size}\r\n"
            batch.append(b"%b%b%b\r\n" % (command.encode(), headers, parcel.payload))
            parcel.writings += 1
            self._written[parcel.number] = parcel
            self._written_bytes += len(parcel.payload)
        return batch

    def _forget_overdue(self) -> None:
        """What was given up holds no place in the window, however long its answer takes."""
        while self._written:
            parcel = next(iter(self._written.values()))
            if not parcel.over:
                break
            self._forget(parcel.number)

    def _forget(self, number: int) -> Parcel | None:
        parcel = self._written.pop(number, None)
        if parcel is not None:
            self._written_bytes -= len(parcel.payload)
        return parcel

    def _heard(self, subject: str, reply: str, data: bytes, headers: dict[str, str] | None) -> None:
        """The stream's word on one parcel."""
        parcel = self._forget(int(subject.rpartition(".")[2]))
        if self.waiting or self._gone:
            self._write_bell.set()
        if parcel is None:
            return
        if not data:  # nobody there listens to the stream's subject
            self._gone = True
            self._write_bell.set()
            self._answered(parcel, _refused(parcel))
            return
        try:
            answer = ANSWER.decode(data)
        except ValueError:
            answer = Answer()
        if answer.error is not None:
            self._answered(parcel, _refused(parcel))
        elif answer.seq <= 0:
            self._answered(parcel, Confirmation.UNKNOWN)
        elif answer.duplicate and parcel.writings == 1:
            self._answered(parcel, Confirmation.REPEATED)
        else:  # a duplicate of what a lost client wrote is the same parcel
            self._answered(parcel, Confirmation.CONFIRMED)

    # -- in ------------------------------------------------------------------------------------------------

    def _note_takings(self) -> list[_Pull]:
        """Remember what is wanted; those that are no more."""
        over = []
        while self.takings:
            taking = self.takings.popleft()
            if taking.open:
                self._pulls.setdefault(taking, _Pull(taking, self._pull_bell))
            elif (pull := self._pulls.pop(taking, None)) is not None:
                over.append(pull)
        return over

    async def _begin(self, client: BusClient, server: str, taking: Taking, pull: _Pull) -> None:
        taking.keep_every = (await self._jetstream.ensure_consumer(client, server, taking.group)) / 3
        if not pull.sid:
            pull.inbox = client.new_inbox()
            pull.sid = await client.follow_whole(f"{pull.inbox}.*", pull.heard)
        pull.gone = False

    async def _pull(self, client: BusClient, server: str) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._pull_woken = False
            self._pull_bell.clear()
            for pull in self._note_takings():
                if pull.sid:
                    await client.forget(pull.sid)
            for taking, pull in list(self._pulls.items()):
                if pull.gone:
                    await asyncio.sleep(LOOK_AGAIN)
                    await self._jetstream.ensure_stream(client, server)
                if pull.gone or not pull.sid:
                    await self._begin(client, server, taking, pull)
                await self._ask(client, taking, pull, loop.time())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK):
                    await self._pull_bell.wait()

    async def _ask(self, client: BusClient, taking: Taking, pull: _Pull, now: float) -> None:
        if pull.asked > 0 and now < pull.until:
            return
        room = taking.may_pull()
        if room > 0:
            pull.number += 1
            pull.asked = min(room, PULL)
            settings = self._settings
            life = PULL_LIFE * settings.ping_timeout
            # without a word by then the server is known to live, and has lost the request
            pull.until = now + life + settings.ping_interval + settings.ping_timeout
            request = self._jetstream.request(pull.asked, life)
            await client.publish(self._jetstream.next(taking.group), request, reply=f"{pull.inbox}.{pull.number}")


class _Pull:
    """One Taking's requests: at most one stands at a time."""

    def __init__(self, taking: Taking, bell: asyncio.Event) -> None:
        self._taking = taking
        self._bell = bell
        self.inbox = ""
        self.sid = 0
        self.number = 0
        self.asked = 0
        """Items that the request may still bring."""
        self.until = 0.0
        self.gone = False
        """The consumer seems not to be there."""

    def heard(self, subject: str, reply: str, data: bytes, headers: dict[str, str] | None) -> None:
        """An item, or why none comes any more."""
        if reply:
            self.asked -= 1
            self._taking.arrived(reply, data, _attempt(reply))
        else:
            if subject != f"{self.inbox}.{self.number}":
                return  # of an earlier request
            self.asked = 0
            self.gone = (headers or {}).get("Status") not in ("404", "408")
        if self.asked <= 0:
            self._bell.set()


def _attempt(reply: str) -> int:
    """How often an item was handed out, of its reply subject: `$JS.ACK.<stream>.<consumer>.<times>....`, newer servers
    may put a domain and an account between."""
    names = reply.split(".")
    return int(names[4] if len(names) == 9 else names[6])


def _refused(parcel: Parcel) -> Confirmation:
    """A stream's no counts only for what no earlier client wrote."""
    return Confirmation.REFUSED if parcel.writings == 1 else Confirmation.UNKNOWN
