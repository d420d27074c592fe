"""Fixtures of Logic's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.logic.world import World, open_world


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "logic.sqlite"


@pytest.fixture
async def world(path: Path) -> AsyncIterator[World]:
    async with open_world(path) as world:
        yield world
