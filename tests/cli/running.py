"""The command line as a user has it: a process, its output, its exit code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

_ROOT = Path(__file__).parents[2]


def environment(**more: str) -> dict[str, str]:
    """This process's, without settings of a gateway."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith("GATEWAY_")}
    return {**kept, "PYTHONPATH": str(_ROOT), "PYTHONWARNINGS": "error", **more}


def heed_signals() -> None:
    """For `preexec_fn`: what a shell starts in the background ignores SIGINT, what `nohup` starts SIGHUP, and so would
    all that these start."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "gateway", *words]


async def gateway(*words: str, cwd: Path, stdin: bytes = b"", **more: str) -> subprocess.CompletedProcess[str]:
    """Run one command to its end, in a directory of its own."""
    with trio.fail_after(60):
        done = await trio.run_process(
            command(*words),
            stdin=stdin,
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            cwd=cwd,
            env=environment(**more),
        )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


class Running:
    """A node in a process, and what it has logged."""

    def __init__(self, process: trio.Process, cwd: Path) -> None:
        self.process = process
        self.cwd = cwd
        self.lines: list[dict[str, Any]] = []
        self._rest = b""

    async def event(self, name: str) -> dict[str, Any]:
        """The first line of this event that has not been read yet."""
        assert self.process.stderr is not None
        while True:
            while b"\n" in self._rest:
                line, _, self._rest = self._rest.partition(b"\n")
                self.lines.append(json.loads(line))
                if self.lines[-1]["event"] == name:
                    return self.lines[-1]
            data = await self.process.stderr.receive_some(65_536)
            assert data, f"it ended without {name}: {self.lines} {self._rest!r}"
            self._rest += data

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def ended(self) -> int:
        """Its exit code."""
        assert self.process.stderr is not None
        while data := await self.process.stderr.receive_some(65_536):
            self._rest += data
        self.lines += [json.loads(line) for line in self._rest.splitlines()]
        self._rest = b""
        return await self.process.wait()


PORTS = ("--tcp-port", "0", "--websocket-port", "0", "--quic-port", "0", "--console-port", "0")


@asynccontextmanager
async def node(*words: str, cwd: Path, **more: str) -> AsyncIterator[Running]:
    """A node on ports of its own that serves; killed at the end if it is still there."""
    process = await trio.lowlevel.open_process(
        command(*words, *PORTS, "--log-format", "json"),
        cwd=cwd,
        env=environment(**more),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        preexec_fn=heed_signals,
    )
    running = Running(process, cwd)
    try:
        with trio.fail_after(60):
            yield running
    finally:
        if process.returncode is None:
            process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            assert process.stderr is not None
            await process.stderr.aclose()
