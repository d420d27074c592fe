"""The WebSocket link: the upgrade, then RFC 6455 over a socket or TLS link. No message of ours, no listening.

It is a `Receiver` for the link below and a `Link` for the Connection above.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Final

import trio

from gateway.core.link import Link, LinkClosed, Receiver
from gateway.protocol.codes import Code
from gateway.protocol.websocket import Intake, ServerCodec, close_frame, close_frame_for, server_header
from gateway.transports.settings_websocket import WebSocketSettings
from gateway.transports.upgrade import Accepted, Refused, Upgrade, UpgradeRules

REFUSING: Final = 1.0
"""Seconds that a refused client has to take its answer."""
PONG_ROOM: Final = 65_536
"""Unsent bytes over which pings are not answered: who does not read gets no more of them."""


class WebSocketTerms:
    """What all WebSocket links of one listener share: the rules of the upgrade and the bounds on frames.

    Raises:
        ValueError: settings that cannot be followed.
    """

    def __init__(self, settings: WebSocketSettings, *, messages: bool = False) -> None:
        """`messages` is for applications that want whole messages: `feed` is called with each, its opcode as lane."""
        self.rules = UpgradeRules(settings)
        self.max_message = settings.max_message
        self.max_fragments = settings.max_fragments
        self.ping_rate = settings.ping_rate
        self.ping_burst = settings.ping_burst
        self.messages = messages

    def codec(self) -> ServerCodec:
        """A codec for one link that has been upgraded."""
        return ServerCodec(
            self.max_message, max_fragments=self.max_fragments, messages=self.messages, credit=self.ping_burst
        )


class WebSocketLink(Intake):
    """A byte stream of frames in binary WebSocket messages. What arrives is passed on as it comes, never gathered.

    Told to the receiver beyond `feed`: `close(0)` when the peer said Close (its Close is answered by
    `say_goodbye`, behind everything that waits to be sent), `close(1002 ...)` when it broke the rules.
    """

    __slots__ = (
        "_below",
        "_opening",
        "_parted",
        "_refilled_at",
        "_terms",
        "address",
        "send",
    )

    transport = "websocket"
    prefix: Callable[[int], bytes] | None = staticmethod(server_header)
    send: Callable[[bytes], bool]
    """The link's below, called without a step between: what is sent has its header already."""

    def __init__(self, below: Link, terms: WebSocketTerms) -> None:
        self.address = below.address
        self.send = below.send
        self._below = below
        self._terms = terms
        self.receiver: Receiver | None = None
        self.codec: ServerCodec | None = None
        self._opening: _Opening | None = _Opening(Upgrade(terms.rules, below.address))
        self._refilled_at = 0.0
        self._parted: trio.Event | None = None

    # -- as a Link -----------------------------------------------------------------------------------------

    def attach(self, receiver: Receiver) -> None:
        """Say who is told."""
        self.receiver = receiver
        self._below.attach(self)

    async def open(self) -> None:
        """Bring up what is below, then upgrade.

        Raises:
            LinkClosed: the peer went away or its request was refused, which it has been told.
        """
        opening = self._opening
        assert opening is not None, "a link is opened once"
        await self._below.open()
        await opening.decided.wait()
        verdict = opening.verdict
        if verdict is None:
            raise LinkClosed(opening.lost)
        if isinstance(verdict, Refused):
            with trio.move_on_after(REFUSING):
                if not self._below.send(verdict.response):
                    await self._below.flush()
                await self._below.say_goodbye(0, "")
            raise LinkClosed(f"{verdict.status}: {verdict.reason}")
        self.address = verdict.address
        if not self._below.send(verdict.response):
            await self._below.flush()
        # Nothing waits from here on: what came early is handled, then the caller goes on, then the next bytes come.
        self.codec = self._terms.codec()
        self._refilled_at = trio.current_time()
        self._opening = None
        early = b"".join(opening.early)
        if early:
            self.feed(0, early)
        if opening.lost:
            raise LinkClosed(opening.lost)

    @property
    def unsent(self) -> int:
        """Bytes kept because the socket would not take them."""
        return self._below.unsent

    async def flush(self) -> None:
        """Wait until the socket has taken everything."""
        await self._below.flush()

    def pause(self) -> None:
        """Stop reading."""
        self._below.pause()

    def resume(self) -> None:
        """Read again."""
        self._below.resume()

    async def say_goodbye(self, code: int, reason: str) -> None:
        """Send our Close, or answer the peer's, and wait until the peer has closed too."""
        codec = self.codec
        with suppress(LinkClosed):
            if codec is not None:
                answered = codec.ended
                codec.close()
                if not answered:
                    self._parted = trio.Event()
                    self._below.resume()
                last = close_frame_for(code, reason) if codec.peer_close is None else close_frame(codec.peer_close[0])
                if not self._below.send(last):
                    await self._below.flush()
                if self._parted is not None:
                    await self._parted.wait()
            await self._below.say_goodbye(code, reason)

    def abort(self) -> None:
        """Free the descriptor at once."""
        self._below.abort()
        self.receiver = self.codec = None

    # -- as a Receiver: `feed` is Intake's ----------------------------------------------------------------------

    def close(self, code: int, reason: str = "") -> None:
        """What is below wants to end."""
        if self.receiver is not None:
            self.receiver.close(code, reason)

    def lost(self, reason: str = "") -> None:
        """What is below has ended."""
        if self._opening is not None:
            self._opening.lost = reason or "lost"
            self._opening.decided.set()
            return
        if self._parted is not None:
            self._parted.set()
        if self.receiver is not None:
            self.receiver.lost(reason)

    def arrived(self, data: bytes) -> None:
        """Bytes before the upgrade is done."""
        opening = self._opening
        if opening is None or isinstance(opening.verdict, Refused):
            return
        if opening.verdict is not None:
            opening.early.append(data)
            return
        opening.verdict = opening.upgrade.feed(data)
        if opening.verdict is not None:
            if isinstance(opening.verdict, Accepted):
                opening.early.append(opening.verdict.rest)
            opening.decided.set()

    def attend(self, codec: ServerCodec, payload: bytes) -> None:
        """More than payload came: answer pings, hand up what there is, then act on the end."""
        self._refill(codec)
        answers = codec.answers()
        if answers:
            self._answer(answers)
        if self._parted is not None:
            if codec.ended:
                self._parted.set()
            return
        receiver = self.receiver
        if receiver is None:
            return
        if payload:
            receiver.feed(0, payload)
        elif self._terms.messages:
            for opcode, message in codec.messages():
                receiver.feed(opcode, message)
        if codec.ended:
            # Whatever else comes is for nobody; the kernel may keep it until the goodbye.
            self._below.pause()
            code, reason = codec.failure or (0, "closed by the peer")
            receiver.close(code, reason)

    def _answer(self, pongs: bytes) -> None:
        """Send pongs behind what is unsent, where no frame is cut; give up on a peer that reads nothing."""
        unsent = self._below.unsent
        if unsent > PONG_ROOM or self._below.send(pongs) or unsent:
            return
        # Nobody flushes what the core did not send.
        if self.receiver is not None:
            self.receiver.close(Code.SLOW_CONSUMER, "pongs are not being read")

    def _refill(self, codec: ServerCodec) -> None:
        """Give credit for the time since the last control frame."""
        now = trio.current_time()
        earned = int((now - self._refilled_at) * self._terms.ping_rate)
        if earned > 0:
            codec.credit = min(self._terms.ping_burst, codec.credit + earned)
            self._refilled_at = now


class _Opening:
    """What is needed until the upgrade is done, and dropped then."""

    __slots__ = ("decided", "early", "lost", "upgrade", "verdict")

    def __init__(self, upgrade: Upgrade) -> None:
        self.upgrade = upgrade
        self.verdict: Accepted | Refused | None = None
        self.decided = trio.Event()
        self.early: list[bytes] = []
        self.lost = ""
