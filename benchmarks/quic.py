"""What QUIC costs the server: ours (a whole node, authenticated) beside aioquic's own asyncio server, in one run.

    python benchmarks/quic.py [--json FILE] [--rounds 5] [--handshakes 200] [--seconds 2] [--idle 500]

CPU per handshake, without and with a login, per small message on 200 connections (one and sixteen in flight), and
private bytes per idle connection. The same client, aioquic's own, drives both from another core. The other server
echoes bytes and knows no sessions; each has the garbage collector that it is run with. Rounds are interleaved, shown
are medians. Ratios within a run hold, absolutes do not.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import trustme

from benchmarks.processes import Server, run, versions

NAMES = ("gateway", "aioquic")
TARGETS = {"handshake": 0.9, "message, 1 in flight": 0.6, "idle connection": 0.8}
"""The most that ours may cost, as a multiple of aioquic's server."""
CONNECTIONS = 200
MEASURES = ("handshake", "handshake and login", "message, 1 in flight", "message, 16 in flight", "idle connection")
UNITS = {"idle connection": "bytes"}


def cpu_rounds(certificate: str, rounds: int, handshakes: int, seconds: float) -> dict[str, dict[str, list[float]]]:
    """Microseconds of the server's CPU by measure and server, all rounds, interleaved."""
    servers = [Server("quic_servers.py", name, certificate) for name in NAMES]
    found: dict[str, dict[str, list[float]]] = {measure: {name: [] for name in NAMES} for measure in MEASURES[:-1]}
    loads: dict[str, tuple[object, ...]] = {
        "handshake": ("handshakes", handshakes),
        "handshake and login": ("logins", handshakes),
        "message, 1 in flight": ("messages", CONNECTIONS, 1, seconds),
        "message, 16 in flight": ("messages", CONNECTIONS, 16, seconds),
    }
    try:
        for number in range(rounds):
            for measure, (kind, *words) in loads.items():
                for server in servers:
                    done = run("quic_load.py", kind, server.said, server.process.pid, *words)
                    found[measure][server.name].append(done["cpu_ns"] / done["done"] / 1000)
            print(f"round {number + 1} of {rounds}", flush=True)
    finally:
        for server in servers:
            server.stop()
    return found


def idle(name: str, certificate: str, count: int) -> float:
    """Private bytes per idle connection, from a tenth of them to all."""
    server = Server("quic_servers.py", name, certificate)
    loads: list[Server] = []
    try:
        sizes = []
        for more in (count // 10, count):
            loads.append(Server("quic_load.py", "idle", server.said, server.process.pid, more))
            sizes.append(json.loads(server.tell("")))
        added = sizes[1]["connections"] - sizes[0]["connections"]
        assert added == count, sizes
        return float((sizes[1]["private"] - sizes[0]["private"]) / added)
    finally:
        for each in [*loads, server]:
            each.stop()


def show(results: dict[str, dict[str, float]]) -> None:
    """Print the table, and whether the targets are met."""
    print(f"{'':24}{'unit':>8}" + "".join(f"{name:>12}" for name in NAMES) + f"{'ratio':>8}{'at most':>9}")
    for measure, found in results.items():
        ratio = found["gateway"] / found["aioquic"]
        limit = TARGETS.get(measure)
        verdict = "" if limit is None else f"{limit:9}" + ("" if ratio <= limit else "  NOT met")
        figures = "".join(f"{found[name]:12.1f}" for name in NAMES)
        print(f"{measure:24}{UNITS.get(measure, 'us CPU'):>8}{figures}{ratio:8.2f}{verdict}")


def main() -> None:
    """Measure, print, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--handshakes", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--idle", type=int, default=500)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        certificate = f"{folder}/server.pem"
        trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(certificate)
        everything: dict[str, Any] = cpu_rounds(certificate, asked.rounds, asked.handshakes, asked.seconds)
        everything["idle connection"] = {name: [idle(name, certificate, asked.idle)] for name in NAMES}
    results = {
        measure: {name: statistics.median(rounds) for name, rounds in found.items()}
        for measure, found in everything.items()
    }
    show(results)
    used = versions(["trio", "aioquic", "cython"])
    print(", ".join(f"{name} {number}" for name, number in used.items()))
    if asked.json:
        asked.json.write_text(json.dumps({"results": results, "rounds": everything, "versions": used}, indent=1))


if __name__ == "__main__":
    main()
