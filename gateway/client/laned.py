"""A Connection over a link with lanes: two writers, a decoder for each lane, datagrams, streams of files.

Control, messages and datagrams know nothing of each other's order; what depends on order is only ever within one.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final

import trio

from gateway._framing import HEADER, DispatchTable, FrameDecoder, build_heartbeat
from gateway.client import frames
from gateway.client.connection import Connection
from gateway.client.journal import Journal, wall_ms
from gateway.client.transport import IncomingStream, LanedTransport, StreamRefused, TransportFailed
from gateway.protocol.codes import Code
from gateway.protocol.messages import AuthRequest, AuthResponse, Message, encode
from gateway.protocol.types import Lane, MsgType

PATIENCE: Final = 3
"""A heartbeat's datagram may be lost: after a third of `reply_timeout` the same goes by control."""
STREAMS: Final = 16
"""Ephemeral streams of the server that are taken at a time; further ones are refused."""


def _ignore(connection: Connection, code: int, msg_type: int, seq: int) -> None:
    """What is wrong with a datagram ends nothing: it is dropped."""


def _datagrams() -> DispatchTable:
    table = DispatchTable(_ignore)
    table.on(MsgType.HEARTBEAT, frames.on_heartbeat)
    table.on(MsgType.SIGNAL, frames.on_signal)
    return table


DATAGRAMS: Final = _datagrams()


class LanedConnection(Connection):
    """`Connection` whose own decoder and queue are the control lane's."""

    def __init__(self, transport: LanedTransport, journal: Journal, request: AuthRequest, now: float) -> None:
        super().__init__(transport, journal, request, now, first_seq=transport.early_seq)
        self._lanes = transport
        self._messages = FrameDecoder(frames.TABLE, journal.settings.max_frame)
        self._datagrams = FrameDecoder(DATAGRAMS, journal.settings.max_frame)
        self._writers = 2
        self._remind_at = math.inf

    @property
    def lanes(self) -> LanedTransport:
        """The link: for streams, and for changing the address."""
        return self._lanes

    def _tasks(self) -> Sequence[Callable[[], Awaitable[None]]]:
        return (self._read, self._write, self._write_messages, self._keep, self._catch_up, self._take_streams)

    # -- bytes ---------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        while self._ending is None:
            lane, data = await self._lanes.receive_from()
            self._received_at = trio.current_time()
            self.journal.bytes_in += len(data)
            if lane == Lane.CONTROL:
                self._decoder.feed(self, data)
            elif lane == Lane.MESSAGE:
                self._messages.feed(self, data)
            else:
                self._datagram(data)

    def _datagram(self, data: bytes) -> None:
        if len(data) < HEADER or int.from_bytes(data[:4], "big") != len(data) - HEADER:
            return
        self._datagrams.feed(self, data)
        if self._datagrams.closed:
            self._datagrams = FrameDecoder(DATAGRAMS, self._settings.max_frame)

    async def _write(self) -> None:
        await self._pour(self._lanes.send_all, partial(self._batch, messages=False))

    async def _write_messages(self) -> None:
        await self._pour(partial(self._lanes.send_on, Lane.MESSAGE), partial(self._batch, control=False))

    def _poured(self) -> None:
        self._writers -= 1
        if not self._writers:
            super()._poured()

    def signal(self, message: Message) -> bool:
        """By datagram where it fits; there is no answer, and it may be lost."""
        if not self.online:
            return False
        frame = encode(message, seq=self.next_seq(), timestamp=wall_ms())
        if len(frame) <= self._lanes.max_datagram:
            return self._datagram_sent(frame)
        return self._expendable(frame)

    def _datagram_sent(self, frame: bytes) -> bool:
        sent = self._lanes.send_datagram(frame)
        self.journal.bytes_out += len(frame) if sent else 0
        return sent

    def logged_in(self, answer: AuthResponse) -> None:
        """Also: what the server gave to resume this session is kept."""
        super().logged_in(answer)
        if self.online:
            self._lanes.remember(answer.resume_ticket, answer.user_id)

    # -- heartbeats ----------------------------------------------------------------------------------------

    def _send_heartbeat(self, frame: bytes) -> None:
        if self._datagram_sent(frame):
            self._remind_at = min(self._remind_at, trio.current_time() + self._settings.reply_timeout / PATIENCE)
        else:
            self.control(frame)

    def _remind(self, now: float) -> float:
        seq, _ = self.heartbeat
        if not seq:
            self._remind_at = math.inf
        elif now >= self._remind_at:
            self._remind_at = math.inf
            self.control(build_heartbeat(seq, wall_ms()))
        return self._remind_at

    def answered(self, seq: int) -> None:
        """A heartbeat's answer says nothing of the message lane; that the server's transport has it all does."""
        if not self._lanes.unacknowledged(Lane.MESSAGE):
            self.journal.acknowledgements.proven(self._seq + 1)

    # -- streams -------------------------------------------------------------------------------------------

    async def _take_streams(self) -> None:
        """Hand each ephemeral stream of the server to whoever takes them; refuse it when nobody does."""
        async with trio.open_nursery() as nursery:
            await self._until_failure(partial(self._accept, nursery))

    async def _accept(self, nursery: trio.Nursery) -> None:
        while True:
            stream = await self._lanes.accept_stream()
            if self.journal.take_stream is None or not self.online or len(nursery.child_tasks) >= STREAMS:
                stream.stop(Code.TOO_MANY_STREAMS)
            else:
                nursery.start_soon(self._one_stream, self.journal.take_stream, stream)

    async def _one_stream(self, take: Callable[[IncomingStream], Awaitable[None]], stream: IncomingStream) -> None:
        try:
            await take(stream)
        except (StreamRefused, TransportFailed):  # the stream's end; the link's is told elsewhere
            pass
        finally:
            stream.stop(Code.OK)
