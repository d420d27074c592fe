"""A small QUIC server for tests of the client: aioquic as it is, on one UDP socket, scripted by the test.

Speaks the lanes of protocol section 4, remembers what came on which, and can misbehave. Not hardened, not fast.
"""

from __future__ import annotations

import datetime
import hashlib
import socket
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import trio
from aioquic._buffer import Buffer
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import (
    ConnectionIdIssued,
    DatagramFrameReceived,
    HandshakeCompleted,
    QuicEvent,
    StreamDataReceived,
    StreamReset,
)
from aioquic.quic.packet import pull_quic_header
from aioquic.tls import SessionTicket
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from gateway._framing import DispatchTable, Frame, FrameDecoder, build_heartbeat
from gateway.protocol.messages import Message, decode, encode
from gateway.protocol.types import Lane, MsgType

M = TypeVar("M", bound=Message)


def make_certificate(name: str = "localhost") -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """Self-signed, P-256."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - datetime.timedelta(days=1))
    builder = builder.not_valid_after(now + datetime.timedelta(days=5))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    return builder.sign(key, hashes.SHA256()), key


class ServerPeer:
    """The server's end of one connection."""

    def __init__(self, server: QuicServer, quic: QuicConnection, address: Any) -> None:
        self.server = server
        self.quic = quic
        self.address = address
        self.addresses = [address]
        self.frames: dict[int, deque[Frame]] = {Lane.CONTROL: deque(), Lane.MESSAGE: deque(), Lane.EPHEMERAL: deque()}
        """What came, by lane; EPHEMERAL has what came by datagram."""
        self.streams: dict[int, bytearray] = {}
        """Ephemeral streams of the client, without their lane byte."""
        self.ended: set[int] = set()
        self.resets: dict[int, int] = {}
        self.early: list[int] = []
        """Types of the frames that came before the handshake was complete."""
        self.resumed = False
        self.complete = False
        self.closed: tuple[int, str] | None = None
        self.beats: dict[int, int] = {Lane.CONTROL: 0, Lane.EPHEMERAL: 0}
        self.mute_datagrams = False
        self.changed = trio.Event()
        self._lanes: dict[int, int] = {}
        self._ids: dict[int, int] = {}
        self._decoders = {lane: self._decoder(lane) for lane in self.frames}

    def _decoder(self, lane: int) -> FrameDecoder:
        table = DispatchTable(lambda *_: None)
        for kind in MsgType:
            table.on(kind, lambda _, frame: self._keep(lane, frame))
        return FrameDecoder(table, 1 << 20)

    def _keep(self, lane: int, frame: Frame) -> None:
        if not self.complete:
            self.early.append(frame.type)
        if frame.type != MsgType.HEARTBEAT:
            self.frames[lane].append(frame)
            return
        self.beats[lane] += 1
        if lane == Lane.CONTROL and lane in self._ids:
            self.quic.send_stream_data(self._ids[lane], build_heartbeat(frame.seq, 1))
        elif lane == Lane.EPHEMERAL and not self.mute_datagrams:
            self.quic.send_datagram_frame(build_heartbeat(frame.seq, 1))

    def handle(self, event: QuicEvent) -> None:
        if isinstance(event, HandshakeCompleted):
            self.complete = True
            self.resumed = event.session_resumed
        elif isinstance(event, DatagramFrameReceived):
            self._decoders[Lane.EPHEMERAL].feed(self, event.data)
        elif isinstance(event, StreamReset):
            self.resets[event.stream_id] = event.error_code
        elif isinstance(event, StreamDataReceived):
            self._data(event.stream_id, event.data, event.end_stream)

    def _data(self, stream_id: int, data: bytes, end: bool) -> None:
        lane = self._lanes.get(stream_id)
        if lane is None and data:
            lane = self._lanes[stream_id] = data[0]
            if lane in (Lane.CONTROL, Lane.MESSAGE):
                self._ids[lane] = stream_id
            data = data[1:]
        if lane == Lane.EPHEMERAL:
            self.streams.setdefault(stream_id, bytearray()).extend(data)
        elif lane is not None:
            self._decoders[lane].feed(self, data)
        if end:
            self.ended.add(stream_id)

    async def until(self, true: Callable[[], Any]) -> None:
        """Wait until something that came makes it so."""
        with trio.fail_after(10):
            while not true():
                await self.changed.wait()

    async def expect(self, kind: type[M], lane: int = Lane.CONTROL) -> tuple[M, int]:
        """The next message of `kind` on a lane, and its seq; what was before it is dropped."""
        frames = self.frames[lane]
        while True:
            await self.until(lambda: frames)
            frame = frames.popleft()
            message = decode(frame)
            if isinstance(message, kind):
                return message, frame.seq

    def send(self, *messages: Message, lane: int = Lane.CONTROL, seq: int = 0) -> None:
        data = b"".join(encode(each, seq=seq, timestamp=1) for each in messages)
        self.quic.send_stream_data(self._ids[lane], data)
        self.server.transmit(self)

    def send_datagram(self, message: Message) -> None:
        self.quic.send_datagram_frame(encode(message, seq=0, timestamp=1))
        self.server.transmit(self)

    def send_stream(self, data: bytes, *, end: bool = True) -> int:
        """An ephemeral stream."""
        stream_id = self.quic.get_next_available_stream_id(is_unidirectional=True)
        self.quic.send_stream_data(stream_id, bytes((Lane.EPHEMERAL,)) + data, end)
        self.server.transmit(self)
        return stream_id

    def close(self, code: int, reason: str = "") -> None:
        self.quic.close(error_code=code, reason_phrase=reason)
        self.server.transmit(self)


