"""No query of Logic reads more than it needs: every plan goes by an index, however large the tables are."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from gateway.logic import store_sqlite
from gateway.logic.database import connect

QUERIES = {
    name: value
    for name, value in vars(store_sqlite).items()
    if isinstance(value, str) and value.startswith(("SELECT", "UPDATE")) and "?" in value
}


def test_there_are_queries_to_look_at() -> None:
    assert len(QUERIES) >= 9


@pytest.mark.parametrize("name", sorted(QUERIES))
def test_by_an_index(path: Path, name: str) -> None:
    query = QUERIES[name]
    with closing(connect(path)) as connection:
        plan = connection.execute(f"EXPLAIN QUERY PLAN {query}", ("[]",) * query.count("?")).fetchall()
    for *_, step in plan:
        assert "SEARCH" in step or "SCAN j VIRTUAL TABLE" in step or "SCALAR SUBQUERY" in step, step
        assert "TEMP B-TREE" not in step
