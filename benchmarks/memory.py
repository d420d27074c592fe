"""What an idle authenticated connection costs the node in user-space memory.

    python benchmarks/memory.py [--json FILE] [--connections 10000] [--only KIND,...]

A whole node with its embedded Logic, in a process of its own; clients in others. Private bytes (smaps_rollup) after a
collection, at a few hundred connections and at all of them: the difference per connection. `trimmed` is the
same after the C allocator has given back what logins left free. The kernel's socket buffers are not in it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import trustme

from benchmarks.processes import Server, versions

KINDS = ["tcp", "tcp+tls", "websocket", "websocket+tls"]
TARGETS = {"tcp": 12_000, "websocket": 13_000, "websocket+tls": 32_000}
"""The most bytes per connection; for TCP with TLS none is set."""
WARM = 500
"""Connections that are there before: what is loaded and cached on first use is not counted."""
PER_PROCESS = 10_000


def measured(kind: str, connections: int, certificate: str) -> dict[str, Any]:
    """One kind, from start to end."""
    server = Server("memory_server.py", kind, certificate)
    loads: list[Server] = []
    try:
        loads.append(Server("memory_load.py", kind, server.said, 1000))
        loads[0].tell(str(WARM))
        before = json.loads(server.tell(""))
        missing = connections
        while missing:
            count = min(missing, PER_PROCESS)
            loads.append(Server("memory_load.py", kind, server.said, 1_000_000 * len(loads)))
            loads[-1].tell(str(count))
            missing -= count
        after = json.loads(server.tell(""))
    finally:
        for each in [server, *loads]:
            each.stop()
    assert after["users"] - before["users"] == connections, (before, after)
    return {
        "bytes": (after["private"] - before["private"]) // connections,
        "bytes_trimmed": (after["trimmed"] - before["trimmed"]) // connections,
        "before": before,
        "after": after,
    }


def main() -> None:
    """Measure, print, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--only", default=",".join(KINDS))
    asked = parser.parse_args()
    results = {}
    print(f"{'bytes per idle connection':28}{'private':>10}{'trimmed':>10}{'at most':>10}")
    with tempfile.TemporaryDirectory() as folder:
        certificate = Path(folder) / "server.pem"
        trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(certificate)
        for kind in asked.only.split(","):
            found = results[kind] = measured(kind, asked.connections, str(certificate))
            target = TARGETS.get(kind, "-")
            print(f"{kind:28}{found['bytes']:10}{found['bytes_trimmed']:10}{target:>10}", flush=True)
    used = versions(["trio", "cython"])
    print(", ".join(f"{name} {number}" for name, number in used.items()))
    if asked.json:
        asked.json.write_text(json.dumps({"results": results, "versions": used}, indent=1))


if __name__ == "__main__":
    main()
