"""Threats 33 and 45 and admission, through the WebSocket port."""

from __future__ import annotations

import contextlib
import os
import resource
import ssl
from pathlib import Path

import pytest
import trio

from gateway.core.settings import LimitSettings
from gateway.transports.settings import TlsSettings
from gateway.transports.tls import TlsServer
from tests.websocket.door import open_door
from tests.websocket.frames import close_body, frame
from tests.websocket.test_upgrade import request
from tests.websocket.wire import certificates, open_wire


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[TlsServer, ssl.SSLContext]:
    folder: Path = tmp_path_factory.mktemp("certificates")
    return certificates(folder)


async def test_a_full_node_says_503() -> None:
    async with open_door(limits=LimitSettings(max_connections=1)) as door:
        first = await door.seated(1001)
        second = await door.knock()
        await second.send(request())
        answer = await second.rest()
        assert answer.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        assert b"\r\nRetry-After: " in answer
        assert answer.endswith(b"node_full\n")
        await first.hang_up()


async def test_a_full_node_under_tls_says_nothing_and_closes(tmp_path: Path) -> None:
    _, client = certificates(tmp_path)
    settings = TlsSettings(certificate=str(tmp_path / "server.pem"))
    async with open_door(limits=LimitSettings(max_connections=1), tls=(settings, client)) as door:
        first = await door.seated(1001)
        second = await door.knock()
        with pytest.raises(trio.BrokenResourceError):
            await second.send(request())
        await first.raw.send(frame(close_body(1000), 8))
        assert await first.raw.frame() == (8, close_body(1000))


async def test_t33_out_of_descriptors() -> None:
    async with open_door() as door:
        first = await door.seated(1001)
        refused = trio.socket.socket()
        door.sockets.append(refused)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 1, hard))
        fillers = []
        try:
            with contextlib.suppress(OSError):
                while True:
                    fillers.append(os.dup(0))
            await refused.connect(("127.0.0.1", door.port))
            said = await refused.recv(4096)
        finally:
            for filler in fillers:
                os.close(filler)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert said.startswith(b"HTTP/1.1 503 ")
        with trio.fail_after(1):
            second = await door.seated(1002)
        for client in (first, second):
            await client.hang_up()


class Cancelled(trio.abc.Instrument):
    """Cancels a scope the n-th time that any task is about to run."""

    def __init__(self, scope: trio.CancelScope, steps: int) -> None:
        self._scope = scope
        self.left = steps

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.left -= 1
        if self.left == 0:
            self._scope.cancel()


@pytest.mark.parametrize("secured", [False, True], ids=["plain", "tls"])
async def test_t45_cancelled_at_any_point(secured: bool, tls: tuple[TlsServer, ssl.SSLContext]) -> None:
    steps, finished = 0, False
    before = len(os.listdir("/proc/self/fd"))
    while not finished:
        steps += 1
        assert steps < 500
        with trio.CancelScope() as scope:
            cancelled = Cancelled(scope, steps)
            trio.lowlevel.add_instrument(cancelled)
            try:
                async with open_wire(tls if secured else None) as wire:
                    try:
                        seat, peer = await wire.connect()
                        await peer.send(request())
                        await peer.until(b"\r\n\r\n")
                        await peer.send(frame(b"hello") + frame(b"ping", 9))
                        await peer.frame()
                        seat.close(4400, "going_away")
                        await peer.frame()
                        await peer.send(frame(close_body(4400), 8))
                        await peer.ended()
                        await seat.over.wait()
                    finally:
                        for sock in wire.sockets:
                            sock.close()
            finally:
                trio.lowlevel.remove_instrument(cancelled)
        finished = cancelled.left > 0
        assert len(os.listdir("/proc/self/fd")) == before
    assert steps > 10
