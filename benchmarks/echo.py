"""What answering one Heartbeat over TCP costs the server in CPU: ours (a whole node, authenticated) beside others.

    python benchmarks/echo.py [--json FILE] [--rounds 7] [--seconds 1.0] [--connections 100] [--only NAME,...]

`gateway` is the node that people run: session, limits, framing. `link` is our reactor and link alone, echoing raw
bytes. `trio` is `trio.serve_tcp` with our framing. `uvloop` echoes raw bytes and knows no frames. The same load
drives all of them from a process and a core of its own. Rounds are interleaved, medians are shown: ratios within a run
hold, absolutes do not.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from processes import Server, run, versions

NAMES = ["gateway", "link", "trio", "uvloop"]
WINDOWS = [1, 16]
TARGETS = {1: 1.5, 16: 1.0}
"""The most that the node may cost, as a multiple of uvloop, by frames in flight."""
WARM = 0.3


def rounds(names: list[str], connections: int, count: int, seconds: float) -> dict[str, Any]:
    """All rounds, interleaved; medians by name and window."""
    servers: list[Server] = []
    found: dict[tuple[str, int], list[dict[str, Any]]] = {}
    try:
        servers.extend(Server("echo_servers.py", name) for name in names)
        for _ in range(count):
            for window in WINDOWS:
                for server in servers:
                    words = (server.said, server.process.pid, server.name, connections, window, WARM, seconds)
                    found.setdefault((server.name, window), []).append(run("echo_load.py", *words))
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
        "frame_bytes": measured[0]["bytes"],
    }


def show(results: dict[str, Any]) -> None:
    """Print the table, and whether the targets are met."""
    titles = "".join(f"{f'{window} in flight':>14}{'x uvloop':>10}" for window in WINDOWS)
    print(f"{'server CPU, us per message':28}{titles}")
    met = []
    for name, by_window in results.items():
        row = f"{name:28}"
        for window in WINDOWS:
            cost = by_window[str(window)]["cpu_us_per_message"]
            row += f"{cost:14.2f}"
            if "uvloop" in results:
                ratio = cost / results["uvloop"][str(window)]["cpu_us_per_message"]
                row += f"{ratio:10.2f}"
                if name == "gateway":
                    met.append(ratio <= TARGETS[window])
        print(row)
    if met:
        verdict = "met" if all(met) else "NOT met"
        print(f"targets (1.5 x uvloop with one in flight, 1.0 x with sixteen): {verdict}")


def main() -> None:
    """Measure, print, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--connections", type=int, default=100)
    parser.add_argument("--only", default=",".join(NAMES))
    asked = parser.parse_args()
    results = rounds(asked.only.split(","), asked.connections, asked.rounds, asked.seconds)
    show(results)
    used = versions(["trio", "uvloop", "cython"])
    print(", ".join(f"{name} {number}" for name, number in used.items()))
    if asked.json:
        found = {"results": results, "connections": asked.connections, "versions": used}
        asked.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
