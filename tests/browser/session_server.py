"""A WebTransport endpoint that opens streams towards its client: `python -m tests.browser.session_server DIR ORIGIN`.

Prints its URL and its certificate's hash, serves one session after the other until it is ended. What it does with each:
asks "question" on a bidirectional stream of its own and writes the answer to a unidirectional one, in capitals; then
asks the client to drain; closes with 4202 and the client's last datagram as reason.
"""

from __future__ import annotations

import sys
from pathlib import Path

import trio

from gateway.core.limits import Admission
from gateway.core.link import IncomingStream, Link, StreamSink
from gateway.core.settings import LimitSettings
from gateway.transports.quic.door import QuicDoor
from gateway.transports.settings_quic import QuicSettings
from gateway.transports.settings_webtransport import WebTransportSettings
from gateway.transports.webtransport.link import WebTransportLink


class Answer:
    """Gathers one answer."""

    def __init__(self) -> None:
        self.data = b""
        self.whole = trio.Event()

    def feed(self, data: bytes) -> None:
        self.data += data

    def end(self) -> None:
        self.whole.set()

    def reset(self, code: int) -> None:
        self.data = f"reset with {code}".encode()
        self.whole.set()


class Receiver:
    """Wants datagrams and the end."""

    def __init__(self) -> None:
        self.last = b""
        self.datagrams = trio.Event()

    def feed(self, lane: int, data: bytes) -> None:
        pass

    def close(self, code: int, reason: str = "") -> None:
        pass

    def lost(self, reason: str = "") -> None:
        self.datagrams.set()

    def lane_opened(self, lane: int) -> None:
        pass

    def lane_closed(self, lane: int) -> None:
        pass

    def writable(self, lane: int) -> None:
        pass

    def datagram(self, data: bytes) -> None:
        self.last = data
        self.datagrams.set()

    def confirmed(self) -> None:
        pass

    def incoming(self, stream: IncomingStream) -> StreamSink | None:
        return None


async def converse(link: Link) -> None:
    assert isinstance(link, WebTransportLink)
    receiver, answer = Receiver(), Answer()
    link.attach(receiver)
    await link.open()
    session = link.http3.session
    with trio.move_on_after(20):
        stream_id = session.open_bidirectional(answer)
        session.send(stream_id, b"question", True)
        await answer.whole.wait()
        outgoing = link.open_stream()
        await outgoing.send(answer.data.upper())
        outgoing.finish()
        link.drain()
        await receiver.datagrams.wait()
        await link.say_goodbye(4202, receiver.last.decode())


async def main(directory: str, origin: str) -> None:
    door = QuicDoor(
        QuicSettings(port=0),
        WebTransportSettings(origins=(origin,)),
        serve=converse,
        admission=Admission(LimitSettings()),
        data_dir=Path(directory),
    )
    async with trio.open_nursery() as nursery:
        host, port = await nursery.start(door.run)
        print(f"https://{host}:{port}/im {door.certificates.fingerprint}", flush=True)


if __name__ == "__main__":
    trio.run(main, sys.argv[1], sys.argv[2])
