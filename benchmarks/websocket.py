"""What one WebSocket message costs the server in CPU: ours (Message to MessageAck, authenticated) beside bare echoes.

    python benchmarks/websocket.py [--json FILE] [--rounds 10] [--seconds 0.5] [--connections 100] [--only NAME,...]

Ours verifies the frame, asks the rate limit, wraps the packet for the bus, publishes, and acknowledges; the others
send back 64 bytes. `link` is our reactor and link alone, echoing, to tell the transport's part from the core's.
The same load (in C, on a core of its own) drives all of them: one message in flight per connection; sixteen, each by a
write of its own, as clients do whose messages know nothing of each other; sixteen that always travel together.
Rounds are interleaved; shown are medians of the half in which other programs disturbed least (`disturbed`: the part
of the time that server or load waited for their cores). Ratios within a run hold, absolutes do not.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.processes import HERE, Server, run, versions

NAMES = ["gateway", "link", "picows", "aiohttp", "websockets", "trio-websocket"]
LOADS = {"1 in flight": (1, 0), "16 in flight": (16, 0), "16 joined": (16, 1)}
"""Messages in flight per connection, and whether one write carries all of them."""
TARGETS = {"1 in flight": 1.2, "16 in flight": 1.0}
"""The most that ours may cost, as a multiple of picows."""
WARM = 0.3
VERSIONS = ["trio", "picows", "uvloop", "aiohttp", "websockets", "trio-websocket", "cython"]


def rounds(names: list[str], connections: int, count: int, seconds: float, library: str) -> dict[str, Any]:
    """All rounds, interleaved, by name and load."""
    servers: list[Server] = []
    found: dict[str, dict[str, list[dict[str, Any]]]] = {name: {load: [] for load in LOADS} for name in names}
    try:
        servers.extend(Server("websocket_servers.py", name) for name in names)
        for _ in range(count):
            for load, (window, joined) in LOADS.items():
                for server in servers:
                    words = (server.said, server.process.pid, server.name, connections, window, joined, WARM, seconds)
                    found[server.name][load].append(run("websocket_load.py", *words, library))
    finally:
        for server in servers:
            server.stop()
    return {name: {load: summary(measured) for load, measured in loads.items()} for name, loads in found.items()}


def summary(measured: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians of the less disturbed half of the rounds."""
    calm = sorted(measured, key=lambda each: float(each["disturbed"]))[: (len(measured) + 1) // 2]
    return {
        "cpu_us_per_message": statistics.median(cost(each) for each in calm),
        "messages_per_second": statistics.median(each["messages"] / each["seconds"] for each in calm),
        "busy": statistics.median(each["busy"] for each in calm),
        "disturbed": statistics.median(each["disturbed"] for each in calm),
        "all_rounds": [{"cpu_us": round(cost(each), 3), "disturbed": round(each["disturbed"], 3)} for each in measured],
        "request_bytes": measured[0]["bytes"],
    }


def cost(measured: dict[str, Any]) -> float:
    """Microseconds of CPU per message."""
    return float(measured["cpu_ns"] / measured["messages"] / 1000)


def show(results: dict[str, Any]) -> None:
    """Print the table, and whether the targets are met."""
    print("server CPU, us per message " + "".join(f"{load:>14}{'x picows':>9}{'disturbed':>10}" for load in LOADS))
    met = []
    for name, loads in results.items():
        row = f"{name:27}"
        for load, found in loads.items():
            row += f"{found['cpu_us_per_message']:14.2f}"
            if "picows" in results:
                ratio = found["cpu_us_per_message"] / results["picows"][load]["cpu_us_per_message"]
                row += f"{ratio:9.2f}"
                if name == "gateway" and load in TARGETS:
                    met.append(ratio <= TARGETS[load])
            row += f"{found['disturbed']:10.0%}"
        print(row)
    if met:
        verdict = "met" if all(met) else "NOT met"
        print(f"targets (1.2 x picows with one in flight, 1.0 x with sixteen): {verdict}")


def main() -> None:
    """Measure, print, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--connections", type=int, default=100)
    parser.add_argument("--only", default=",".join(NAMES))
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        library = f"{folder}/websocket_load.so"
        subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", library, str(HERE / "websocket_load.c")], check=True)
        results = rounds(asked.only.split(","), asked.connections, asked.rounds, asked.seconds, library)
    show(results)
    used = versions(VERSIONS)
    print(", ".join(f"{name} {number}" for name, number in used.items()))
    if asked.json:
        found = {"results": results, "connections": asked.connections, "versions": used}
        asked.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
