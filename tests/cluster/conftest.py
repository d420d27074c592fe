"""The cluster of `make cluster`, for each test. Collected by `make cluster-test` alone: it takes its time."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from examples.cluster import Cluster
from tests.cluster.world import World

collect_ignore_glob = [] if os.environ.get("CLUSTER") else ["test_*.py"]


@pytest.fixture
def uplink() -> str:
    """What `nats.uplink` is; a test may say otherwise by its parameters."""
    return "core"


@pytest.fixture
async def world(tmp_path: Path, uplink: str) -> AsyncIterator[World]:
    """A fresh cluster that serves; killed afterwards, and nothing of it died by itself."""
    settings = ["limits.message_rate=10000", "limits.message_burst=10000", f"nats.uplink={uplink}"]
    cluster = Cluster(tmp_path / "cluster", settings=settings)
    try:
        await cluster.start()
        yield World(cluster)
        assert not [process.obituary() for process in cluster.processes.values() if process.died]
    finally:
        cluster.kill()
