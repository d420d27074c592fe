"""The client as a program sees it, and the loop that keeps it connected."""

from __future__ import annotations

import random
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Literal

import trio

from gateway._framing import HEADER
from gateway._version import __version__
from gateway.client import frames
from gateway.client.dial import dialler
from gateway.client.endpoint import TRANSPORTS, Endpoint, parse_urls
from gateway.client.errors import (
    RequestFailed,
    SendTimeout,
)
from gateway.client.file_fetching import FileFetcher
from gateway.client.file_sending import FileSender, describe_file
from gateway.client.journal import Journal, wall_ms
from gateway.client.laned import LanedConnection
from gateway.client.messages import Delivery, OfferedFile, Page, Receipt, SentFile, State, Statistics
from gateway.client.notices import Notices
from gateway.client.outgoing import Pending
from gateway.client.settings import ClientSettings
from gateway.client.tickets import MemoryTickets, Resumption, TicketStore
from gateway.client.token import TokenSource
from gateway.client.transport import Dial, TransportFailed
from gateway.client.trust import Trust
from gateway.client.upkeep import Upkeep
from gateway.protocol import messages
from gateway.protocol.ids import checked_name, new_message_id
from gateway.protocol.types import AckStatus

Level = Literal["accepted", "stored"]
GOALS: Final = {"accepted": AckStatus.ACCEPTED, "stored": AckStatus.STORED}


