"""An endpoint on loopback with a handler that echoes, and what it was told."""

from __future__ import annotations

import datetime
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

import trio
from aioquic.quic.events import DatagramFrameReceived, QuicEvent, StreamDataReceived
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gateway.core.limits import Admission
from gateway.core.link import Link
from gateway.core.settings import LimitSettings
from gateway.transports.quic.certificates import Certificates, Identity
from gateway.transports.quic.endpoint import QuicEndpoint
from gateway.transports.quic.peer import PeerHandler, QuicPeer
from gateway.transports.settings_quic import QuicSettings
from tests.transports.quic.client import PATIENCE

SECRET = b"a secret of the tests, 32 bytes."


@cache
def identity() -> Identity:
    """A self-signed certificate, made once."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    return Identity((certificate,), key)


class Echo:
    """A handler that sends back what comes, on the stream it came on or as a datagram, and remembers."""

    def __init__(self, peer: QuicPeer) -> None:
        self.peer = peer
        self.events: list[QuicEvent] = []
        self.pumps = 0
        self.ends: list[tuple[int, str]] = []
        self.heard = 0
        self.echoes = True
        self.on_event: Callable[[QuicEvent], None] | None = None
        self._news = trio.Event()

    def handle(self, event: QuicEvent) -> None:
        self.events.append(event)
        if self.on_event is not None:
            self.on_event(event)
        if isinstance(event, StreamDataReceived):
            self.heard += len(event.data)
            if self.echoes:
                self.peer.send(event.stream_id, event.data, event.end_stream)
        elif isinstance(event, DatagramFrameReceived) and self.echoes:
            self.peer.send_datagram(event.data)
        self._tell()

    def pumped(self) -> None:
        self.pumps += 1
        self._tell()

    def ended(self, code: int, reason: str) -> None:
        self.ends.append((code, reason))
        self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = trio.Event()

    async def until(self, true: Callable[[], object]) -> None:
        with trio.fail_after(PATIENCE):
            while not true():
                await self._news.wait()


class World:
    """A running endpoint and its handlers in the order in which they were made."""

    def __init__(self, endpoint: QuicEndpoint, admission: Admission, handlers: list[Any]) -> None:
        self.endpoint = endpoint
        self.admission = admission
        self.handlers = handlers

    @property
    def server(self) -> tuple[str, int]:
        return self.endpoint.address, self.endpoint.port

    async def until(self, true: Callable[[], object]) -> None:
        """For what nobody tells of: looked at every few milliseconds."""
        with trio.fail_after(PATIENCE):
            while not true():
                await trio.sleep(0.005)

    async def empty(self) -> None:
        """Wait until no connection is left."""
        await self.until(lambda: self.endpoint.statistics().connections == 0)


async def no_link(_link: Link) -> None:
    raise AssertionError("no link is served here")


@asynccontextmanager
async def open_world(
    handler: Callable[[QuicPeer], PeerHandler] = Echo,
    *,
    secret: bytes = SECRET,
    limits: LimitSettings | None = None,
    worker: int = 0,
    workers: int = 1,
    faults: int = 0,
    certificate: Callable[[], Identity] = identity,
    **fields: Any,
) -> AsyncIterator[World]:
    """Run an endpoint; afterwards nothing of it may be left, and no more than `faults` exceptions were logged."""
    admission = Admission(limits or LimitSettings())
    handlers: list[PeerHandler] = []

    def made(peer: QuicPeer) -> PeerHandler:
        handlers.append(handler(peer))
        return handlers[-1]

    endpoint = QuicEndpoint(
        QuicSettings(**{"port": 0, **fields}),
        protocols={"im-access": made},
        serve=no_link,
        admission=admission,
        certificates=Certificates(certificate),
        secret=secret,
        worker=worker,
        workers=workers,
    )
    before = len(os.listdir("/proc/self/fd"))
    async with trio.open_nursery() as nursery:
        await nursery.start(endpoint.run)
        yield World(endpoint, admission, handlers)
        nursery.cancel_scope.cancel()
    left = endpoint.statistics()
    assert (left.connections, left.half_open, left.connection_ids) == (0, 0, 0)
    assert left.failures == faults
    assert len(os.listdir("/proc/self/fd")) <= before
