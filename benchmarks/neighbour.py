"""What does an innocent connection feel while others attack the node it is on?

    python -m benchmarks.neighbour [--seconds 5] [--only NAME,...] [--nice -10] [--json FILE]

A node, as people run it, for each attack. The innocent one is logged in over TCP, and a hundred times a second sends a
Heartbeat and, in turn, a Message, and waits for the answer (the echo, Accepted). Latency counts from when it was due.
The attacks are in `neighbour_attacks.py`; they run in a process of their own at a lower priority, so that what the
neighbour waits for is the node and not the attacker's load on the machine. `CPU` is the node's, in parts of a core.
`disturbed` is the part of the time in which node or neighbour waited for a core that another program had; shown is the
half of all slices of half a second that was disturbed least. On a machine that others use, `--nice -10` (as root)
gives both of them precedence; they need little.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import trio

from benchmarks.neighbour_attacks import NAMES, Attack
from benchmarks.one_node import Node
from benchmarks.processes import cpu, prefer
from benchmarks.roundtrip import quantile
from examples.cluster import HOST, ROOT
from gateway._framing import DispatchTable, Frame, FrameDecoder, build_chat, build_heartbeat
from gateway.protocol.messages import AuthRequest, encode
from gateway.protocol.types import MsgType

SLICE = 0.5
EVERY = 0.01
"""Seconds between two questions of the innocent one; under the message rate, since only every other is a Message."""
WARM = 1.0
"""Seconds that an attack runs before it is measured."""
PATIENCE = 10.0
"""Seconds without an answer after which the innocent one is taken for lost."""
BOUND = 50.0
"""Milliseconds that the design allows at the 99th percentile."""


class Innocent:
    """Asks and waits, one question at a time."""

    def __init__(self, node: Node) -> None:
        self._sock = socket.create_connection((HOST, node.port("tcp")), timeout=PATIENCE)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._answered = 0
        table = DispatchTable(lambda *_: None)
        for kind in (MsgType.HEARTBEAT, MsgType.AUTH_ACK, MsgType.MESSAGE_ACK):
            table.on(kind, self._answer)
        self._decoder = FrameDecoder(table, 1 << 20)
        self._ask(encode(AuthRequest(token=node.tokens[0], device_id="phone", platform="bench"), seq=1), 1)
        self._seq = 1

    def _answer(self, _: object, frame: Frame) -> None:
        self._answered = max(self._answered, frame.seq)

    def _ask(self, data: bytes, seq: int) -> None:
        self._sock.sendall(data)
        while self._answered < seq:
            ready = select.select([self._sock], [], [], PATIENCE)[0]
            heard = self._sock.recv(65_536) if ready else b""
            if not heard:
                raise SystemExit("the innocent connection was closed, or not answered")
            self._decoder.feed(None, heard)

    def measure(self, seconds: float) -> list[float]:
        """Latencies in milliseconds."""
        found: list[float] = []
        began = time.perf_counter()
        for number in range(int(seconds / EVERY)):
            due = began + number * EVERY
            time.sleep(max(0.0, due - time.perf_counter()))
            self._seq += 1
            if number % 2:
                name = f"i{self._seq}"
                self._ask(build_chat(self._seq, 1, name, 0, 400, "hello", 0, 1, 0, 0), self._seq)
            else:
                self._ask(build_heartbeat(self._seq, 1), self._seq)
            found.append((time.perf_counter() - due) * 1000)
        return found


def attacked(name: str, seconds: float, nice: int) -> dict[str, Any]:
    """One row, on a fresh node."""
    with tempfile.TemporaryDirectory(prefix="neighbour-") as folder:
        node = Node(Path(folder))
        attacker: subprocess.Popen[str] | None = None
        try:
            trio.run(node.start)
            prefer(node.process.pid, nice)
            innocent = Innocent(node)
            innocent.measure(0.3)
            if name != "nobody":
                told = {each: node.port(each) for each in ("tcp", "websocket", "quic")} | {"tokens": node.tokens[1:]}
                words = [sys.executable, "-m", "benchmarks.neighbour_attacks", name, str(WARM + seconds + 1)]
                attacker = subprocess.Popen(
                    [*words, json.dumps(told)],
                    stdout=subprocess.PIPE,
                    text=True,
                    cwd=ROOT,
                    start_new_session=True,  # so that it shares no precedence with us
                )
                time.sleep(WARM + 1.0)
            before, began = node.cpu_seconds(), time.perf_counter()
            slices = [slice_of(node, innocent) for _ in range(int(seconds / SLICE))]
            busy = (node.cpu_seconds() - before) / (time.perf_counter() - began)
            done = json.loads(attacker.communicate(timeout=60)[0])["done"] if attacker is not None else 0
        finally:
            if attacker is not None:
                attacker.kill()
                attacker.communicate()
            node.process.kill()
    calm = sorted(slices, key=lambda each: each[0])[: (len(slices) + 1) // 2]
    found = [latency for _, latencies in calm for latency in latencies]
    return {
        "per_second": round(done / (WARM + seconds + 1)),
        "p50_ms": round(quantile(found, 0.5), 2),
        "p99_ms": round(quantile(found, 0.99), 2),
        "worst_ms": round(max(found), 2),
        "cpu": round(busy, 2),
        "disturbed": round(sum(waited for waited, _ in calm) / len(calm), 2),
    }


def slice_of(node: Node, innocent: Innocent) -> tuple[float, list[float]]:
    """The part of the time that was waited for cores, and the latencies."""
    pids = (node.process.pid, os.getpid())
    before, began = sum(cpu(pid)[1] for pid in pids), time.perf_counter()
    found = innocent.measure(SLICE)
    waited = sum(cpu(pid)[1] for pid in pids) - before
    return waited / 1e9 / (time.perf_counter() - began), found


def main() -> int:
    """Measure, print, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0], allow_abbrev=False)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--only", default="", help="a comma between names")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument(
        "--nice", type=int, default=0, metavar="N", help="priority of node and neighbour; below 0 as root"
    )
    asked = parser.parse_args()
    prefer(os.getpid(), asked.nice)
    print(f"a neighbour's answers, 100 a second for {asked.seconds:g} s; load average {os.getloadavg()[0]:.1f}")
    print(
        f"{'attack':<16}{'per second':>11}{'p50 ms':>9}{'p99 ms':>9}{'worst ms':>10}{'CPU':>7}{'disturbed':>11}",
        flush=True,
    )
    rows: dict[str, Any] = {}
    for name in asked.only.split(",") if asked.only else ("nobody", *NAMES):
        row = rows[name] = attacked(name, asked.seconds, asked.nice)
        print(
            f"{name:<16}{row['per_second']:>11,}{row['p50_ms']:>9.2f}{row['p99_ms']:>9.2f}{row['worst_ms']:>10.2f}"
            f"{row['cpu']:>7.2f}{row['disturbed']:>11.0%}",
            flush=True,
        )
    over = [name for name, row in rows.items() if row["p99_ms"] > BOUND]
    print(f"p99 over {BOUND:g} ms: {', '.join(over) or 'nowhere'}")
    for name in NAMES:
        print(f"  {name}: {getattr(Attack, name).__doc__}")
    if asked.json:
        asked.json.write_text(json.dumps(rows, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
