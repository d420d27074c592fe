"""`make alerts`: promtool on the alert rules, their tests, and the dashboard's queries.

    python -m tests.deploy.alerts PROMTOOL

Each part of each rule is then broken in a copy, and the rule test must notice: a test that cannot fail proves nothing.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.deploy.files import DEPLOY, RULES, queries

BREAKS = (
    # the surge
    ("> 1.5 *", "> 1.6 *"),
    ("> 1.5 *", "> 1.49 *"),
    (">= 100\n        for: 1m", ">= 0\n        for: 1m"),
    ("[5m:15s] offset 5m", "[15s:15s] offset 5m"),
    ("sum by (job) (access_connections_total)", "sum by (job, instance) (access_connections_total)"),
    ("for: 1m", "for: 0m"),
    ("for: 1m", "for: 3m"),
    # the failed logins
    (
        "> 0.1\n          and\n          sum by (job) (increase",
        "> 0.25\n          and\n          sum by (job) (increase",
    ),
    (
        "> 0.1\n          and\n          sum by (job) (increase",
        "> 0.05\n          and\n          sum by (job) (increase",
    ),
    (">= 20", ">= 0"),
    ("sum by (job) (rate(access_auth_failed[5m]))", "rate(sum by (job) (access_auth_failed)[5m:15s])"),
    # the latency
    (
        "> 0.1\n          and\n          sum by (job, instance)",
        "> 0.25\n          and\n          sum by (job, instance)",
    ),
    ("quantile(0.99, sum by (job, instance, le)", "quantile(0.99, sum by (job, le)"),
    ("quantile(0.99,", "quantile(0.995,"),
    ("access_message_latency_count[5m])) >= 100", "access_message_latency_count[5m])) >= 0"),
    ("for: 2m", "for: 0m"),
    # the books
    ("(access_books_difference) != 0", "(access_books_difference) > 0"),
    ("sum by (job, instance, account) (access_books_difference)", "sum by (job, instance) (access_books_difference)"),
    # the faults
    ("increase(access_faults[10m])) > 0", "increase(access_faults[10m])) > 1"),
    ("increase(access_quic_failures[10m])) > 0", "increase(access_quic_failures[10m])) > 2"),
    ("increase(access_faults[10m])", "increase(access_faults[1m])"),
)
"""What to replace everywhere in the rules, and by what; each makes at least one alert wrong."""


def main(promtool: str) -> int:
    """The exit code: 0 when promtool accepts everything and notices every break."""
    folder = RULES.parent
    if not all(
        (
            _accepts(promtool, "check", "config", str(folder / "prometheus.yml")),
            _accepts(promtool, "test", "rules", str(folder / "alerts.test.yml")),
            _dashboard(promtool),
        )
    ):
        return 1
    missed = [f"{old!r} -> {new!r}" for old, new in BREAKS if not _noticed(promtool, old, new)]
    for each in missed:
        print(f"alerts: the rule test does not notice {each}", file=sys.stderr)
    print(f"alerts: the rules hold; {len(BREAKS) - len(missed)} of {len(BREAKS)} breaks are noticed")
    return int(bool(missed))


def _accepts(promtool: str, *words: str, loud: bool = True) -> bool:
    done = subprocess.run(
        [promtool, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, check=False
    )
    if done.returncode and loud:
        print(done.stdout, file=sys.stderr)
    return done.returncode == 0


def _dashboard(promtool: str) -> bool:
    """Whether the dashboard's queries can be read: as rules, which is what promtool reads."""
    rules = [
        {"record": f"panel:{number}", "expr": query.replace("$__rate_interval", "1m")}
        for number, (_, query) in enumerate(queries())
    ]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "dashboard.yml"
        path.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))  # JSON is YAML
        return _accepts(promtool, "check", "rules", str(path))


def _noticed(promtool: str, old: str, new: str) -> bool:
    text = RULES.read_text()
    assert old in text, f"{old!r} is not in {RULES.name} any more"
    with TemporaryDirectory() as folder:
        for path in (DEPLOY / "prometheus").glob("*.yml"):
            shutil.copy(path, folder)
        (Path(folder) / RULES.name).write_text(text.replace(old, new))
        assert _accepts(promtool, "check", "rules", str(Path(folder) / RULES.name)), f"{new!r} is no rule"
        return not _accepts(promtool, "test", "rules", str(Path(folder) / "alerts.test.yml"), loud=False)


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
