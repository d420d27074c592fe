"""The exposition: exact names (protocol section 8), read back by prometheus_client's own parser."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from pathlib import Path

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from gateway.backends.memory import MemoryBus
from gateway.backends.nats_statistics import NatsBusStatistics
from gateway.console.metrics import exposition
from gateway.core.books import Account
from gateway.core.metrics import Metrics
from gateway.transports.quic.statistics import Counts, QuicStatistics, counted
from gateway.transports.quic.tickets import Tickets

REQUIRED = {
    "access_connections_total": "gauge",
    "access_messages_received": "counter",
    "access_messages_sent": "counter",
    "access_auth_success": "counter",
    "access_auth_failed": "counter",
    "access_message_latency": "histogram",
}


BOOKS = [Account("frames", 5, {"heartbeat": 4}), Account("reports", 0, {"sent": 0})]
QUIC = replace(  # every number another one
    counted(Counts(), None, Tickets(1), open=1, half_open=2, ids=3), closed={0: 4, 4400: 5}, dropped={"malformed": 6}
)


BUS = NatsBusStatistics(**dict.fromkeys(NatsBusStatistics.__struct_fields__, 7))


def filled() -> Metrics:
    metrics = Metrics()
    metrics.connections, metrics.sessions = 3, 2
    metrics.messages_received, metrics.messages_sent, metrics.auth_success = 10, 20, 4
    metrics.auth_failed.update({4100: 5, 4101: 1})
    metrics.closed.update({0: 1, 4403: 2, 1002: 1})
    metrics.latency.observe(0.00005)
    metrics.latency.observe(0.09, 3)
    metrics.latency.observe(60.0)
    return metrics


def families(metrics: Metrics, *, ready: bool = True) -> dict[str, Metric]:
    return parsed(exposition(metrics, BOOKS, QUIC, BUS, ready=ready))


def parsed(text: bytes) -> dict[str, Metric]:
    return {family.name: family for family in text_string_to_metric_families(text.decode())}


def value(family: Metric, **labels: str) -> float:
    """The parser gives every counter its `_total`; what the text says is tested below."""
    names = (family.name, f"{family.name}_total")
    (sample,) = (each for each in family.samples if each.labels == labels and each.name in names)
    return sample.value


def test_exact_names_and_kinds() -> None:
    text = exposition(filled(), ready=True).decode()
    for name, kind in REQUIRED.items():
        assert text.count(f"\n# TYPE {name} {kind}\n") + text.startswith(f"# TYPE {name} {kind}\n") == 1
        assert f"# HELP {name} " in text
        if kind != "histogram":
            assert f"\n{name} " in text
    ours = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE access_")]
    assert len(ours) == len(set(ours))
    assert [name for name in ours if name.endswith(("_total", "_created"))] == ["access_connections_total"]


def test_values() -> None:
    found = families(filled())
    assert value(found["access_connections_total"]) == 3
    assert value(found["access_sessions"]) == 2
    assert value(found["access_messages_received"]) == 10
    assert value(found["access_messages_sent"]) == 20
    assert value(found["access_auth_success"]) == 4
    assert value(found["access_auth_failed"]) == 6
    assert value(found["access_auth_failed_by_code"], code="4101", reason="token_expired") == 1
    assert value(found["access_connections_closed"], code="4403", reason="heartbeat_timeout") == 2
    assert value(found["access_connections_closed"], code="1002", reason="other") == 1
    assert value(found["access_ready"]) == 1
    assert value(families(filled(), ready=False)["access_ready"]) == 0


def test_the_histogram_is_cumulative_and_complete() -> None:
    family = families(filled())["access_message_latency"]
    buckets = {each.labels["le"]: each.value for each in family.samples if each.name.endswith("_bucket")}
    counts = list(buckets.values())
    assert counts == sorted(counts)
    assert (buckets["0.0001"], buckets["0.05"], buckets["0.1"], buckets["5.0"], buckets["+Inf"]) == (1, 1, 4, 4, 5)
    totals = {each.name: each.value for each in family.samples if not each.labels}
    assert totals["access_message_latency_count"] == 5
    assert abs(totals["access_message_latency_sum"] - 60.27005) < 1e-9


def test_the_books_are_shown_with_what_does_not_add_up() -> None:
    found = families(filled())
    assert value(found["access_books_came"], account="frames") == 5
    assert value(found["access_books_became"], account="frames", outcome="heartbeat") == 4
    assert value(found["access_books_difference"], account="frames") == 1
    assert value(found["access_books_difference"], account="reports") == 0


def test_every_number_of_the_udp_port_is_shown() -> None:
    found = families(filled())
    for field in fields(QuicStatistics):
        assert found[f"access_quic_{field.name}"].documentation
    assert value(found["access_quic_half_open"]) == 2
    assert value(found["access_quic_closed"], code="4400") == 5
    assert value(found["access_quic_dropped"], cause="malformed") == 6


def test_every_number_of_the_node_is_shown_or_in_its_books() -> None:
    """A limit that drops and counts is of use only where the count can be seen."""
    metrics = Metrics()
    in_books = {"auth_requests", "file_frames", "frames", "implied_syncs", "upstreams_beside"}
    in_books |= {"kicks_sent", "reports_not_due", "reports_refused", "reports_sent"}
    for number, name in enumerate(name for name, kind in vars(Metrics).items() if isinstance(kind, int)):
        setattr(metrics, name, 1_000_000 + number)
    shown = exposition(metrics, ready=True).decode()
    hidden = {name for name, count in vars(metrics).items() if isinstance(count, int) and f" {count}\n" not in shown}
    assert hidden == in_books


def test_what_a_bus_counts_is_shown_as_far_as_it_does() -> None:
    found = families(filled())
    names = ("access_bus_refused", "access_bus_failures", "access_bus_connected", "access_bus_round_trip")
    assert [value(found[name]) for name in names] == [7, 7, 7, 7]
    alone = parsed(exposition(Metrics(), bus=MemoryBus().statistics(), ready=True))
    assert [name for name in names if name in alone] == ["access_bus_refused", "access_bus_failures"]


def test_a_process_without_a_node_shows_its_books_and_itself() -> None:
    found = parsed(exposition(None, BOOKS, ready=True))
    ours = {name for name in found if name.startswith("access_")}
    books = {f"access_books_{each}" for each in ("came", "became", "difference")}
    assert ours == books | {"access_ready", "access_build_info"}


def test_the_process_is_shown_too() -> None:
    found = families(Metrics())
    assert value(found["process_resident_memory_bytes"]) > 1_000_000
    assert value(found["process_open_fds"]) > 0


def test_t29_labels_hold_codes_and_never_who() -> None:
    for family in families(filled()).values():
        for sample in family.samples:
            assert set(sample.labels) <= {
                "account",
                "cause",
                "code",
                "generation",
                "le",
                "outcome",
                "reason",
                "version",
            }


def test_operators_find_every_name_explained() -> None:
    page = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    names = [
        line.split()[2]
        for line in exposition(filled(), BOOKS, QUIC, BUS, ready=True).decode().splitlines()
        if line.startswith("# TYPE access_")
    ]
    assert names
    for name in names:
        assert re.search(rf"`{name}(\{{[a-z,]+\}})?`", page), name
