"""What a bus counts beyond its accounts, as Prometheus families. A bus within the process has fewer of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

FAMILIES = (
    ("access_bus_refused", "counter", "refused", "Payloads that the bus had no room for, whoever offered them."),
    ("access_bus_failures", "counter", "failures", "Exceptions of what handles payloads here: bugs."),
    ("access_bus_connected", "counter", "connections", "Times that the bus got a connection to a server."),
    ("access_bus_round_trip", "gauge", "round_trip", "Seconds that the bus's server took for its last answer."),
)


def families(statistics: Any) -> Iterator[tuple[str, str, str, list[tuple[str, float]]]]:
    """Name, kind, text and sample of each that these statistics have."""
    for name, kind, attribute, text in FAMILIES:
        value = getattr(statistics, attribute, None)
        if value is not None:
            yield name, kind, text, [("", value)]
