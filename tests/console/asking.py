"""A console on a port of its own, and the plainest HTTP client: bytes out, bytes in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial

import trio

from gateway.console.app import Page
from gateway.console.server import serve_console
from gateway.console.settings import ConsoleSettings
from gateway.core.books import Account
from gateway.core.metrics import Metrics
from gateway.transports.quic.statistics import QuicStatistics


class Shown:
    """What a Node shows the console."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.reason = ""

    def not_ready(self) -> str:
        return self.reason

    def books(self) -> list[Account]:
        return [Account("frames", 3, {"heartbeat": 2, "login": 1})]

    def bus_statistics(self) -> None:
        return None

    def quic_statistics(self) -> QuicStatistics | None:
        return None


class Asker:
    """Asks the console at `port`."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def ask(self, path: str = "/", method: str = "GET", **headers: str) -> Answer:
        """One request; names in `headers` with `_` for `-`."""
        given = {"host": f"127.0.0.1:{self.port}", **{name.replace("_", "-"): text for name, text in headers.items()}}
        lines = "".join(f"{name}: {text}\r\n" for name, text in given.items())
        return Answer(
            await self.send(f"{method} {path} HTTP/1.1\r\n{lines}connection: close\r\n\r\n".encode("latin-1"))
        )

    async def send(self, data: bytes) -> bytes:
        """Whatever comes back until the console closes."""
        stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        async with stream:
            await stream.send_all(data)
            received = b""
            try:
                while chunk := await stream.receive_some(65_536):
                    received += chunk
            except trio.BrokenResourceError:
                pass
        return received


class Answer:
    """A response taken apart."""

    def __init__(self, data: bytes) -> None:
        head, _, self.body = data.partition(b"\r\n\r\n")
        status, *lines = head.decode("latin-1").split("\r\n")
        self.status = int(status.split()[1])
        self.headers: Mapping[str, str] = {
            name.lower(): value for name, _, value in (line.partition(": ") for line in lines)
        }

    @property
    def text(self) -> str:
        return self.body.decode()


@asynccontextmanager
async def console(shown: Shown, *, token: str = "", page: Page | None = None) -> AsyncIterator[Asker]:
    """A console, for as long as it is wanted."""
    serve = partial(
        serve_console,
        ConsoleSettings(port=0, token=token),
        shown,
        page=None if page is None else lambda _port: page,
    )
    async with trio.open_nursery() as nursery:
        with trio.fail_after(20):
            address = await nursery.start(serve)
            yield Asker(int(address.rpartition(":")[2]))
        nursery.cancel_scope.cancel()
