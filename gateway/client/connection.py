"""One link from Auth to its end: a reader, a writer, a keeper of time, and a task that catches up by Sync.

What outlives it is in the Journal; whether and where to connect next is decided elsewhere. What each kind of
frame does is in `frames`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

import msgspec
import trio

from gateway._framing import HEADER, FrameDecoder, build_heartbeat
from gateway.client import frames
from gateway.client.backoff import Backoff
from gateway.client.bell import Bell
from gateway.client.errors import RequestFailed
from gateway.client.journal import Journal, wall_ms
from gateway.client.messages import Complaint, State, Synced
from gateway.client.transport import LanedTransport, Transport, TransportFailed
from gateway.protocol.codes import Code, Reconnect, reconnect_after
from gateway.protocol.messages import AuthRequest, AuthResponse, GoAway, Message, SyncRequest, SyncResponse, encode

BATCH = 65_536
"""Bytes after which no further frame joins a write."""
LIMIT_BEFORE_LOGIN = 65_536
"""Largest body accepted before the server has said who it is."""
LONGEST_LEAVE = 3600.0
"""Seconds: a GoAway that asks for more patience than this gets this much."""
TOLD_FOR = 10.0
"""Seconds for which an Error counts as the reason of a close: the server closes within two, if it does."""
SIGNAL_BOUND = 65_536
"""Bytes of control frames that may wait before a Signal is dropped."""
GAP_PATIENCE = 0.05
"""Seconds before a gap is asked for: an acknowledgement may overtake a delivery, and most gaps close by themselves."""
SYNC_BACKOFF = 1.0
"""Seconds: the bound of the first pause after a Sync that failed."""


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """How a connection, or an attempt at one, came to its end."""

    code: int = 0
    reason: str = ""
    retry_after: float = 0.0
    """Seconds that the server wants to be left alone."""
    not_before: float = 0.0
    """After a GoAway: the moment (Trio's clock) from which to connect again."""
    endpoints: tuple[str, ...] = ()
    """Where a GoAway sends us."""
    online_for: float = -1.0
    """Seconds between login and end; negative without a login."""
    final: bool = False
    """Another attempt at the same would fail the same way."""


class Call:
    """A request that waits for its answer."""

    __slots__ = ("answer", "done", "error")

    def __init__(self) -> None:
        self.done = trio.Event()
        self.answer: SyncResponse | None = None
        self.error: RequestFailed | None = None


class Connection:
    """Runs once. `run` returns how it ended and raises nothing but trio.Cancelled and our own faults."""

    def __init__(
        self, transport: Transport, journal: Journal, request: AuthRequest, now: float, first_seq: int = 0
    ) -> None:
        self.journal = journal
        self.calls: dict[int, Call] = {}
        self.heartbeat = (0, 0.0)
        """Seq and time of the last heartbeat that was not answered; seq 0 when it was."""
        self._transport = transport
        self._settings = journal.settings
        self._decoder = FrameDecoder(frames.TABLE, LIMIT_BEFORE_LOGIN)
        self._seq = first_seq
        self._control: deque[bytes] = deque([encode(request, seq=self.next_seq(), timestamp=wall_ms())])
        self._control_bytes = 0
        self._received_at = now
        self._online = trio.Event()
        self._online_at = 0.0
        self._interval = self._settings.heartbeat_interval
        self._leave_at = 0.0
        self._endpoints: tuple[str, ...] = ()
        self._finishing = False
        self._told = (0, "", 0.0)
        self._told_until = 0.0
        self._ending: Ending | None = None
        self._scope: trio.CancelScope | None = None
        self.to_write = Bell()
        self.to_sync = Bell()
        self._to_keep = Bell()

    @property
    def online(self) -> bool:
        """Logged in and not ended."""
        return self._online.is_set() and self._ending is None

    @property
    def lanes(self) -> LanedTransport | None:
        """The link, if it has lanes: for streams, and for changing the address."""
        return None

    # -- life ----------------------------------------------------------------------------------------------

    async def run(self) -> Ending:
        """From Auth to the end."""
        try:
            async with trio.open_nursery() as nursery:
                self._scope = nursery.cancel_scope
                for task in self._tasks():
                    nursery.start_soon(self._until_failure, task)
        finally:
            self._decoder.close()
            for call in self.calls.values():
                call.done.set()
        assert self._ending is not None
        return self._ending

    def _tasks(self) -> Sequence[Callable[[], Awaitable[None]]]:
        return (self._read, self._write, self._keep, self._catch_up)

    async def _until_failure(self, task: Callable[[], Awaitable[None]]) -> None:
        try:
            await task()
        except TransportFailed as failure:
            self.end(failure.code, str(failure))

    async def _read(self) -> None:
        """Feeds the decoder. Never waits for the program: what finds no room is fetched again by Sync."""
        while data := await self._transport.receive_some():
            self._received_at = trio.current_time()
            self.journal.bytes_in += len(data)
            self._decoder.feed(self, data)
            if self._ending is not None:
                return
        self.end(0, "connection lost")

    async def _write(self) -> None:
        """The only task that sends: what waits is joined into one write."""
        await self._pour(self._transport.send_all, self._batch)

    async def _pour(self, send: Callable[[bytes], Awaitable[None]], next_batch: Callable[[], bytes]) -> None:
        while True:
            batch = next_batch()
            if batch:
                await send(batch)
                self.journal.bytes_out += len(batch)
            elif self._finishing:
                self._poured()
                return
            else:
                await self.to_write.wait()

    def _poured(self) -> None:
        """Everything is written, and this was to be the end."""
        self.end(self._told[0] or Code.OK, "left")

    def _batch(self, *, control: bool = True, messages: bool = True) -> bytes:
        """Control frames first, then acknowledgements, messages and parts of files; those only after login."""
        parts: list[bytes] = []
        size = 0
        now_ms = wall_ms()
        while size < BATCH:
            frame: bytes | None = None
            if control and self._control:
                frame = self._control.popleft()
            elif messages:
                frame = self._next_frame(now_ms)
            if frame is None:
                break
            parts.append(frame)
            size += len(frame)
        if control and not self._control:
            self._control_bytes = 0
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _next_frame(self, now_ms: int) -> bytes | None:
        if not self.online:
            return None
        journal, seq = self.journal, self._seq + 1
        frame = (
            journal.acknowledgements.next_frame(seq, now_ms)
            or journal.outgoing.next_frame(seq, now_ms)
            or journal.files.next_frame(self, seq, now_ms)
        )
        if frame is None:
            return None
        self._seq = seq
        if len(frame) - HEADER > journal.max_frame:  # this node takes less than the one before: it would end us
            frames.reject(self, seq, Code.FRAME_TOO_LARGE, "too long for this node")
            return self._next_frame(now_ms)
        return frame

    # -- time ----------------------------------------------------------------------------------------------

    async def _keep(self) -> None:
        """Login deadline, heartbeats, a silent server, resends, and the moment to leave: one deadline at a time."""
        with trio.move_on_after(self._settings.login_timeout):
            await self._online.wait()
        if not self._online.is_set():
            self.end(0, "no answer to the login in time")
            return
        now = trio.current_time()
        beat_at = now + self._interval
        while self._ending is None:
            resend_at = self.journal.outgoing.overdue(now, self._settings.resend_after, self._settings.resend_longest)
            if now >= beat_at:
                self._beat(now)
                beat_at = now + self._interval
            self.to_write.ring()
            if self._silent(now):
                self.end(0, f"nothing heard for {now - self._received_at:.0f} s")
                return
            if self._leave_at and now >= self._leave_at:
                self.finish()
                await trio.sleep(self._settings.close_timeout)
                self.end(0, "left without having written everything")
                return
            due = min(beat_at, resend_at, self._leave_at or beat_at, self._remind(now))
            if self.heartbeat[0]:
                due = min(due, self.heartbeat[1] + self._settings.reply_timeout)
            with trio.CancelScope(deadline=max(due, now + 0.001)):
                await self._to_keep.wait()
            now = trio.current_time()

    def _beat(self, now: float) -> None:
        seq = self.next_seq()
        if not self.heartbeat[0]:
            self.heartbeat = (seq, now)
        self._send_heartbeat(build_heartbeat(seq, wall_ms()))

    def _send_heartbeat(self, frame: bytes) -> None:
        self.control(frame)

    def _remind(self, now: float) -> float:
        """When to ask again for the answer to a heartbeat that may have been lost; a byte stream loses none."""
        return math.inf

    def answered(self, seq: int) -> None:
        """The server answers in order: everything written before this heartbeat has arrived."""
        self.journal.acknowledgements.proven(seq)

    def _silent(self, now: float) -> bool:
        """Any frame counts as life; without one the last heartbeat decides."""
        seq, at = self.heartbeat
        if not seq or now < at + self._settings.reply_timeout:
            return False
        if self._received_at <= at:
            return True
        self.heartbeat = (0, 0.0)  # alive, though it owes us this answer: the next one is asked for in turn
        return False

    # -- catching up ---------------------------------------------------------------------------------------

    async def _catch_up(self) -> None:
        """Sync whenever something is missing and the program has room for it."""
        timeline = self.journal.timeline
        page = min(self._settings.sync_page, max(1, timeline.capacity // 2))
        backoff = Backoff(SYNC_BACKOFF, self._settings.backoff_cap, self.journal.random)
        missed, told, rewound = 0, False, False
        while True:
            while not (self.online and timeline.behind and timeline.room >= page):
                await self.to_sync.wait()
            if not timeline.unsynced:
                await trio.sleep(GAP_PATIENCE)
                if not timeline.behind:
                    continue
            stamp, asked = timeline.asked(), timeline.position
            try:
                answer = await self.request(SyncRequest(cursor=asked, limit=page))
            except RequestFailed as failure:
                if reconnect_after(failure.code) is Reconnect.WITH_BACKOFF:
                    await trio.sleep(backoff.delay())
                    continue
                self.journal.notices.put(Complaint(code=failure.code, reason="Sync: " + failure.reason))
                timeline.abandon()
                self.journal.delivered.ring()
                return
            backoff.reset()
            if answer.next_cursor < asked and not answer.messages and not rewound:
                rewound = True
                timeline.rewind()
                continue
            page_of = [frames.synced(self, each) for each in answer.messages]
            missed += timeline.answered(stamp, page_of, answer.next_cursor, answer.has_more)
            self.journal.delivered.ring()
            if not told and (not answer.has_more or answer.next_cursor <= asked):
                told = True
                self.journal.notices.put(Synced(missed=missed, cursor=timeline.position))

    async def request(self, message: SyncRequest) -> SyncResponse:
        """Send a request and wait for its answer.

        Raises:
            RequestFailed: an error came instead, or nothing in time, or the connection ended.
        """
        seq = self.next_seq()
        call = self.calls[seq] = Call()
        self.journal.syncs += 1
        self.control(encode(message, seq=seq, timestamp=wall_ms()))
        try:
            with trio.move_on_after(self._settings.request_timeout):
                await call.done.wait()
        finally:
            del self.calls[seq]
        if call.error is not None:
            raise call.error
        if call.answer is None:
            why = "connection lost" if call.done.is_set() else "no answer in time"
            raise RequestFailed(f"Sync failed: {why}", reason=why)
        if call.answer.code:
            raise RequestFailed(f"Sync failed: {call.answer.code}", code=call.answer.code)
        return call.answer

    # -- for the frames ------------------------------------------------------------------------------------

    def next_seq(self) -> int:
        """Requests of this connection count from 1."""
        self._seq += 1
        return self._seq

    def control(self, frame: bytes) -> None:
        """Queue a frame ahead of messages."""
        self._control.append(frame)
        self._control_bytes += len(frame)
        self.to_write.ring()

    def signal(self, message: Message) -> bool:
        """Queue a frame that may be dropped; False when it was."""
        return self.online and self._expendable(encode(message, seq=self.next_seq(), timestamp=wall_ms()))

    def _expendable(self, frame: bytes) -> bool:
        if self._control_bytes > SIGNAL_BOUND:
            return False
        self.control(frame)
        return True

    def logged_in(self, answer: AuthResponse) -> None:
        """The server took us in: everything unanswered is written again, and what was missed is asked for."""
        if self._online.is_set() or self._ending is not None:
            return
        journal = self.journal
        journal.user_id, journal.session_id, journal.node_id = answer.user_id, answer.session_id, answer.node_id
        journal.logins += 1
        if answer.heartbeat_interval_ms:
            self._interval = answer.heartbeat_interval_ms / 1000
        if answer.max_frame:
            journal.max_frame = answer.max_frame
        self._decoder.limit = self._settings.max_frame
        journal.timeline.logged_in(self._settings.automatic_sync)
        journal.outgoing.logged_in()
        journal.acknowledgements.logged_in()
        self._online_at = trio.current_time()
        self._online.set()
        journal.enter(State.ONLINE)
        self.to_write.ring()
        self.to_sync.ring()

    def going_away(self, notice: GoAway) -> None:
        """The server will leave: leave before it, at a moment of our own."""
        wait = (notice.reconnect_after_ms + notice.jitter_ms * self.journal.random()) / 1000
        wait = min(wait, LONGEST_LEAVE)
        self._leave_at = trio.current_time() + wait
        self._endpoints = tuple(notice.endpoints)
        self.tell(notice.code or Code.GOING_AWAY, notice.message)
        self.journal.enter(State.LEAVING, code=notice.code, reason=notice.message, delay=wait)
        self._to_keep.ring()

    def tell(self, code: int, reason: str, retry_after: float = 0.0) -> None:
        """The server said why it is about to close."""
        self._told = (code, reason, retry_after)
        self._told_until = max(self._leave_at, trio.current_time()) + TOLD_FOR

    # -- the way out ---------------------------------------------------------------------------------------

    def finish(self) -> None:
        """Write what is queued, then end."""
        self._finishing = True
        self.to_write.ring()

    def end(self, code: int, reason: str, *, final: bool = False) -> None:
        """It is over; what the server told before is the better reason. The first call counts."""
        if self._ending is not None:
            return
        now = trio.current_time()
        told_code, told_reason, retry_after = self._told if now < self._told_until else (0, "", 0.0)
        if told_code and not code:
            code, reason = told_code, told_reason
        online_for = now - self._online_at if self._online.is_set() else -1.0
        self._ending = Ending(
            code=code,
            reason=reason,
            retry_after=retry_after,
            not_before=self._leave_at,
            endpoints=self._endpoints,
            online_for=online_for,
            final=final,
        )
        if self._scope is not None:
            self._scope.cancel()
