from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.transports.harness import Certificates, Pair, certificates, open_pair


@pytest.fixture(scope="session")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return certificates(tmp_path_factory)


@pytest.fixture
async def plain_pair() -> AsyncIterator[Pair]:
    async with open_pair() as made:
        yield made


@pytest.fixture
async def tls_pair(tls: Certificates) -> AsyncIterator[Pair]:
    async with open_pair(tls) as made:
        yield made


@pytest.fixture(params=["plain", "tls"])
async def pair(request: pytest.FixtureRequest, tls: Certificates) -> AsyncIterator[Pair]:
    async with open_pair(tls if request.param == "tls" else None) as made:
        yield made
