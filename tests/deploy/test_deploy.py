"""What deploy/ shows and watches is what a node tells. `make alerts` checks the queries themselves."""

from __future__ import annotations

import json
import re

import pytest

from gateway.console.metrics import exposition
from gateway.core.books import Account
from gateway.core.metrics import Metrics
from gateway.protocol.codes import Code
from gateway.transports.quic.statistics import Counts, counted
from gateway.transports.quic.tickets import Tickets
from tests.deploy.files import DASHBOARD, DEPLOY, RULES, named, queries

CORE, LOGIC = DEPLOY.parent / "gateway" / "core", DEPLOY.parent / "gateway" / "logic"


def told() -> set[str]:
    """The names of everything that a node exposes."""
    port = counted(Counts(), None, Tickets(1), open=0, half_open=0, ids=0)
    text = exposition(Metrics(), [Account("frames", 0, {"heartbeat": 0})], port, ready=True).decode()
    kinds: dict[str, str] = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    parts = {
        f"{name}{part}" for name, kind in kinds.items() if kind == "histogram" for part in ("_bucket", "_sum", "_count")
    }
    return {*kinds, *parts}


@pytest.mark.parametrize(
    "path", [RULES, DASHBOARD, DEPLOY / "prometheus" / "alerts.test.yml"], ids=lambda path: path.name
)
def test_every_metric_that_is_named_is_told(path: object) -> None:
    found = named(RULES.parent.joinpath(str(path)).read_text())
    assert len(found) > 3
    assert not found - told()


def test_the_dashboard_shows_what_there_is_to_see() -> None:
    shown = set().union(*(named(query) for _, query in queries()))
    assert {
        *("access_connections_total", "access_sessions", "access_messages_received", "access_messages_sent"),
        *("access_auth_success", "access_auth_failed", "access_message_latency_bucket", "access_requests_refused"),
        *("access_connections_closed", "access_throttled", "process_cpu_seconds_total"),
        *("process_resident_memory_bytes", "access_books_difference", "access_quic_connections"),
    } <= shown


def test_the_accounts_that_are_named_are_kept() -> None:
    """An account or an outcome that was renamed would leave a panel empty and say nothing."""
    text = DASHBOARD.read_text() + RULES.read_text()
    sources = "".join(path.read_text() for path in (*CORE.glob("books.py"), *LOGIC.glob("*.py")))
    found = set(re.findall(r'(?:account|outcome)=\\"([a-z_]+)\\"', text))
    assert len(found) > 5
    for name in found:
        assert f'"{name}"' in sources, name


def test_the_slow_consumers_of_the_dashboard_are_the_protocol_s() -> None:
    codes = {int(code) for _, query in queries() for code in re.findall(r'code="(\d+)"', query)}
    assert codes == {Code.SLOW_CONSUMER}


def test_no_panel_covers_another() -> None:
    covered: set[tuple[int, int]] = set()
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + dx, place["y"] + dy) for dx in range(place["w"]) for dy in range(place["h"])}
        assert not cells & covered, panel["title"]
        assert place["x"] + place["w"] <= 24
        covered |= cells
