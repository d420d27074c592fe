"""One client's life on a node: three tasks in a nursery, and what is pushed through between them.

Bytes come in by `feed`, frames go out by `push`; both are synchronous. `close` is the one way out. No message
kind is known here (that is `dispatcher`), nor how a session is opened (`login`).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

from gateway._framing import Frame, FrameDecoder, Uplink, build_error, join_frames
from gateway.core.limits import ErrorBudget
from gateway.core.link import Lane, Link, LinkClosed
from gateway.core.outbox import Item, Outbox, SignalKey, Verdict
from gateway.core.wake import Wake
from gateway.protocol.codes import Code
from gateway.protocol.messages import AuthResponse, Kick, encode

if TYPE_CHECKING:
    from gateway.core.hub import Hub
    from gateway.core.session import Session

log = logging.getLogger("gateway.connection")

SLICE = 128 * 1024
"""Bytes of frames joined into one write: bounds the copy, and one WebSocket message, whatever waits."""
CLOSING = 2.0
"""Seconds that a close may take: to flush what waits, say why, and hear the peer's answer."""
RATE_MEMORY = 2.0
"""Seconds of staying under the rate after which an earlier excess is forgotten."""


class Connection(Uplink):
    """A Link, a decoder, an Outbox, once authenticated a Session, and the three tasks that serve them."""

    __slots__ = (
        "__weakref__",
        "_brakes",
        "_code",
        "_deadline",
        "_held",
        "_marked",
        "_over_since",
        "_prefix",
        "_quiet",
        "_reason",
        "_resume_at",
        "_scope",
        "_seq",
        "_stuck",
        "_throttled_at",
        "_timer",
        "_to_read",
        "_to_write",
        "_told",
        "address",
        "errors",
        "hub",
        "id",
        "link",
        "opened",
        "outbox",
        "provisional",
        "session",
    )

    def __init__(self, hub: Hub, link: Link, conn_id: int, now: float) -> None:
        super().__init__(FrameDecoder(hub.greeting, hub.limits.max_frame_before_auth), hub.now)
        self.hub = hub
        self.link = link
        self.id = conn_id
        self.session: Session | None = None
        self.provisional: Session | None = None
        """Whose right frames have that came before a login: early data only."""
        self.address = link.address
        """The address it is counted under; behind a proxy it is known only once the link is up."""
        self.outbox = Outbox(hub.limits.outbox_bytes)
        self.errors: ErrorBudget | None = None
        self.opened = False
        """Whether the link is up."""
        self._prefix = link.prefix
        self._seq = 1
        self._stuck = False
        self._marked = False
        self._code: int | None = None
        self._reason = ""
        self._told = False
        self._held: Frame | None = None
        self._brakes = 0
        self._quiet: trio.Event | None = None
        self._to_read = Wake()
        self._to_write = Wake()
        self._scope: trio.CancelScope | None = None
        self._timer: trio.CancelScope | None = None
        self._deadline = now + hub.login.link_timeout
        self._resume_at: float | None = None
        self._over_since: float | None = None
        self._throttled_at = 0.0

    @property
    def closing(self) -> bool:
        """Whether `close` or `lost` was called."""
        return self._code is not None

    @property
    def code(self) -> int:
        """Why it ended; 0 when the peer simply left."""
        return self._code or 0

    @property
    def lane(self) -> int:
        """By which lane the frame came that is being handled."""
        return Lane.SOLE

    @property
    def frames(self) -> int:
        """Whole frames received."""
        return self.decoder.frames

    @property
    def queued(self) -> int:
        """Items that wait to be written."""
        return len(self.outbox)

    # -- life ----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve the connection to its end. Raises nothing but trio.Cancelled; the link is aborted after it."""
        try:
            async with trio.open_nursery() as nursery:
                self._scope = nursery.cancel_scope
                self.link.attach(self)
                nursery.start_soon(self._reader)
                nursery.start_soon(self._writer)
                if self.closing:
                    nursery.cancel_scope.cancel()
                await self._heartbeat()  # in this task: one fewer for every connection, 2 KB
        finally:
            self._scope = self._timer = None
            if self._quiet is not None:
                self._quiet.set()
            self.decoder.close()
            self._discard()
            self.link.abort()

    async def _reader(self) -> None:
        """Brings the link up, then handles the frames that have to wait for something."""
        try:
            await self.link.open()
            self.opened = True
            self.hub.arrived(self)
            if not self.closing:
                self._arm(trio.current_time() + self.hub.login.auth_timeout)
            while True:
                await self._to_read.wait()
                frame, self._held = self._held, None
                if frame is not None and not self.closing:
                    await self.hub.handle_waiting(self, frame)
                    del frame  # it pins its bytes, the token among them
                    self._go_on()
        except LinkClosed as reason:
            self.lost(str(reason))
        except Exception:
            self.fault()

    async def _writer(self) -> None:
        """The only task that waits for the socket to take bytes."""
        try:
            while True:
                await self._to_write.wait()
                if self._stuck:
                    await self.link.flush()
                    self._stuck = False
                self.flush()
                if self._quiet is not None and not self._stuck:
                    self._quiet.set()
                if self._code is not None and not self._stuck:
                    break
            if self.opened:
                self._last_words(self._code, self._reason)
                if self._stuck:
                    await self.link.flush()
                await self.link.say_goodbye(self._code, self._reason)
        except LinkClosed as reason:
            self.lost(str(reason))
        except Exception:
            self.fault()
        self._end()

    async def _heartbeat(self) -> None:
        """Enforces every deadline with one timer: link, auth, heartbeat, token, rate, close."""
        try:
            while True:
                with trio.CancelScope(deadline=self._deadline) as self._timer:
                    await trio.sleep_forever()
                self._deadline = self._overdue(trio.current_time())
        except Exception:
            self.fault()

    def _arm(self, deadline: float) -> None:
        self._deadline = deadline
        if self._timer is not None:
            self._timer.deadline = deadline

    # -- resumption: for links that have it ------------------------------------------------------------------

    def resume_ticket(self, session: Session) -> str:
        """What lets the client's next connection speak for this session before it logs in; empty: nothing."""
        return ""

    def resumes(self, user_id: int, device_id: str, resume_ticket: str) -> bool:
        """Whether a login fits what the connection said early."""
        return True

    def rearm(self) -> None:
        """The session has come: from now on its deadlines count."""
        self._arm(self._overdue(trio.current_time()))

    def _overdue(self, now: float) -> float:
        """The timer fired: act on whatever is due, and say when to look again."""
        session = self.session
        if self._code is not None or not self.opened:
            self._code = self._code if self._code is not None else Code.AUTH_TIMEOUT
            self.deaf = True
            self._end()
        elif session is None:
            self.close(Code.AUTH_TIMEOUT, "no Auth in time")
        elif session.expired(now):
            self.close(Code.TOKEN_EXPIRED, "the token has run out")
        elif self._resume_at is not None:
            return min(session.expires, self._throttled(now, self._resume_at))
        elif now >= (silent := self.seen + self.hub.heartbeat.timeout):
            self.close(Code.HEARTBEAT_TIMEOUT, "no frame in time")
        else:
            return min(session.expires, silent)
        return self._deadline

    def _throttled(self, now: float, resume_at: float) -> float:
        """Reading is paused for the rate: go on, give up, or look again at the returned time."""
        self.seen = now  # what is not being read is not the client's silence
        give_up = (now if self._over_since is None else self._over_since) + self.hub.limits.rate_patience
        if now >= give_up:
            self.close(Code.RATE_LIMITED, "over the message rate for too long")
            return self._deadline
        if now >= resume_at:
            self._resume_at, self._throttled_at = None, now
            self._go_on()
            if self._code is not None:
                return self._deadline
        if self._resume_at is None:
            return now + self.hub.heartbeat.timeout
        return min(self._resume_at, give_up)

    # -- bytes in ------------------------------------------------------------------------------------------

    def handed_over(self, seconds: float, count: int) -> None:
        """Of Uplink: so many messages were given to the bus by one feed, and how long it took."""
        self.hub.metrics.handed_over(seconds, count)

    def hold(self, frame: Frame) -> None:
        """Give a frame to the reader task; nothing behind it is read or handled before that is done."""
        self._held = frame
        self.decoder.paused = True
        self.link.pause()
        self._to_read.wake()

    def throttle(self, now: float, wait: float) -> None:
        """The user is over the message rate: read no more for `wait` seconds."""
        if self._over_since is None or now - self._throttled_at > RATE_MEMORY:
            self._over_since = now
            self.hub.metrics.throttled += 1
        self._throttled_at = now
        self._resume_at = now + wait
        self.decoder.paused = True
        self.link.pause()
        if self._resume_at < self._deadline:
            self._arm(self._resume_at)

    def brake(self) -> None:
        """Read no more until as many `release` have come: somebody cannot take so much so fast."""
        self._brakes += 1
        self.decoder.paused = True
        self.link.pause()

    def release(self) -> None:
        """Take back one `brake`."""
        self._brakes -= 1
        self._go_on()

    def _go_on(self) -> None:
        """Handle what was retained while paused, then read again, unless that paused it once more."""
        if self._code is not None or self._held is not None or self._resume_at is not None or self._brakes:
            return
        self.decoder.paused = False
        self.feed(0, b"")
        if self._code is None and not self.decoder.paused:
            self.link.resume()

    # -- frames out ----------------------------------------------------------------------------------------

    def reply(self, frames: bytes) -> None:
        """Send encoded frames behind whatever waits: at once when nothing does."""
        if self._stuck or self.outbox.waiting:
            if self.outbox.push(frames, self.link.unsent) is Verdict.OVERFLOW:
                self.close(Code.SLOW_CONSUMER, "replies are not being read")
                return
            self.hub.metrics.replies_queued += 1
            self.flush()
            return
        prefix = self._prefix
        if not self.link.send(frames if prefix is None else prefix(len(frames)) + frames):
            self._wait_for_room()

    def push(self, item: Item, key: SignalKey | None = None) -> Verdict:
        """Queue one frame for the next flush. `key` marks a Signal: conflated, dropped when there is no room.

        OVERFLOW has closed the connection with 4303.
        """
        if self._code is not None:
            return Verdict.DROPPED
        unsent = self.link.unsent if self._stuck else 0
        if key is not None:
            verdict = self.outbox.push_signal(key, item, unsent)
        else:
            verdict = self.outbox.push(item, unsent)
            if verdict is Verdict.OVERFLOW:
                self.close(Code.SLOW_CONSUMER, "messages are not being read")
                return verdict
        if not self._marked and not self._stuck:
            self._marked = True
            self.hub.flusher.mark(self)
        return verdict

    def flush(self) -> None:
        """Write what waits until the socket is full; then the writer task goes on."""
        self._marked = False
        while not self._stuck and self.outbox.waiting:
            items = self.outbox.take(SLICE)
            self.hub.metrics.written += len(items)
            self._send(items)

    def _send(self, items: list[Item]) -> None:
        data, self._seq = join_frames(items, self._seq, self._prefix)
        if not self.link.send(data):
            self._wait_for_room()

    async def wait_quiet(self) -> None:
        """Return when nothing waits to be written: for what gives way to everything else. The caller holds a deadline.

        Raises:
            LinkClosed: the connection is ending.
        """
        await trio.lowlevel.checkpoint()
        while not self.closing and (self._stuck or self.outbox.waiting):
            if not self._stuck:
                self.flush()
                continue
            if self._quiet is None or self._quiet.is_set():
                self._quiet = trio.Event()
            await self._quiet.wait()
        if self.closing:
            raise LinkClosed("the connection is ending")

    def _wait_for_room(self) -> None:
        """The socket is full: the writer task goes on."""
        self._stuck = True
        self._to_write.wake()

    # -- the way out ---------------------------------------------------------------------------------------

    def close(self, code: int, reason: str = "", *, told: bool = False) -> None:
        """End the connection: flush what waits, say `code` and why, release everything, within two seconds.

        `told` says that the frame which tells the code is among the replies already. Idempotent.
        """
        if self._code is not None:
            return
        self._code = code
        self.deaf = True
        self._reason = reason
        self._told = told or code < Code.MALFORMED_FRAME
        if code == Code.SLOW_CONSUMER:
            self._discard()  # Logic has what it stored; room for the reason counts more
        self.decoder.close()
        self._arm(trio.current_time() + CLOSING)
        self._to_write.wake()

    def lost(self, reason: str = "") -> None:
        """Receiver: the peer is gone; nothing more can be said."""
        if self._code is None:
            self._code = Code.OK
            self.deaf = True
            self._reason = reason
        self._end()

    def fault(self) -> None:
        """An exception of ours, being handled now: it ends this connection and no other."""
        log.exception("connection_fault", extra={"conn": self.id})
        self.hub.metrics.faults += 1
        if self._code is None:
            self.close(Code.INTERNAL_ERROR, "internal error")
        else:
            self._end()

    def _discard(self) -> None:
        self.hub.metrics.discarded += len(self.outbox)
        self.outbox.clear()

    def _end(self) -> None:
        if self._scope is not None:
            self._scope.cancel()

    def _last_words(self, code: int, reason: str) -> None:
        """The frame that tells why: Kick to a session, AuthAck or Error to whoever has none."""
        if self._told:
            return
        now = self.hub.wall_ms()
        if self.session is not None:
            kick = Kick(code=code, message=reason, device_id=self.session.device_id, platform=self.session.platform)
            frame = encode(kick, seq=self._seq, timestamp=now)
        elif 4100 <= code < 4200:
            frame = encode(AuthResponse(code=code, message=reason, server_time=now), timestamp=now)
        else:
            frame = build_error(0, now, code, reason)
        self._send([frame])
