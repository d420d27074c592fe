"""Runs Autobahn|Testsuite against the echo server, ws and wss side by side, and judges the outcome.

    python -m tests.autobahn.run PATH_OF_WSTEST

Fails when a case FAILED (or was closed wrongly), or more than two were NON-STRICT.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import trustme

CASES = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.*", "10.*"]
"""All but 12 and 13, which are about permessage-deflate."""
DEADLINE = 600.0
"""Seconds for one run of all cases."""
MOST_NON_STRICT = 2
GOOD = {"OK", "NON-STRICT", "INFORMATIONAL", "UNIMPLEMENTED"}
FEWEST_CASES = 290
"""Fewer than these mean that the suite did not run, whatever it says."""


def start(
    folder: Path, wstest: str, scheme: str, certificate: str
) -> tuple[subprocess.Popen[str], subprocess.Popen[str]]:
    """One echo server and the fuzzing client against it."""
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.autobahn.echo_server", *([certificate] if certificate else [])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    port = int(server.stdout.readline())
    spec = folder / f"{scheme}.json"
    spec.write_text(
        json.dumps(
            {
                "outdir": str(folder / scheme),
                "servers": [{"agent": scheme, "url": f"{scheme}://127.0.0.1:{port}/ws"}],
                "cases": CASES,
                "exclude-cases": [],
                "exclude-agent-cases": {},
            }
        )
    )
    with (folder / f"{scheme}.log").open("w") as log:
        client = subprocess.Popen(
            [wstest, "-m", "fuzzingclient", "-s", str(spec)], stdout=log, stderr=log, text=True, cwd=folder
        )
    return server, client


def judge(scheme: str, results: dict[str, Any]) -> list[str]:
    """Print a summary of one run; return what is wrong with it."""
    behaviour = Counter(case["behavior"] for case in results.values())
    closing = Counter(case["behaviorClose"] for case in results.values())
    print(f"{scheme:4} {len(results):4} cases  " + "  ".join(f"{name} {n}" for name, n in sorted(behaviour.items())))
    print(f"     closing     " + "  ".join(f"{name} {n}" for name, n in sorted(closing.items())))  # noqa: F541
    wrong = [
        f"{scheme} {name}: {case['behavior']}, closing {case['behaviorClose']}"
        for name, case in results.items()
        if case["behavior"] not in GOOD or case["behaviorClose"] not in GOOD
    ]
    lax = [name for name, case in results.items() if case["behavior"] == "NON-STRICT"]
    if lax:
        print(f"     non-strict: {' '.join(lax)}")
    if len(lax) > MOST_NON_STRICT:
        wrong.append(f"{scheme}: {len(lax)} cases are non-strict, at most {MOST_NON_STRICT} may be")
    if len(results) < FEWEST_CASES:
        wrong.append(f"{scheme}: only {len(results)} cases ran")
    return wrong


def main(wstest: str) -> int:
    """Run both, return the exit code."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        certificate = folder / "server.pem"
        trustme.CA().issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(certificate))
        runs = {scheme: start(folder, wstest, scheme, cert) for scheme, cert in (("ws", ""), ("wss", str(certificate)))}
        wrong = []
        try:
            for scheme, (_, client) in runs.items():
                client.wait(max(1.0, began + DEADLINE - time.monotonic()))
                index = folder / scheme / "index.json"
                if client.returncode or not index.exists():
                    wrong.append(f"{scheme}: wstest ended with {client.returncode}:")
                    wrong.append((folder / f"{scheme}.log").read_text()[-2000:])
                else:
                    wrong += judge(scheme, json.loads(index.read_text())[scheme])
        except subprocess.TimeoutExpired:
            wrong.append(f"not finished after {DEADLINE:.0f} s")
        finally:
            for server, client in runs.values():
                client.kill()
                server.kill()
                server.communicate()
                client.wait()
    for line in wrong:
        print(line)
    print(f"Autobahn: {'FAILED' if wrong else 'passed'} in {time.monotonic() - began:.0f} s")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(str(Path(sys.argv[1]).absolute())))
