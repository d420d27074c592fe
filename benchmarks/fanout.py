"""One broadcast to many WebSocket connections: CPU per delivery, beside the cost of the bare `send` calls.

    python benchmarks/fanout.py [--connections 5000] [--rounds 15] [--json FILE]

A whole node publishes a broadcast (one chat message) on its bus, and the flusher writes it to every authenticated
connection. The bare row writes the same bytes to as many plain sockets of the same process by `socket.send` in a
loop. Both are measured in one process, interleaved, by CPU time; clients on the other core read and drop.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

from benchmarks.processes import run, versions

ROWS = (("gateway", "node: bus, outbox, stamp, header, send"), ("bare", "socket.send in a loop"))


def main() -> None:
    """Measure, print, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--connections", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    found = run("fanout_node.py", "node", asked.connections, asked.rounds)
    medians = {name: statistics.median(values) for name, values in found.items()}
    print(f"one broadcast to {asked.connections} WebSocket connections, server CPU per delivery")
    for name, what in ROWS:
        print(f"  {what:42}{medians[name]:8.2f} us{medians[name] / medians['bare']:8.2f} x")
    used = versions(["trio", "cython"])
    if asked.json:
        asked.json.write_text(json.dumps({"us": medians, "rounds": found, "versions": used} | vars(asked), default=str))


if __name__ == "__main__":
    main()
