"""What a file costs, and what it does to the messages beside it.

    python -m benchmarks.files [--megabytes 20] [--rounds 3] [--json FILE]

A node with everything embedded on one core, both clients in one process on the other; the file goes up to the node's
directory (fsync included) and down again, one client to the other. Meanwhile the client that sends, then the one
that fetches, sends a message every 10 ms and waits until it is accepted. Shown are medians of the rounds, and of the
messages the 99th percentile of all; CPU is the node's, of all its threads.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import trio

from benchmarks.processes import Server, cpu, on_core
from gateway.client import Client, ClientSettings, connect, file_of
from gateway.client.trust import Trust

EVERY = 0.01
URLS = {"tcp": "tcp://{tcp}", "websocket": "ws://{websocket}/ws", "quic": "quic://{quic}"}


class Beside:
    """Messages beside a file, and how long each took."""

    def __init__(self, client: Client, to: int) -> None:
        self._client = client
        self._to = to
        self.took: list[float] = []

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            began = time.perf_counter()
            await self._client.send("beside", to_user=self._to, wait="accepted")
            self.took.append(time.perf_counter() - began)
            await trio.sleep(EVERY)


async def measure(kind: str, node: dict[str, Any], pid: int, source: Path, folder: Path) -> dict[str, Any]:
    """One file up and down."""
    url = URLS[kind].format(**node["addresses"])
    trust = Trust(insecure=True) if kind == "quic" else None
    settings = ClientSettings(unacknowledged=100_000)
    found: dict[str, Any] = {}
    async with (
        connect(url, token=node["tokens"][0], device_id="a", trust=trust, settings=settings) as alice,
        connect(url, token=node["tokens"][1], device_id="b", trust=trust, settings=settings) as bob,
    ):

        async def timed(name: str, beside: Beside, work: Any) -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(beside.run)
                began, spent = time.perf_counter(), cpu(pid)[0]
                await work()
                found[f"{name}_seconds"] = time.perf_counter() - began
                found[f"{name}_cpu"] = (cpu(pid)[0] - spent) / 1e9
                nursery.cancel_scope.cancel()
            found[f"{name}_messages"] = beside.took

        await timed("up", Beside(alice, 1002), lambda: alice.send_file(source, to_user=1002))
        async for delivery in bob:
            file = file_of(delivery)
            if file is not None:
                break
        assert file is not None
        offered = file
        place = folder / f"{time.monotonic_ns()}"
        await timed("down", Beside(bob, 1001), lambda: bob.fetch(offered, place))
        place.unlink()
    return found


def main() -> None:
    """Measure each transport and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    on_core(-1)
    size = options.megabytes * 1_000_000
    results: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="gateway-files-") as name:
        folder = Path(name)
        source = folder / "source"
        source.write_bytes(bytes(range(256)) * (size // 256))
        server = Server("files_node.py", name)
        node = json.loads(server.said)
        try:
            print(f"{'':10}{'':6}{'MB/s':>8}{'node ms/MB':>12}{'messages p50':>14}{'p99 ms':>9}")
            for kind in URLS:
                rounds = [
                    trio.run(measure, kind, node, server.process.pid, source, folder) for _ in range(options.rounds)
                ]
                for way in ("up", "down"):
                    took = sorted(each for one in rounds for each in one[f"{way}_messages"])
                    results[f"{kind} {way}"] = row = {
                        "megabytes_per_second": size / 1e6 / statistics.median(one[f"{way}_seconds"] for one in rounds),
                        "node_ms_per_megabyte": statistics.median(one[f"{way}_cpu"] for one in rounds) * 1e9 / size,
                        "messages": len(took),
                        "p50_ms": 1000 * statistics.median(took),
                        "p99_ms": 1000 * took[math.ceil(0.99 * len(took)) - 1],
                    }
                    speed, spent = row["megabytes_per_second"], row["node_ms_per_megabyte"]
                    print(f"{kind:10}{way:6}{speed:8.1f}{spent:12.1f}{row['p50_ms']:14.1f}{row['p99_ms']:9.1f}")
        finally:
            server.stop()
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