class QuicServer:
    """Listens. `tickets` can be emptied (no early data any more); `forget` makes it deny its connections."""

    def __init__(self, alpn: str = "im-access") -> None:
        self.certificate, key = make_certificate()
        self.sha256 = hashlib.sha256(self.certificate.public_bytes(Encoding.DER)).hexdigest()
        self.configuration = QuicConfiguration(is_client=False, alpn_protocols=[alpn], max_datagram_frame_size=65536)
        self.configuration.certificate, self.configuration.private_key = self.certificate, key
        self.tickets: dict[bytes, SessionTicket] = {}
        self.deaf = False
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.socket.bind(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.tokens: dict[bytes, bytes] = {}
        self._by_cid: dict[bytes, ServerPeer] = {}
        self._peers: list[ServerPeer] = []
        self._accepted, self._to_accept = trio.open_memory_channel[ServerPeer](100)
        self._touched = trio.Event()

    @property
    def url(self) -> str:
        return f"quic://127.0.0.1:{self.port}"

    async def accept(self) -> ServerPeer:
        """The next connection, as soon as anything of it was understood."""
        with trio.fail_after(10):
            return await self._to_accept.receive()

    def forget(self) -> None:
        """A restart: no connection is known, and whoever sends is told by a stateless reset."""
        for peer in self._peers:
            for each in peer.quic._host_cids:
                self.tokens[each.cid] = each.stateless_reset_token
        self._by_cid.clear()
        self._peers.clear()

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_time)
            while True:
                await trio.lowlevel.wait_readable(self.socket)
                data, address = self.socket.recvfrom(65536)
                if not self.deaf:
                    self._received(data, address)

    async def _keep_time(self) -> None:
        while True:
            now = trio.current_time()
            timers = [due for peer in self._peers if (due := peer.quic.get_timer()) is not None]
            with trio.move_on_at(max(min(timers, default=now + 60), now + 0.001)):
                await self._touched.wait()
            now = trio.current_time()
            for peer in tuple(self._peers):
                due = peer.quic.get_timer()
                if due is not None and due <= now:
                    peer.quic.handle_timer(now)
                    self.transmit(peer)

    def _received(self, data: bytes, address: Any) -> None:
        header = pull_quic_header(Buffer(data=data), host_cid_length=8)
        peer = self._by_cid.get(header.destination_cid)
        if peer is None:
            if data[0] & 0x80 == 0:
                token = self.tokens.get(header.destination_cid)
                if token is not None:
                    self.socket.sendto(b"\x5f" + bytes(20) + token, address)
                return
            quic = QuicConnection(
                configuration=self.configuration,
                original_destination_connection_id=header.destination_cid,
                session_ticket_fetcher=lambda name: self.tickets.pop(name, None),
                session_ticket_handler=lambda ticket: self.tickets.__setitem__(ticket.ticket, ticket),
            )
            peer = ServerPeer(self, quic, address)
            self._peers.append(peer)
            self._by_cid[header.destination_cid] = self._by_cid[quic.host_cid] = peer
            self._accepted.send_nowait(peer)
        peer.quic.receive_datagram(data, address, trio.current_time())
        if peer.address != address:
            peer.address = address
            peer.addresses.append(address)
        self.transmit(peer)

    def transmit(self, peer: ServerPeer) -> None:
        """Tell what came, and send what is to be sent."""
        while (event := peer.quic.next_event()) is not None:
            if isinstance(event, ConnectionIdIssued):
                self._by_cid[event.connection_id] = peer
            peer.handle(event)
        if peer.quic._close_event is not None and peer.closed is None:
            peer.closed = (peer.quic._close_event.error_code, peer.quic._close_event.reason_phrase)
        for data, address in peer.quic.datagrams_to_send(trio.current_time()):
            if not self.deaf:
                self.socket.sendto(data, address)
        peer.changed.set()
        peer.changed = trio.Event()
        self._touched.set()
        self._touched = trio.Event()


@asynccontextmanager
async def serving(alpn: str = "im-access") -> AsyncIterator[QuicServer]:
    """A server that runs during the block."""
    server = QuicServer(alpn)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.run)
            yield server
            nursery.cancel_scope.cancel()
    finally:
        server.socket.close()
