"""What the files in deploy/ say: their queries, and the metrics these name."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = DEPLOY / "prometheus" / "alerts.yml"
DASHBOARD = DEPLOY / "grafana" / "gateway.json"

_NAME = re.compile(r"\b(?:access|process|python)_[a-z_]+\b")


def queries() -> Iterator[tuple[str, str]]:
    """The title and the query of every line that the dashboard draws."""
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


def named(text: str) -> set[str]:
    """The metrics that a text names, in queries or in words."""
    return set(_NAME.findall(text))
