"""`https://`: WebTransport over HTTP/3. The lanes on streams of a session; everything else is as on plain QUIC."""

from __future__ import annotations

from typing import Final

import trio
from aioquic.quic.events import DatagramFrameReceived, QuicEvent, StopSendingReceived, StreamDataReceived, StreamReset

from gateway.client.endpoint import Endpoint
from gateway.client.http3 import Http3Client
from gateway.client.quic import INCOMING, QuicTransport, open_at_any
from gateway.client.quic_lanes import Framing
from gateway.client.quic_pump import Address
from gateway.client.tickets import Resumption
from gateway.client.transport import LanedTransport, StreamRefused, TransportFailed
from gateway.client.trust import Trust
from gateway.protocol.codes import Code
from gateway.protocol.http3 import H3Code, H3Failure, from_h3, to_h3

CRITICAL: Final = 3
"""Unidirectional streams that HTTP/3 itself needs."""
RETRIED_STATUS: Final = frozenset({408, 425, 429})
OWN_CODES: Final = range(4000, 5000)


class WebTransportTransport(QuicTransport):
    """One session; ends with its connection, of which it is the only one."""

    alpn = "h3"
    incoming_streams = INCOMING + CRITICAL

    def __init__(
        self, endpoint: Endpoint, address: tuple[int, Address], trust: Trust, resume: Resumption, nursery: trio.Nursery
    ) -> None:
        super().__init__(endpoint, address, trust, resume, nursery)
        authority = endpoint.authority if endpoint.port != 443 else endpoint.authority.rpartition(":")[0]
        self._h3 = Http3Client(self, authority, endpoint.path)
        self._ours: set[int] = set()
        """Unidirectional streams of the server that turned out to be of the session."""

    # -- opening -------------------------------------------------------------------------------------------

    def _open_early(self) -> None:
        """Nothing: a CONNECT that may be replayed is not answered before the handshake is complete."""

    async def _up(self) -> None:
        while not self._pump.handshaken:
            await self._lanes.turn()
        self._h3.start()
        self._pump.touch()
        while not self._h3.status:
            await self._lanes.turn()
        if self._h3.status != 200:
            raise self._refused()
        self._lanes.framing = Framing(
            bidirectional=self._h3.prefix,
            unidirectional=self._h3.stream_prefix,
            datagram=self._h3.datagram_prefix,
            to_wire=to_h3,
            from_wire=lambda code: from_h3(code) or 0,
        )
        self._lanes.open()

    def _refused(self) -> TransportFailed:
        status, body = self._h3.status, self._h3.body.decode("utf-8", "replace").strip()
        final = 400 <= status < 500 and status not in RETRIED_STATUS
        said = f"{self._endpoint.url} refused the session: HTTP {status}" + (f" {body}" if body else "")
        return TransportFailed(said, final=final)

    # -- what comes ----------------------------------------------------------------------------------------

    def carried(self, event: QuicEvent) -> None:
        """Ours go to the lanes without their header; the rest is HTTP/3's."""
        try:
            self._sorted(event)
        except H3Failure as failure:
            self._pump.close(failure.code, failure.reason)
            return
        parting = self._h3.parting
        if parting is not None:
            code, reason = parting
            told = TransportFailed(reason or "connection lost", code=code if code in OWN_CODES else 0)
            self._pump.close(H3Code.NO_ERROR, "", told)

    def _sorted(self, event: QuicEvent) -> None:
        if isinstance(event, StreamDataReceived):
            self._data(event.stream_id, event.data, event.end_stream)
        elif isinstance(event, DatagramFrameReceived):
            data = self._h3.datagram(event.data)
            if data is not None:
                self._lanes.datagram(data)
        elif isinstance(event, StreamReset) and not self._is_of_session(event.stream_id):
            self._h3.was_reset(event.stream_id)
        elif isinstance(event, StopSendingReceived) and event.stream_id == self._h3.session_id:
            self._h3.was_stopped()
        else:
            self._lanes.handle(event)
        if isinstance(event, StreamReset):
            self._ours.discard(event.stream_id)

    def _is_of_session(self, stream_id: int) -> bool:
        """Whether it is a stream inside the session; else it is the CONNECT's or one of HTTP/3's own."""
        return stream_id in self._ours if stream_id & 1 else stream_id != self._h3.session_id

    def _data(self, stream_id: int, data: bytes, end: bool) -> None:
        if stream_id == self._h3.session_id:
            self._took(stream_id, len(data))
            self._h3.connect_received(data, end)
        elif stream_id & 1 and stream_id not in self._ours:
            rest = self._h3.opened(stream_id, data, end)
            self._took(stream_id, len(data) - len(rest or b""))
            if rest is not None:
                self._ours.add(stream_id)
                self._lanes.received(stream_id, rest, end)
        else:
            self._lanes.received(stream_id, data, end)
        if end:
            self._ours.discard(stream_id)

    def _took(self, stream_id: int, count: int) -> None:
        if count:
            self._lanes.taken(stream_id, count)

    # -- the wire of HTTP/3 ----------------------------------------------------------------------------------

    def new_stream(self, *, unidirectional: bool) -> int:
        """A new stream of ours."""
        return self._pump.engine.get_next_available_stream_id(is_unidirectional=unidirectional)

    def put(self, stream_id: int, data: bytes, *, end: bool = False) -> None:
        """Bytes of a stream."""
        try:
            self._lanes.send_stream(stream_id, data, end=end)
        except (StreamRefused, TransportFailed):
            return  # what ended it comes as an event of its own

    def refuse(self, stream_id: int, code: int) -> None:
        """Read no more of a stream."""
        self._pump.engine.abandon_reading(stream_id, code)

    # -- the end -------------------------------------------------------------------------------------------

    async def aclose(self) -> None:
        """Wait until the server has what was written, end the session, and the connection after it."""
        try:
            await self._lanes.drained()
            self._h3.close(Code.OK, "")
            while self._pump.failure is None and self._pump.engine.unacknowledged(self._h3.session_id):
                await self._pump.changed.wait()
        finally:
            self._pump.close(H3Code.NO_ERROR, "")


async def open_webtransport(
    endpoint: Endpoint, trust: Trust, resume: Resumption, nursery: trio.Nursery
) -> LanedTransport:
    """Connect and open a session. The caller holds a deadline.

    Raises:
        TransportFailed: nobody there, not trusted, or the session was refused.
    """
    return await open_at_any(WebTransportTransport, endpoint, trust, resume, nursery)
