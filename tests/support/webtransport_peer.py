"""A WebTransport client for tests, on `quic_peer`: says what a test says, hides nothing.

async with open_quic(address, alpn="h3") as client:
    session = await start_session(client)
    peer = Peer(session.open(Lane.CONTROL))
"""

from __future__ import annotations

import trio

from gateway.core.link import Lane
from gateway.protocol.http3 import (
    Capsule,
    FrameType,
    Manner,
    Reader,
    Setting,
    StreamType,
    close_capsule,
    frame,
    parse_close,
    settings_frame,
)
from gateway.protocol.qpack import decode_headers, encode_headers
from gateway.protocol.varints import read_varint, varint
from tests.support.quic_peer import PATIENCE, Pipe, QuicClient

SETTINGS: dict[int, int] = {Setting.H3_DATAGRAM: 1, Setting.WEBTRANSPORT_DRAFT02: 1}
"""As Chromium's, as far as we look at them."""


class Session:
    """One session; its CONNECT was answered with 200."""

    def __init__(self, client: QuicClient, connect: Pipe) -> None:
        self.client = client
        self.connect = connect
        self._head = b""

    @property
    def id(self) -> int:
        return self.connect.stream_id

    def header(self, unidirectional: bool) -> bytes:
        """What a stream of the session begins with."""
        kind = StreamType.WEBTRANSPORT if unidirectional else FrameType.WEBTRANSPORT_STREAM
        return varint(kind) + varint(self.id)

    def open(self, lane: int, data: bytes = b"", *, unidirectional: bool | None = None) -> Pipe:
        """Open a stream of the session whose first byte is `lane`."""
        if unidirectional is None:
            unidirectional = lane == Lane.EPHEMERAL
        return open_pipe(self.client, self.header(unidirectional) + bytes((lane,)) + data, unidirectional)

    async def accept(self) -> tuple[Pipe, bytes]:
        """The next stream of the session that the node opens, and what it has said already."""
        while True:
            pipe = await self.client.accept()
            data = b""
            with trio.fail_after(PATIENCE):
                while len(data) < 3:
                    data += await pipe.receive_some()
            header = self.header(bool(pipe.stream_id & 2))
            if data.startswith(header):
                return pipe, data.removeprefix(header)

    def send_datagram(self, data: bytes) -> None:
        self.client.send_datagram(varint(self.id // 4) + data)

    async def receive_datagram(self) -> bytes:
        data = await self.client.receive_datagram()
        quarter = read_varint(data)
        assert quarter is not None
        assert quarter[0] * 4 == self.id
        return data[quarter[1] :]

    def close(self, code: int, reason: str = "") -> None:
        """CLOSE_SESSION."""
        self.connect.write(frame(FrameType.DATA, close_capsule(code, reason)), True)

    async def wait_closed(self) -> tuple[int, str]:
        """Until the node ends the session, or its connection: code and reason of the capsule, or -1."""
        with trio.fail_after(PATIENCE):
            data = await self.connect.read_all()
        for kind, value in _capsules(data):
            if kind == Capsule.CLOSE_SESSION:
                return parse_close(value)
        return -1, ""

    async def capsule(self) -> int:
        """The type of the next capsule."""
        with trio.fail_after(PATIENCE):
            while not (found := _capsules(self._head)):
                more = await self.connect.receive_some()
                assert more, "the session ended"
                self._head += more
        self._head = b""
        return found[0][0]


def _capsules(data: bytes) -> list[tuple[int, bytes]]:
    reader = Reader(lambda kind, length: Manner.GATHER)
    capsules = Reader(lambda kind, length: Manner.GATHER)
    return [each for _, payload in reader.feed(data) for each in capsules.feed(payload)]


def open_pipe(client: QuicClient, data: bytes, unidirectional: bool) -> Pipe:
    """A stream that begins with `data`."""
    stream_id = client.quic.get_next_available_stream_id(unidirectional)
    pipe = client.pipes[stream_id] = Pipe(client, stream_id)
    pipe.write(data)
    return pipe


def say_settings(client: QuicClient) -> Pipe:
    """Open the control stream."""
    return open_pipe(client, varint(StreamType.CONTROL) + settings_frame(SETTINGS), True)


def ask(client: QuicClient, **fields: str) -> Pipe:
    """Send a request: a CONNECT to /im, unless `fields` say otherwise (`_path` for `:path`; empty: without)."""
    plain = {
        "_method": "CONNECT",
        "_protocol": "webtransport",
        "_scheme": "https",
        "_authority": "localhost",
        "_path": "/im",
    }
    named = {
        name.replace("_", ":", 1) if name.startswith("_") else name: text for name, text in (plain | fields).items()
    }
    headers = [(name.replace("_", "-").encode(), text.encode()) for name, text in named.items() if text]
    return open_pipe(client, frame(FrameType.HEADERS, encode_headers(headers)), False)


async def answered(request: Pipe) -> tuple[int, dict[str, str]]:
    """Status and fields of the answer."""
    told: list[tuple[int, bytes]] = []
    reader = Reader(lambda kind, length: Manner.GATHER)
    with trio.fail_after(PATIENCE):
        while not told:
            data = await request.receive_some()
            assert data, f"no answer; the connection: {request.client.closed}"
            told += reader.feed(data)
    headers = {name.decode(): value.decode() for name, value in decode_headers(told[0][1], 65_536)}
    return int(headers.pop(":status")), headers


async def start_session(client: QuicClient, **fields: str) -> Session:
    """Settings, then a CONNECT that must be accepted; for a client with ALPN `h3`."""
    say_settings(client)
    request = ask(client, **fields)
    status, _ = await answered(request)
    assert status == 200, status
    return Session(client, request)