class Client:
    """One user's device. Made by `connect`; usable until its block is left or a code says never (Refused).

    Iterating gives deliveries in the order of their server_seq, each once, over all reconnections.
    """

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        dial: Dial | None,
        token: TokenSource,
        login: messages.AuthRequest,
        cursor: int,
        settings: ClientSettings,
        trust: Trust,
        tickets: TicketStore,
    ) -> None:
        self._settings = settings
        self._journal = Journal(settings, cursor, random.random)
        dial = dial or dialler(trust, Resumption(tickets, self._journal.early))
        self._upkeep = Upkeep(self._journal, endpoints, dial, token, login)

    # -- what there is to know -----------------------------------------------------------------------------

    @property
    def user_id(self) -> int:
        """Whose client this is, as the server says; 0 before the first login."""
        return self._journal.user_id

    @property
    def node_id(self) -> str:
        """The node of the last login."""
        return self._journal.node_id

    @property
    def cursor(self) -> int:
        """The highest server_seq taken from the iteration: what to pass to the next `connect`."""
        return self._journal.timeline.cursor

    @property
    def state(self) -> State:
        """Where the connection is."""
        return self._journal.state

    @property
    def url(self) -> str:
        """The server of the connection, or of the attempt, at this moment."""
        return self._journal.url

    @property
    def transport(self) -> str:
        """What the link of this moment is: `quic`, `webtransport`, `websocket` or `tcp`, with TLS or without."""
        return TRANSPORTS[self.url.partition(":")[0]]

    @property
    def unacknowledged(self) -> tuple[str, ...]:
        """The msg_ids of own messages that the server has not answered for, oldest first."""
        return self._journal.outgoing.ids()

    @property
    def notices(self) -> Notices:
        """Receipts, signals, events, complaints and state changes, for one taker. Bounded: the oldest are lost."""
        return self._journal.notices

    def statistics(self) -> Statistics:
        """Counts so far."""
        journal = self._journal
        timeline, outgoing = journal.timeline, journal.outgoing
        return Statistics(
            state=journal.state,
            logins=journal.logins,
            attempts=journal.attempts,
            sent=outgoing.sent,
            resent=outgoing.resent,
            stored=outgoing.stored,
            rejected=outgoing.rejected,
            unacknowledged=len(outgoing),
            delivered=timeline.handed_out,
            duplicates=timeline.duplicates,
            gaps=timeline.gaps,
            syncs=journal.syncs,
            buffered=len(timeline),
            deliveries_dropped=timeline.dropped,
            notices_dropped=journal.notices.dropped,
            acknowledgements_dropped=journal.acknowledgements.dropped,
            bytes_in=journal.bytes_in,
            bytes_out=journal.bytes_out,
            round_trip=journal.round_trip,
        )

    # -- sending -------------------------------------------------------------------------------------------

    async def send(
        self,
        content: str,
        *,
        to_user: int = 0,
        group_id: int = 0,
        content_type: int = 0,
        msg_id: str | None = None,
        wait: Level | None = "stored",
        timeout: float | None = None,
    ) -> Receipt | None:
        """Send one message, to a user or to a group; over reconnections it is sent again under the same msg_id.

        Args:
            content: the text.
            msg_id: 1 to 64 of A-Z a-z 0-9 _ -, unique among this user's messages; made here when not given.
                The server acknowledges a repeated one again and delivers it once.
            wait: "stored" returns when the server has it durably, "accepted" when the node has handed it on.
                None returns at once when there is room, with nothing; what becomes of it comes as Receipts
                among the notices.
            timeout: seconds; `settings.send_timeout` when not given.

        Returns:
            The acknowledgement, or None with `wait=None`.

        Raises:
            ValueError: not exactly one of `to_user`, `group_id`; a bad or pending msg_id; too long a content.
            Rejected: the server will not take it; with its code.
            SendTimeout: no acknowledgement in time; the message is not sent again.
            ClientClosed, Refused: the client has ended.
        """
        if (to_user > 0) == (group_id > 0) or to_user < 0 or group_id < 0:
            raise ValueError("give one of to_user and group_id, a positive number")
        msg_id = new_message_id() if msg_id is None else checked_name(msg_id, "msg_id")
        goal = AckStatus.STORED if wait is None else GOALS[wait]
        pending = Pending(msg_id, to_user, group_id, content, content_type, wall_ms(), goal)
        self._check_size(len(pending.frame(1, pending.sent_at)))
        seconds = self._settings.send_timeout if timeout is None else timeout
        with trio.move_on_after(seconds):
            await self._queue(pending)
            if wait is None:
                return None
            await self._settlement(pending)
        if pending.error is not None:
            raise pending.error
        if pending.receipt is None:
            raise SendTimeout(msg_id, f"no acknowledgement of message {msg_id} within {seconds:g} s")
        return pending.receipt

    async def _queue(self, pending: Pending) -> None:
        outgoing = self._journal.outgoing
        await trio.lowlevel.checkpoint()
        self._upkeep.check()
        while not outgoing.has_room(pending.size):
            await self._journal.settled.wait()
            self._upkeep.check()
        if pending.msg_id in outgoing:
            raise ValueError(f"message {pending.msg_id} is under way already")
        outgoing.add(pending)
        self._wake_writer()

    async def _settlement(self, pending: Pending) -> None:
        try:
            while not pending.settled:
                self._upkeep.check()
                await self._journal.settled.wait()
        finally:
            self._journal.outgoing.withdraw(pending)

    async def wait_acknowledged(self) -> None:
        """Return when no own message waits for its acknowledgement. The caller holds a deadline.

        Raises:
            ClientClosed, Refused: the client has ended.
        """
        await trio.lowlevel.checkpoint()
        while len(self._journal.outgoing):
            self._upkeep.check()
            await self._journal.settled.wait()

    def signal(self, *, to_user: int = 0, group_id: int = 0, kind: str, data: bytes = b"") -> bool:
        """Tell somebody something that matters only now (typing, say). Never waits; False when it was dropped.

        Raises:
            ValueError: not exactly one of `to_user`, `group_id`; too much data.
            ClientClosed, Refused: the client has ended.
        """
        self._upkeep.check()
        if (to_user > 0) == (group_id > 0) or to_user < 0 or group_id < 0:
            raise ValueError("give one of to_user and group_id, a positive number")
        self._check_size(256 + 4 * len(kind) + len(data))
        signal = messages.Signal(to_user=to_user, group_id=group_id, kind=kind, data=data)
        connection = self._upkeep.connection
        return connection is not None and connection.signal(signal)

    async def mark_read(self, delivery: Delivery) -> None:
        """Tell the sender that the message was read. Kept over a reconnection; returns when it is queued.

        Raises:
            ClientClosed, Refused: the client has ended.
        """
        await trio.lowlevel.checkpoint()
        self._upkeep.check()
        self._acknowledge(delivery, AckStatus.READ)

    # -- receiving -----------------------------------------------------------------------------------------

    def __aiter__(self) -> Client:
        return self

    async def __anext__(self) -> Delivery:
        """The next delivery. Ends when the program has closed the client.

        Raises:
            Refused: the server said a code after which there is no reconnecting.
        """
        await trio.lowlevel.checkpoint()
        timeline = self._journal.timeline
        while (delivery := timeline.take()) is None:
            if self._upkeep.failure is not None:
                raise self._upkeep.failure
            if self._upkeep.closing:
                raise StopAsyncIteration
            await self._journal.delivered.wait()
        if self._settings.acknowledge:
            self._acknowledge(delivery, AckStatus.DELIVERED)
        if timeline.behind and self._upkeep.connection is not None:
            self._upkeep.connection.to_sync.ring()
        return delivery

    async def sync(self, cursor: int, limit: int = 100) -> Page:
        """One page of this user's messages after `cursor`, oldest first. Leaves the iteration as it is.

        Raises:
            RequestFailed: not connected, refused, or no answer in time.
            ClientClosed, Refused: the client has ended.
        """
        await trio.lowlevel.checkpoint()
        self._upkeep.check()
        connection = self._upkeep.connection
        if connection is None or not connection.online:
            raise RequestFailed("Sync failed: not connected", reason="not connected")
        answer = await connection.request(messages.SyncRequest(cursor=cursor, limit=limit))
        deliveries = tuple(frames.delivery(each) for each in answer.messages)
        return Page(deliveries=deliveries, next_cursor=answer.next_cursor, has_more=answer.has_more)

    def _acknowledge(self, delivery: Delivery, status: AckStatus) -> None:
        if delivery.from_user == self.user_id:
            return  # a copy of what another of our devices sent: nobody waits for our receipt
        self._journal.acknowledgements.add(delivery.msg_id, status, delivery.server_seq)
        self._wake_writer()

    # -- files ---------------------------------------------------------------------------------------------

    async def send_file(
        self,
        path: str | Path,
        *,
        to_user: int = 0,
        group_id: int = 0,
        name: str | None = None,
        content_type: str = "",
        file_id: str | None = None,
        announced: bool = True,
    ) -> SentFile:
        """Send a file to a user or a group; over reconnections it is gone on with where it stopped.

        Args:
            path: what to send; it must not change meanwhile.
            name: what others see; the path's last part when not given.
            file_id: 1 to 64 of A-Z a-z 0-9 _ -, unique among this user's files; made here when not given. With the one
                of an earlier try, also of an earlier process, only what is missing is sent.
            announced: return when whoever it is for will find it; else when it is stored.

        Raises:
            ValueError: not exactly one of `to_user`, `group_id`; a bad or pending file_id; a name that is none.
            FileFailed: the server will not take it, with its code; or nothing moved for `settings.file_patience`.
            OSError: the file cannot be read.
            ClientClosed, Refused: the client has ended.
        """
        path = Path(path)
        file_id = new_message_id() if file_id is None else checked_name(file_id, "file_id")
        offer = await describe_file(
            path,
            file_id,
            to_user=to_user,
            group_id=group_id,
            name=path.name if name is None else name,
            content_type=content_type,
        )
        return await FileSender(self._journal, self._upkeep.wait_online, path, offer).run(announced=announced)

    async def fetch(self, file: OfferedFile, path: str | Path) -> None:
        """Fetch a file to `path`, made of what a notice or `file_of(delivery)` says; over reconnections, and with what
        an interrupted fetch left beside it (`path` with `.part`), only what is missing comes.

        Raises:
            FileFailed: it is not there (any more) or not for this user; other bytes came than its sender promised; or
                nothing moved for `settings.file_patience`.
            FileExistsError: there is something at `path`.
            OSError: it cannot be written.
            ValueError: it is being fetched already.
            ClientClosed, Refused: the client has ended.
        """
        await FileFetcher(self._journal, self._upkeep.wait_online, file, Path(path)).run()

    # -- links with lanes ----------------------------------------------------------------------------------

    async def migrate(self, local: tuple[str, int] | None = None) -> None:
        """Go on from another local address and port, without a new login; nothing that was sent is lost.

        The client does so by itself when the system says that its address is gone, or after a silence.

        Args:
            local: address and port, 0 for any port; the system chooses both when not given.

        Raises:
            RequestFailed: no link at this moment, one that cannot (TCP, WebSocket), or no such address.
            ClientClosed, Refused: the client has ended.
        """
        await trio.lowlevel.checkpoint()
        self._upkeep.check()
        connection = self._upkeep.connection
        if not isinstance(connection, LanedConnection):
            raise RequestFailed(f"a {self.transport} link cannot change its address", reason="not possible")
        try:
            await connection.lanes.migrate(local)
        except TransportFailed as failure:
            raise RequestFailed(f"not migrated: {failure}", code=failure.code, reason=str(failure)) from None

    # -- small things --------------------------------------------------------------------------------------

    def _check_size(self, size: int) -> None:
        if size - HEADER > self._journal.max_frame:
            raise ValueError(f"{size} bytes do not fit into a frame of at most {self._journal.max_frame}")

    def _wake_writer(self) -> None:
        if self._upkeep.connection is not None:
            self._upkeep.connection.to_write.ring()


