"""A node as its own process, on ports that stay over a restart."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import ExitStack
from pathlib import Path

from gateway.backends.dev_keys import development_key, issue_token

DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
PATIENCE = 60.0
"""Seconds that starting or leaving may take on a busy machine."""


class NodeProcess:
    """`python -m gateway` in development mode, with its data in a directory of the test."""

    def __init__(self, directory: Path, origins: tuple[str, ...] = ()) -> None:
        """`origins`: of pages that are not the node's own."""
        self.directory = directory
        tcp, websocket, self.console_port = _free_ports(3)
        self.quic_port = _free_udp_port()
        self.websocket = f"ws://127.0.0.1:{websocket}/ws"
        self.console = f"http://127.0.0.1:{self.console_port}"
        self.console_by_name = f"http://localhost:{self.console_port}"
        self._config = directory / "gateway.toml"
        self._config.write_text(
            f'data_dir = "{directory / "data"}"\n'
            f"[tcp]\nport = {tcp}\n[websocket]\nport = {websocket}\norigins = {list(origins)}\n"
            f'[console]\nport = {self.console_port}\n[quic]\nport = {self.quic_port}\n[log]\nlevel = "debug"\n'
            "[drain]\nreconnect_after = 0.2\njitter = 0.1\ntimeout = 10.0\n"
        )
        self._log = directory / "node.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Return when it is ready."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "gateway", "--config", str(self._config)],
                env={name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + PATIENCE
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"the node did not start:\n{self._log.read_text()}")
            time.sleep(0.05)

    def kill(self) -> None:
        """As by `kill -9`."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(PATIENCE)
            self._process = None

    def drain(self) -> None:
        """SIGTERM, and wait until it has left; it must have done so without complaint."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        assert self._process.wait(PATIENCE) == 0, self._log.read_text()
        self._process = None

    def said(self) -> str:
        """Its log, for whoever reads why a test failed."""
        return self._log.read_text()

    def token(self, user_id: int, ttl: float) -> str:
        """A token of the node's own development key, valid for `ttl` seconds from now."""
        return issue_token(development_key(self.directory / "data"), user_id, ttl=ttl)

    def logins(self) -> int:
        """Logins that succeeded since it started."""
        found = re.search(r"^access_auth_success(?:_total)? ([0-9.]+)", self._fetch("/metrics"), re.MULTILINE)
        assert found
        return int(float(found[1]))

    def _fetch(self, path: str) -> str:
        with DIRECT.open(self.console + path, timeout=5.0) as answer:
            body: bytes = answer.read()
        return body.decode()

    def _answers(self) -> bool:
        try:
            self._fetch("/readyz")
        except (urllib.error.URLError, OSError):
            return False
        return True


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _free_udp_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
