"""The load of `benchmarks/quic.py`: aioquic's own client, in a process of its own.

    python benchmarks/quic_load.py handshakes|logins PORT SERVER_PID COUNT
    python benchmarks/quic_load.py messages PORT SERVER_PID CONNECTIONS WINDOW SECONDS
    python benchmarks/quic_load.py idle PORT SERVER_PID COUNT

Every client but those of `handshakes` opens its control lane and says Auth, whoever the server is: an echo gives it
back. Prints one line of JSON: what was done, and the CPU that the server used for it. `idle` prints and keeps its
connections until killed.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import sys
import time
from contextlib import suppress
from typing import Any

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import StreamDataReceived

from benchmarks.processes import cpu, on_core
from gateway._framing import build_heartbeat
from gateway.protocol.messages import AuthRequest, encode

FRAME = build_heartbeat(1, 1)
AT_ONCE = 8
"""Handshakes under way at a time."""
WARM = 1.0
PATIENCE = 20.0
LEAVING = 3.0
"""The server has heard the end at once; what is waited for is the client's own silence."""


class Client(QuicConnectionProtocol):
    """Logs in, then keeps `window` frames in flight for as long as `going` is set."""

    going = False
    window = 1
    answered = 0
    """By all clients."""

    def __init__(self, *args: Any, **words: Any) -> None:
        super().__init__(*args, **words)
        self.welcome = asyncio.Event()
        self._left = 0
        self._stream = 0

    def log_in(self, user: int) -> None:
        self._stream = self._quic.get_next_available_stream_id()
        auth = encode(AuthRequest(token=str(user), device_id="phone", platform="load"), seq=1)
        self._quic.send_stream_data(self._stream, b"\x01" + auth)
        self.transmit()

    def go(self) -> None:
        self._quic.send_stream_data(self._stream, FRAME * self.window)
        self.transmit()

    def quic_event_received(self, event: Any) -> None:
        if not isinstance(event, StreamDataReceived):
            return
        if not self.welcome.is_set():
            self.welcome.set()
            return
        self._left += len(event.data)
        frames, self._left = divmod(self._left, len(FRAME))
        Client.answered += frames
        if self.going and frames:
            self._quic.send_stream_data(self._stream, FRAME * frames)


def configuration() -> QuicConfiguration:
    """Trusts anybody, stays for long."""
    return QuicConfiguration(
        is_client=True,
        alpn_protocols=["im-access"],
        verify_mode=ssl.CERT_NONE,
        idle_timeout=95.0,
        server_name="localhost",
    )


async def opened(port: int, count: int, *, stay: asyncio.Event | None, login: bool = True) -> list[Client]:
    """So many clients connected, AT_ONCE of them on their way at a time; they leave at once unless they are to stay."""
    clients: list[Client] = []
    ready: asyncio.Queue[None] = asyncio.Queue()
    places = asyncio.Semaphore(AT_ONCE)

    async def one(user: int) -> None:
        async with places:
            live = connect("127.0.0.1", port, configuration=configuration(), create_protocol=Client)
            client = await live.__aenter__()
            assert isinstance(client, Client)
            if login:
                client.log_in(user)
                await asyncio.wait_for(client.welcome.wait(), PATIENCE)
        clients.append(client)
        ready.put_nowait(None)
        if stay is not None:
            await stay.wait()
        with suppress(TimeoutError):  # it waits for three probe timeouts, which a busy machine makes long
            await asyncio.wait_for(live.__aexit__(None, None, None), LEAVING)

    first = os.getpid() * 1_000_000  # no two loads log in as the same user
    tasks = [asyncio.create_task(one(first + number)) for number in range(count)]
    everybody: asyncio.Future[Any] = asyncio.gather(*tasks)  # one that fails is heard of at once
    for _ in range(count):
        another: asyncio.Future[Any] = asyncio.ensure_future(ready.get())
        await asyncio.wait([another, everybody], return_when=asyncio.FIRST_COMPLETED)
        if everybody.done():
            everybody.result()
    if stay is None:
        await everybody
    return clients


async def main(kind: str, port: int, pid: int, count: int, *more: str) -> None:
    """One measurement."""
    if kind in ("handshakes", "logins"):
        login = kind == "logins"
        await opened(port, AT_ONCE, stay=None, login=login)
        before, began = cpu(pid)[0], time.monotonic()
        await opened(port, count, stay=None, login=login)
        found = {"done": count, "cpu_ns": cpu(pid)[0] - before, "seconds": time.monotonic() - began}
        print(json.dumps(found), flush=True)
        return
    stay = asyncio.Event()
    clients = await opened(port, count, stay=stay)
    if kind == "messages":
        Client.window, Client.going = int(more[0]), True
        for client in clients:
            client.go()
        await asyncio.sleep(WARM)
        before, answered, began = cpu(pid)[0], Client.answered, time.monotonic()
        await asyncio.sleep(float(more[1]))
        found = {
            "cpu_ns": cpu(pid)[0] - before,
            "done": Client.answered - answered,
            "seconds": time.monotonic() - began,
        }
        Client.going = False
    else:
        await asyncio.sleep(WARM)
        found = {"done": count}
    print(json.dumps(found), flush=True)
    if kind == "idle":
        await asyncio.to_thread(sys.stdin.read)
    os._exit(0)  # its connections need not be closed one by one


if __name__ == "__main__":
    on_core(-1)
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), *sys.argv[5:]))