@asynccontextmanager
async def connect(
    url: str | Sequence[str],
    *,
    token: TokenSource,
    device_id: str,
    platform: str = "python",
    cursor: int = 0,
    ssl_context: ssl.SSLContext | None = None,
    trust: Trust | None = None,
    tickets: TicketStore | None = None,
    settings: ClientSettings | None = None,
    dial: Dial | None = None,
) -> AsyncIterator[Client]:
    """Log in and stay connected while the block runs.

    Args:
        url: `quic://host:port`, `https://host:port/im` (WebTransport), `wss://host:port/ws`, `ws://host:port/ws`,
            `tcps://host:port` or `tcp://host:port`; or several, best first: a quarter of a second apart each is
            tried, the first link that is up is used, and the next connection begins with what served the last.
        token: the text, or a callable (plain or async) that gives a fresh one for each login.
        device_id: which of the user's devices this is; a second login of the same takes the first one's place.
        platform: what kind of device.
        cursor: the server_seq up to which this device has everything; deliveries begin after it.
        ssl_context: short for `trust=Trust(context=...)`.
        trust: whom to believe to be the server; the system's trust and full verification when not given.
        tickets: where what resumes QUIC sessions is kept, of this user on this device; in memory when not given.
        settings: bounds and deadlines.
        dial: opens the link instead of the built-in transports.

    Raises:
        Unreachable: no login within `settings.start_timeout`.
        Refused: the server does not want this client.
        UnsupportedTransport, ValueError: a URL or name that cannot be.
    """
    endpoints = parse_urls(url)
    login = messages.AuthRequest(
        device_id=checked_name(device_id, "device_id"),
        platform=checked_name(platform, "platform"),
        client=f"trio-gateway/{__version__}",
    )
    if cursor < 0:
        raise ValueError("cursor must not be negative")
    if trust is not None and ssl_context is not None:
        raise ValueError("give trust or ssl_context, not both")
    settings = settings or ClientSettings()
    trust = trust or Trust(context=ssl_context)
    client = Client(endpoints, dial, token, login, cursor, settings, trust, tickets or MemoryTickets())
    error: Exception | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client._upkeep.run)
        try:
            await client._upkeep.wait_login()
            yield client
        except Exception as raised:
            error = raised
        with trio.move_on_after(settings.close_timeout, shield=True):
            await client._upkeep.finish()
        nursery.cancel_scope.cancel()
    if error is not None:
        raise error
