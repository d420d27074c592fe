"""What answering one Heartbeat over TCP costs the server in CPU: ours (a whole node, authenticated) beside others.

    python benchmarks/echo.py [--json FILE] [--rounds 10] [--seconds 0.5] [--connections 100] [--only NAME,...]

`gateway` is the node that people run: session, limits, framing. `link` is our reactor and link alone, echoing raw
bytes. `trio` is `trio.serve_tcp` with our framing. `uvloop` echoes raw bytes and knows no frames. The same load (in C,
on a core of its own) drives all of them: one frame in flight per connection; sixteen, each by a write of its own, as
clients do whose messages know nothing of each other; sixteen that always travel together in one write.
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

NAMES = ["gateway", "link", "trio", "uvloop"]
LOADS = {"1 in flight": (1, 0), "16 in flight": (16, 0), "16 joined": (16, 1)}
"""Frames in flight per connection, and whether one write carries all of them."""
TARGETS = {"1 in flight": 1.5, "16 in flight": 1.0}
"""The most that the node may cost, as a multiple of uvloop."""
WARM = 0.3


def rounds(names: list[str], connections: int, count: int, seconds: float, library: str) -> dict[str, Any]:
    """All rounds, interleaved, by name and load."""
    servers: list[Server] = []
    found: dict[str, dict[str, list[dict[str, Any]]]] = {name: {load: [] for load in LOADS} for name in names}
    try:
        servers.extend(Server("echo_servers.py", name) for name in names)
        for _ in range(count):
            for load, (window, joined) in LOADS.items():
                for server in servers:
                    words = (server.said, server.process.pid, server.name, connections, window, joined, WARM, seconds)
                    found[server.name][load].append(run("echo_load.py", *words, library))
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
        "frame_bytes": measured[0]["bytes"],
    }


def cost(measured: dict[str, Any]) -> float:
    """Microseconds of CPU per message."""
    return float(measured["cpu_ns"] / measured["messages"] / 1000)


def show(results: dict[str, Any]) -> None:
    """Print the table, and whether the targets are met."""
    print("server CPU, us per message " + "".join(f"{load:>14}{'x uvloop':>9}{'disturbed':>10}" for load in LOADS))
    met = []
    for name, loads in results.items():
        row = f"{name:27}"
        for load, found in loads.items():
            row += f"{found['cpu_us_per_message']:14.2f}"
            if "uvloop" in results:
                ratio = found["cpu_us_per_message"] / results["uvloop"][load]["cpu_us_per_message"]
                row += f"{ratio:9.2f}"
                if name == "gateway" and load in TARGETS:
                    met.append(ratio <= TARGETS[load])
            row += f"{found['disturbed']:10.0%}"
        print(row)
    if met:
        verdict = "met" if all(met) else "NOT met"
        print(f"targets (1.5 x uvloop with one in flight, 1.0 x with sixteen): {verdict}")


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
        library = f"{folder}/echo_load.so"
        subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", library, str(HERE / "echo_load.c")], check=True)
        results = rounds(asked.only.split(","), asked.connections, asked.rounds, asked.seconds, library)
    show(results)
    used = versions(["trio", "uvloop", "cython"])
    print(", ".join(f"{name} {number}" for name, number in used.items()))
    if asked.json:
        found = {"results": results, "connections": asked.connections, "versions": used}
        asked.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
