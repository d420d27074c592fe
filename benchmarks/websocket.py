"""What one WebSocket message costs the server in CPU: ours (Message to MessageAck, authenticated) beside bare echoes.

    python benchmarks/websocket.py [--json FILE] [--rounds 5] [--seconds 1.0] [--connections 100] [--only NAME,...]

Ours verifies the frame, asks the rate limit, wraps the packet for the bus, publishes, and acknowledges; the others
send back 64 bytes. The same load drives all of them, in a process and on a core of its own. Rounds are interleaved,
medians are shown: ratios within a run hold, absolutes do not. `link` is our reactor and link alone, echoing, to
tell the transport's part from the core's.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from processes import Server, run, versions

NAMES = ["gateway", "link", "picows", "aiohttp", "websockets", "trio-websocket"]
WINDOWS = [1, 16]
TARGETS = {1: 1.2, 16: 1.0}
"""The most that ours may cost, as a multiple of picows, by messages in flight."""
WARM = 0.3
VERSIONS = ["trio", "picows", "uvloop", "aiohttp", "websockets", "trio-websocket", "cython"]


def rounds(names: list[str], connections: int, count: int, seconds: float) -> dict[str, Any]:
    """All rounds, interleaved; medians by name and window."""
    servers: list[Server] = []
    found: dict[tuple[str, int], list[dict[str, Any]]] = {}
    try:
        servers.extend(Server("websocket_servers.py", name) for name in names)
        for _ in range(count):
            for window in WINDOWS:
                for server in servers:
                    words = (server.said, server.process.pid, server.name, connections, window, WARM, seconds)
                    found.setdefault((server.name, window), []).append(run("websocket_load.py", *words))
    finally:
        for server in servers:
            server.stop()
    return {name: {str(window): summary(found[name, window]) for window in WINDOWS} for name in names}


def summary(measured: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians of some rounds."""
    costs = [each["cpu_ns"] / each["messages"] / 1000 for each in measured]
    return {
        "cpu_us_per_message": statistics.median(costs),
        "cpu_us_all_rounds": [round(cost, 3) for cost in costs],
        "messages_per_second": statistics.median(each["messages"] / each["seconds"] for each in measured),
        "request_bytes": measured[0]["bytes"],
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
    results = rounds(asked.only.split(","), asked.connections, asked.rounds, asked.seconds)
    met = show(results)
    if "gateway" in results and "picows" in results:
        print("targets (1.2 x picows with one in flight, 1.0 x with sixteen): " + ("met" if met else "NOT met"))
    used = versions(VERSIONS)
    print(", ".join(f"{name} {number}" for name, number in used.items()))
    if asked.json:
        asked.json.write_text(
            json.dumps({"results": results, "connections": asked.connections, "versions": used}, indent=1)
        )


if __name__ == "__main__":
    main()
