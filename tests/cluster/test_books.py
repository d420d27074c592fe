"""What came into a cluster of real processes is what became of it, in each process and between them."""

from __future__ import annotations

import signal

import pytest
import trio

from benchmarks.books import at_rest, traffic, wrong
from gateway.core.books_cluster import Books, between, merged
from tests.cluster.world import World


def missing(processes: list[Books], crossing: str) -> int:
    return {account.name: account for account in between(processes)}[crossing].difference


@pytest.mark.slow
async def test_it_adds_up_exactly_while_clients_race_and_vanish(world: World) -> None:
    await traffic(world.cluster, 4, 10)
    processes = await at_rest(world.cluster)
    assert wrong(processes) == []
    sums = {account.name: account for account in merged(processes)}
    assert sums["published"].became["kicks"] > 0
    assert sums["logic_upstreams"].became["stored"] > 0


@pytest.mark.slow
async def test_what_a_killed_logic_held_is_what_is_missing(world: World) -> None:
    """The survivors' own accounts add up all the same; the sum says how much of the nodes' the dead one had."""
    cluster = world.cluster

    async def kill() -> None:
        await trio.sleep(2)
        await cluster["logic-1"].end(signal.SIGKILL)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(kill)
        await traffic(cluster, 4, 10)
    processes = [*await at_rest(cluster, ("node-1", "node-2", "logic-2"))]
    assert all(account.balanced for account in merged(processes))
    assert missing(processes, "nodes_to_logic") > 0
    assert missing(processes, "events_to_nodes") == 0
