"""The SQLite store behaves as the model of all stores, also when it is opened anew."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import trio
from hypothesis.stateful import invariant, rule

from gateway.logic.database import connect
from gateway.logic.groups import add_members, create_group, remove_members
from gateway.logic.store import History, Outcome, Page, Retention, Write
from gateway.logic.store_sqlite import SqliteStore
from tests.contracts.store_model import SETTINGS, StoreModel, pruned


class SqliteMachine(StoreModel):
    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.path = Path(self.directory.name) / "logic.sqlite"

    def make_groups(self, groups: Sequence[int]) -> None:
        self.store = SqliteStore(connect(self.path))
        for group in groups:
            create_group(self.path, group)

    def write_some(self, writes: list[Write], now_ms: int) -> list[Outcome]:
        return trio.run(self.store.write, writes, now_ms)

    def read_some(self, queries: list[History]) -> list[Page]:
        return trio.run(self.store.read, queries)

    def prune_all(self, retention: Retention) -> None:
        trio.run(pruned, self.store, retention)

    def change_member(self, group: int, user: int, joins: bool) -> None:
        (add_members if joins else remove_members)(self.path, group, [user])

    @rule()
    def reopen(self) -> None:
        self.store._connection.close()
        self.store = SqliteStore(connect(self.path))

    @invariant()
    def nothing_dangles(self) -> None:
        if hasattr(self, "store"):
            query = "SELECT COUNT(*) FROM timelines WHERE message NOT IN (SELECT id FROM messages)"
            assert self.store._connection.execute(query).fetchone() == (0,)
            query = "SELECT COUNT(*) FROM messages WHERE refs != (SELECT COUNT(*) FROM timelines WHERE message = id)"
            assert self.store._connection.execute(query).fetchone() == (0,)
            assert self.store._connection.execute("SELECT COUNT(*) FROM messages WHERE refs = 0").fetchone() == (0,)

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store._connection.close()
        self.directory.cleanup()


TestSqliteMachine = SqliteMachine.TestCase
TestSqliteMachine.settings = SETTINGS
