"""A node as people run it, in a process of its own, and what the system says of it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.processes import cpu
from examples.cluster import Process
from gateway.backends.dev_keys import development_key, issue_token

LISTENERS = ("tcp", "websocket", "quic")


class Node:
    """Made with the listeners that are wanted; `start` it, `process.kill()` it."""

    def __init__(
        self, folder: Path, listeners: Sequence[str] = LISTENERS, *, users: int = 500, settings: Sequence[str] = ()
    ) -> None:
        """
        Args:
            folder: its data_dir, and where its log goes.
            listeners: of `tcp`, `websocket`, `quic`.
            users: how many have tokens, from user 1 on.
            settings: further ones, as NAME=VALUE.
        """
        words = [sys.executable, "-m", "gateway", "run", "--data-dir", str(folder), "--log-format", "json"]
        for name in (*LISTENERS, "console"):
            words += ["--set", f"{name}.port=0"]
        for name in LISTENERS:
            if name not in listeners:
                words += ["--set", f"{name}.enabled=false"]
        for setting in settings:
            words += ["--set", setting]
        self.process = Process("node", folder, words)
        self.addresses: dict[str, str] = {}
        """By listener, as host:port."""
        self.tokens: list[str] = []
        """By user, the first one's first."""
        self._folder = folder
        self._users = users

    async def start(self) -> None:
        """Return when it serves."""
        self.process.spawn()
        await self.process.until(lambda: self.process.said("serving") is not None)
        self.addresses = {name: str(text) for name, text in (self.process.said("serving") or {}).items()}
        key = development_key(self._folder)
        self.tokens = [issue_token(key, user + 1) for user in range(self._users)]

    def port(self, name: str) -> int:
        """Where it listens."""
        return int(self.addresses[name].rpartition(":")[2])

    def memory(self) -> int:
        """Private bytes."""
        text = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text()
        return 1024 * sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Private_"))

    def descriptors(self) -> int:
        """How many are open."""
        return sum(1 for _ in Path(f"/proc/{self.process.pid}/fd").iterdir())

    def cpu_seconds(self) -> float:
        """Processor time of all its threads since it started."""
        return cpu(self.process.pid)[0] / 1e9
