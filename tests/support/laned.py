"""A link with lanes in memory: the test is its peer, and decides how much room each lane has."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import trio
from trio.testing import wait_all_tasks_blocked

from gateway._framing import DispatchTable, Frame, FrameDecoder
from gateway.core.link import IncomingStream, LanedReceiver, LinkClosed, OutgoingStream, Receiver
from gateway.protocol.messages import AuthRequest, AuthResponse, Message, decode, encode
from gateway.protocol.types import Lane, MsgType

PLENTY = 1 << 30


class MemoryLanes:
    """A LanedLink, and what its client sees and does."""

    transport = "quic"
    address = "192.0.2.1"
    lanes = True
    prefix: Callable[[int], bytes] | None = None

    def __init__(self, *, early: bool = False, ticket: str = "", issued: tuple[str, ...] = (), datagrams: int = 1200):
        self.early = early
        self.ticket = ticket
        self.max_datagram = datagrams
        self.room = {Lane.CONTROL: PLENTY, Lane.MESSAGE: PLENTY}
        """Bytes that the client still takes on each lane."""
        self.datagrams_lost = False
        self.datagrams: list[Message] = []
        self.goodbye: tuple[int, str] | None = None
        self.parting = 0, ""
        self.paused = False
        self.aborted = trio.Event()
        self._issued = issued
        self._receiver: LanedReceiver | None = None
        self._unsent = {Lane.CONTROL: b"", Lane.MESSAGE: b""}
        self._drained = trio.Event()
        self._said: dict[Lane, list[Frame]] = {Lane.CONTROL: [], Lane.MESSAGE: []}
        self._decoders = {lane: FrameDecoder(self._table(said), 1 << 20) for lane, said in self._said.items()}
        self._seq = 0

    # -- the client's side ---------------------------------------------------------------------------------

    async def told(self) -> LanedReceiver:
        """Who is told, once the connection runs."""
        while self._receiver is None:
            await wait_all_tasks_blocked()
        return self._receiver

    async def say(self, message: Message, lane: Lane = Lane.CONTROL) -> int:
        """Send one frame on a lane; returns its seq."""
        self._seq += 1
        (await self.told()).feed(lane, encode(message, seq=self._seq, timestamp=1))
        return self._seq

    async def open_messages(self) -> None:
        """Open the message lane."""
        (await self.told()).lane_opened(Lane.MESSAGE)

    async def log_in(self, user: int, device: str = "phone", resume_ticket: str = "") -> AuthResponse:
        """Say Auth, and what is answered."""
        request = AuthRequest(token=str(user), device_id=device, platform="ios", resume_ticket=resume_ticket)
        await self.say(request)
        await wait_all_tasks_blocked()
        answer = self.heard().pop()
        assert isinstance(answer, AuthResponse)
        return answer

    async def ended(self) -> int:
        """Wait for the end; the code that was told."""
        await self.aborted.wait()
        assert self.goodbye is not None
        return self.goodbye[0]

    async def confirm(self) -> None:
        """The handshake is complete."""
        receiver = await self.told()
        self.early = False
        receiver.confirmed()
        await wait_all_tasks_blocked()

    def heard(self, lane: Lane = Lane.CONTROL) -> list[Message]:
        """What the node said on a lane since the last call."""
        said = [decode(frame) for frame in self._said[lane]]
        self._said[lane].clear()
        return said

    def take(self, lane: Lane) -> None:
        """Make room again."""
        self.room[lane] = PLENTY
        data, self._unsent[lane] = self._unsent[lane], b""
        self._deliver(lane, data)
        if lane == Lane.CONTROL:
            self._drained.set()
        elif self._receiver is not None:
            self._receiver.writable(lane)

    # -- the node's side -----------------------------------------------------------------------------------

    def attach(self, receiver: Receiver) -> None:
        self._receiver = cast("LanedReceiver", receiver)

    async def open(self) -> None:
        await trio.lowlevel.checkpoint()

    def send(self, data: bytes) -> bool:
        return self.send_on(Lane.CONTROL, data)

    def send_on(self, lane: int, data: bytes) -> bool:
        lane = Lane(lane)
        fits = data[: self.room[lane]]
        self.room[lane] -= len(fits)
        self._deliver(lane, fits)
        self._unsent[lane] += data[len(fits) :]
        return not self._unsent[lane]

    @property
    def unsent(self) -> int:
        return self.unsent_on(Lane.CONTROL)

    def unsent_on(self, lane: int) -> int:
        return len(self._unsent[Lane(lane)])

    async def flush(self) -> None:
        while self._unsent[Lane.CONTROL]:
            self._drained = trio.Event()
            await self._drained.wait()

    def send_datagram(self, frame: bytes) -> bool:
        if self.datagrams_lost or len(frame) > self.max_datagram:
            return False
        found: list[Frame] = []
        FrameDecoder(self._table(found), 1 << 20).feed(None, frame)
        self.datagrams.extend(map(decode, found))
        return True

    def open_stream(self) -> OutgoingStream:
        raise LinkClosed("no streams here")

    def tickets(self) -> tuple[str, ...]:
        return self._issued

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False

    async def say_goodbye(self, code: int, reason: str) -> None:
        self.goodbye = code, reason
        await trio.lowlevel.checkpoint()

    def abort(self) -> None:
        self._receiver = None
        self.aborted.set()

    def _deliver(self, lane: Lane, data: bytes) -> None:
        self._decoders[lane].feed(None, data)

    @staticmethod
    def _table(said: list[Frame]) -> DispatchTable:
        table = DispatchTable(lambda _, code, msg_type, seq: None)
        for kind in MsgType:
            table.on(kind, lambda _, frame: said.append(frame))
        return table


class Stream:
    """An ephemeral stream that a client opened."""

    def grant(self, count: int) -> None: ...

    def stop(self, code: int) -> None: ...


_: type[IncomingStream] = Stream
