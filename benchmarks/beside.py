"""Servers of the same thing beside each other: rounds in turns, the calm half of them, and a table against one of them.

What is served and who loads it is in `echo.py` and `websocket.py`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.processes import HERE, Server, run, versions

LOADS = {"1 in flight": (1, 0), "16 in flight": (16, 0), "16 joined": (16, 1)}
"""Messages in flight per connection, and whether one write carries all of them."""
WARM = 0.3


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """One question: `{script}_servers.py` serves, `{script}_load.py` with `{script}_load.c` loads."""

    script: str
    names: list[str]
    """The servers; the first is ours."""
    measure: str
    """The one that all are compared with."""
    targets: dict[str, float]
    """The most that ours may cost, by load, as a multiple of that one."""
    packages: list[str]
    """Whose versions are told."""


def rounds(this: Comparison, names: list[str], connections: int, count: int, seconds: float, library: str) -> Any:
    """All rounds, interleaved, by name and load."""
    servers: list[Server] = []
    found: dict[str, dict[str, list[dict[str, Any]]]] = {name: {load: [] for load in LOADS} for name in names}
    try:
        servers.extend(Server(f"{this.script}_servers.py", name) for name in names)
        for _ in range(count):
            for load, (window, joined) in LOADS.items():
                for server in servers:
                    words = (server.said, server.process.pid, server.name, connections, window, joined, WARM, seconds)
                    found[server.name][load].append(run(f"{this.script}_load.py", *words, library))
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


def show(this: Comparison, results: dict[str, Any]) -> None:
    """Print the table, and whether the targets are met."""
    beside = f"x {this.measure}"
    print("server CPU, us per message " + "".join(f"{load:>14}{beside:>9}{'disturbed':>10}" for load in LOADS))
    met = []
    for name, loads in results.items():
        row = f"{name:27}"
        for load, found in loads.items():
            row += f"{found['cpu_us_per_message']:14.2f}"
            if this.measure in results:
                ratio = found["cpu_us_per_message"] / results[this.measure][load]["cpu_us_per_message"]
                row += f"{ratio:9.2f}"
                if name == this.names[0] and load in this.targets:
                    met.append(ratio <= this.targets[load])
            row += f"{found['disturbed']:10.0%}"
        print(row)
    if met:
        bounds = ", ".join(f"{most} x {this.measure} with {load}" for load, most in this.targets.items())
        print(f"targets ({bounds}): {'met' if all(met) else 'NOT met'}")


def main(this: Comparison, text: str) -> None:
    """Measure, print, and write JSON where asked. `text` says what it is."""
    parser = argparse.ArgumentParser(description=text.partition("\n")[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--connections", type=int, default=100)
    parser.add_argument("--only", default=",".join(this.names))
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        library = f"{folder}/{this.script}_load.so"
        source = str(HERE / f"{this.script}_load.c")
        subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", library, source], check=True)
        results = rounds(this, asked.only.split(","), asked.connections, asked.rounds, asked.seconds, library)
    show(this, results)
    used = versions(this.packages)
    print(", ".join(f"{name} {number}" for name, number in used.items()))
    if asked.json:
        found = {"results": results, "connections": asked.connections, "versions": used}
        asked.json.write_text(json.dumps(found, indent=1))
