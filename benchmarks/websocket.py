"""What one WebSocket message costs the server in CPU: ours (Message to MessageAck, authenticated) beside bare echoes.

    python benchmarks/websocket.py [--json FILE] [--rounds 5] [--seconds 1.0] [--connections 100] [--only NAME,...]

Ours verifies the frame, asks the rate limit, wraps the packet for the bus, publishes, and acknowledges; the others
send back 64 bytes. The same load drives all of them, in a process and on a core of its own. Rounds are interleaved,
medians are shown: ratios within a run hold, absolutes do not. `gateway-echo` is our link alone, to tell the
transport's part from the core's.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
KINDS = {"gateway": "gateway"}
NAMES = ["gateway", "gateway-echo", "picows", "aiohttp", "websockets", "trio-websocket"]
WINDOWS = [1, 16]
WARM = 0.3
VERSIONS = ["trio", "picows", "uvloop", "aiohttp", "websockets", "trio-websocket", "cython"]
TARGETS = {1: 1.2, 16: 1.0}
"""The most that ours may cost, as a multiple of picows, by messages in flight."""


class Server:
    """A server process and where it listens."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "websocket_servers.py"), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # some complain loudly about clients that leave without a word
            text=True,
            cwd=HERE.parent,
            env={"PYTHONPATH": str(HERE.parent), "PATH": "/usr/bin:/bin"},
        )
        assert self.process.stdout is not None
        said = self.process.stdout.readline()
        if not said:
            raise SystemExit(f"{name} did not start: python benchmarks/websocket_servers.py {name} tells why")
        self.port = int(said)

    def measure(self, connections: int, window: int, seconds: float) -> dict[str, float]:
        """One round: microseconds of the server's CPU per message, messages per second."""
        words = [self.port, self.process.pid, KINDS.get(self.name, "echo"), connections, window, WARM, seconds]
        done = subprocess.run(
            [sys.executable, str(HERE / "websocket_load.py"), *map(str, words)],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            cwd=HERE.parent,
            env={"PYTHONPATH": str(HERE.parent), "PATH": "/usr/bin:/bin"},
            timeout=60,
        )
        found = json.loads(done.stdout)
        return {
            "us": found["cpu_ns"] / found["messages"] / 1000,
            "rate": found["messages"] / found["seconds"],
            "bytes": found["bytes"],
        }

    def stop(self) -> None:
        """End the process and wait for it."""
        self.process.kill()
        self.process.communicate()


def run(names: list[str], connections: int, rounds: int, seconds: float) -> dict[str, Any]:
    """All rounds, interleaved; medians by name and window."""
    servers: list[Server] = []
    found: dict[tuple[str, int], list[dict[str, float]]] = {}
    try:
        servers.extend(Server(name) for name in names)
        for _ in range(rounds):
            for window in WINDOWS:
                for server in servers:
                    found.setdefault((server.name, window), []).append(server.measure(connections, window, seconds))
    finally:
        for server in servers:
            server.stop()
    return {
        name: {
            str(window): {
                "cpu_us_per_message": statistics.median(each["us"] for each in found[name, window]),
                "cpu_us_all_rounds": [round(each["us"], 3) for each in found[name, window]],
                "messages_per_second": statistics.median(each["rate"] for each in found[name, window]),
                "request_bytes": found[name, window][0]["bytes"],
            }
            for window in WINDOWS
        }
        for name in names
    }


def show(results: dict[str, Any]) -> bool:
    """Print the table; True when the targets are met, as far as both were measured."""
    print(
        f"{'server CPU, us per message':28}"
        + "".join(f"{f'{window} in flight':>14}{'x picows':>10}" for window in WINDOWS)
    )
    met = True
    for name, by_window in results.items():
        row = f"{name:28}"
        for window in WINDOWS:
            cost = by_window[str(window)]["cpu_us_per_message"]
            row += f"{cost:14.2f}"
            if "picows" in results:
                ratio = cost / results["picows"][str(window)]["cpu_us_per_message"]
                row += f"{ratio:10.2f}"
                met = met and (name != "gateway" or ratio <= TARGETS[window])
        print(row)
    return met


def main() -> None:
    """Measure, print, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--connections", type=int, default=100)
    parser.add_argument("--only", default=",".join(NAMES))
    asked = parser.parse_args()
    results = run(asked.only.split(","), asked.connections, asked.rounds, asked.seconds)
    met = show(results)
    if "gateway" in results and "picows" in results:
        print("targets (1.2 x picows with one in flight, 1.0 x with sixteen): " + ("met" if met else "NOT met"))
    versions = {name: version(name) for name in VERSIONS} | {"python": platform.python_version()}
    print(", ".join(f"{name} {number}" for name, number in versions.items()))
    if asked.json:
        asked.json.write_text(
            json.dumps({"results": results, "connections": asked.connections, "versions": versions}, indent=1)
        )


if __name__ == "__main__":
    main()
