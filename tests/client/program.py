"""`python -m gateway` as its own process: a node, and chats that are typed into and read from."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import trio

PATIENCE = 30.0
"""Seconds until a line that is waited for counts as missing; starting Python takes a second on a busy machine."""


class Program:
    """One process. Its output is read in the background; `until` waits for a line."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self.lines: list[str] = []
        """Everything printed so far."""
        self.errors: list[str] = []
        self._seen = 0
        self._more = trio.Event()

    async def read(self, stream: trio.abc.ReceiveStream, lines: list[str]) -> None:
        rest = b""
        async for data in stream:
            *whole, rest = (rest + data).split(b"\n")
            lines += [line.decode().rstrip("\r") for line in whole]
            self._more.set()
            self._more = trio.Event()
        self._more.set()

    async def until(self, wanted: str | Callable[[str], bool]) -> str:
        """The next line that contains (or satisfies) `wanted`, past those that were waited for before."""
        fits = wanted if callable(wanted) else lambda line: wanted in line
        with trio.move_on_after(PATIENCE):
            while True:
                while self._seen < len(self.lines):
                    self._seen += 1
                    if fits(self.lines[self._seen - 1]):
                        return self.lines[self._seen - 1]
                await self._more.wait()
        raise AssertionError(f"no {wanted!r} in {self.lines} {self.errors}")

    async def type(self, *lines: str) -> None:
        assert self.process.stdin is not None
        await self.process.stdin.send_all("".join(f"{line}\n" for line in lines).encode())

    async def leave(self) -> int:
        """End of input; returns the exit code."""
        assert self.process.stdin is not None
        await self.process.stdin.aclose()
        return await self.ended()

    async def ended(self) -> int:
        with trio.fail_after(PATIENCE):
            return await self.process.wait()

    async def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        await self.ended()


@asynccontextmanager
async def started(*arguments: str, stdin: int = subprocess.PIPE) -> AsyncIterator[Program]:
    """`python -m gateway ARGUMENTS`; killed at the end of the block if it still runs."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("GATEWAY_", "CHAT_"))}
    environment |= {"PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"}
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "gateway", *arguments],
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
    )
    program = Program(process)
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(program.read, process.stdout, program.lines)
            nursery.start_soon(program.read, process.stderr, program.errors)
            yield program
            if process.returncode is None:
                process.kill()
            await process.wait()
            nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True):
            if process.returncode is None:
                process.kill()
            await process.wait()
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    await pipe.aclose()


class Machine:
    """A data directory and the addresses of the node that runs on it."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.ports = {"tcp": 0, "websocket": 0, "quic": 0}

    def url(self, kind: str) -> str:
        if kind == "tcp":
            return f"tcp://127.0.0.1:{self.ports['tcp']}"
        return f"ws://127.0.0.1:{self.ports['websocket']}/ws"

    @asynccontextmanager
    async def node(self) -> AsyncIterator[Program]:
        """Run a node; the first one chooses the ports, later ones take the same."""
        async with started(
            *("run", "--data-dir", str(self.data_dir), "--console-port", "0", "--log-format", "json"),
            *("--tcp-port", str(self.ports["tcp"]), "--websocket-port", str(self.ports["websocket"])),
            *("--quic-port", str(self.ports["quic"])),
        ) as program:
            await self._serving(program)
            yield program

    async def _serving(self, program: Program) -> None:
        with trio.fail_after(PATIENCE):
            while not any('"serving"' in line for line in program.errors):
                assert program.process.returncode is None, program.errors
                await trio.sleep(0.02)
        event = json.loads(next(line for line in program.errors if '"serving"' in line))
        for name in self.ports:
            self.ports[name] = int(event[name].rpartition(":")[2])

    @asynccontextmanager
    async def chat(self, kind: str, user: int, to: int, *more: str) -> AsyncIterator[Program]:
        """A chat that is connected."""
        async with started(*self.words(kind, user, to), *more) as program:
            await program.until(lambda line: "connected to" in line or '"online"' in line)
            yield program

    def configured(self, user: int, to: int) -> Sequence[str]:
        """A chat that finds the node by its configuration, which has QUIC alone."""
        settings = [word for name, port in self.ports.items() for word in ("--set", f"{name}.port={port}")]
        settings += ["--set", "tcp.enabled=false", "--set", "websocket.enabled=false"]
        return ("chat", "--user", str(user), "--to", str(to), "--data-dir", str(self.data_dir), *settings)

    def words(self, kind: str, user: int, to: int) -> Sequence[str]:
        return (
            *("chat", "--user", str(user), "--to", str(to)),
            *("--url", self.url(kind), "--data-dir", str(self.data_dir)),
        )


def interrupt(program: Program) -> None:
    """What Ctrl-C does."""
    program.process.send_signal(signal.SIGINT)
