"""Several processes as one gateway: what is sent arrives, whoever is where and whoever dies."""

from __future__ import annotations

import signal

import pytest
import trio

from gateway.client import Client, Refused
from gateway.protocol.codes import Code
from gateway.protocol.types import AckStatus
from tests.cluster.world import NODES, PATIENCE, World, take, until

ANNA, BO, CLEO = 1001, 1002, 1003
LOGINS = 200
MESSAGES = 300


@pytest.mark.slow
async def test_people_on_two_nodes_talk(world: World) -> None:
    async with world.client(ANNA, "node-1") as anna, world.client(BO, "node-2") as bo:
        assert (anna.node_id, bo.node_id) == NODES
        receipt = await anna.send("hello", to_user=BO)
        assert receipt is not None
        assert receipt.status is AckStatus.STORED
        assert await take(bo) == "hello"
        await bo.send("and to you", to_user=ANNA)
        assert await take(anna) == "and to you"


@pytest.mark.slow
async def test_of_200_racing_logins_of_a_device_one_is_left(world: World) -> None:
    displaced: list[int] = []
    seated: set[Client] = set()
    heard: list[str] = []

    async def log_in(node: str) -> None:
        try:
            async with world.client(ANNA, node) as client:
                seated.add(client)
                try:
                    async for delivery in client:
                        heard.append(delivery.content)
                finally:
                    seated.discard(client)
        except Refused as refused:
            displaced.append(refused.code)

    async with trio.open_nursery() as nursery:
        for number in range(LOGINS):
            nursery.start_soon(log_in, NODES[number % 2])
        await until(lambda: len(displaced) == LOGINS - 1)
        with trio.fail_after(PATIENCE):
            while await world.sum("access_connections_total") != 1:
                await trio.sleep(0.05)
        assert set(displaced) == {Code.REPLACED_BY_SAME_DEVICE}
        assert await world.sum("access_sessions") == 1
        assert len(world.stored_locations(ANNA)) == 1
        async with world.locations() as locations:
            (location,) = (await locations.lookup([ANNA]))[ANNA]
        (winner,) = seated
        assert location.access_node == winner.node_id
        async with world.client(BO, "node-1") as bo:  # and it is the one that is found
            await bo.send("still there?", to_user=ANNA)
            await until(lambda: heard)
        assert heard == ["still there?"]
        nursery.cancel_scope.cancel()


@pytest.mark.slow
async def test_a_killed_node_is_forgotten_and_its_users_return_elsewhere(world: World) -> None:
    async with world.client(BO, "node-2") as bo, world.locations() as locations:
        async with world.client(ANNA, "node-1"), world.client(CLEO, "node-1"):
            await world.cluster["node-1"].end(signal.SIGKILL)
        assert world.stored_locations(ANNA)
        with trio.fail_after(20):  # 15, and what a busy machine adds
            async with world.client(CLEO, "node-2") as cleo:  # at once, while her old entry still stands
                await bo.send("back already", to_user=CLEO)
                assert await take(cleo) == "back already"
            while ANNA in await locations.lookup([ANNA, BO]):
                await trio.sleep(0.1)
        assert BO in await locations.lookup([ANNA, BO])
        await bo.send("while you were away", to_user=ANNA)
        async with world.client(ANNA, "node-2") as anna:
            assert await take(anna) == "while you were away"
            await bo.send("and now", to_user=ANNA)
            assert await take(anna) == "and now"


@pytest.mark.slow
async def test_one_logic_of_two_is_killed_and_every_stored_message_arrives_once(world: World) -> None:
    heard: list[str] = []
    stored: list[str] = []

    async with world.client(ANNA, "node-1") as anna, world.client(BO, "node-2") as bo:

        async def listen() -> None:
            async for delivery in bo:
                heard.append(delivery.content)

        async def send(text: str) -> None:
            receipt = await anna.send(text, to_user=BO, msg_id=text)
            if receipt is not None and receipt.status is AckStatus.STORED:
                stored.append(text)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            async with trio.open_nursery() as sending:
                for number in range(MESSAGES):
                    sending.start_soon(send, f"m{number}")
                    await trio.sleep(0.005)
                    if number == MESSAGES // 3:
                        world.cluster["logic-1"].kill()
            await until(lambda: len(heard) >= MESSAGES)
            sent = {f"m{number}" for number in range(MESSAGES)}
            assert set(stored) == sent
            assert sorted(heard) == sorted(sent)
            assert (anna.statistics().logins, bo.statistics().logins) == (1, 1)
            nursery.cancel_scope.cancel()

    async with world.client(BO, "node-1", device="tablet") as other:  # what is kept has no second one either
        with trio.fail_after(PATIENCE):
            kept = [(await anext(other)).content for _ in sent]
        assert sorted(kept) == sorted(sent)
        assert not (await other.sync(other.cursor)).deliveries


@pytest.mark.slow
@pytest.mark.parametrize("uplink", ["jetstream"])
async def test_t36_accepted_arrives_once_though_nats_and_both_logics_are_killed(world: World) -> None:
    """Accepted while no Logic runs, nothing is sent again, and NATS is killed before one does."""
    heard: list[str] = []

    async with world.client(ANNA, "node-1") as anna, world.client(BO, "node-2") as bo:
        for name in ("logic-1", "logic-2"):
            world.cluster[name].kill()
        for number in range(MESSAGES):
            receipt = await anna.send(f"m{number}", to_user=BO, wait="accepted")
            assert receipt is not None
            assert receipt.status is AckStatus.ACCEPTED
        world.cluster["nats"].kill()
        await world.cluster.restart("nats")

        async def listen() -> None:
            async for delivery in bo:
                heard.append(delivery.content)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            for name in ("logic-1", "logic-2"):
                await world.cluster.restart(name)
            await until(lambda: len(heard) >= MESSAGES)
            nursery.cancel_scope.cancel()
        sent = [f"m{number}" for number in range(MESSAGES)]
        assert sorted(heard) == sorted(sent)
        assert (anna.statistics().logins, bo.statistics().logins) == (1, 1)
    async with world.client(BO, "node-1", device="tablet") as other:
        with trio.fail_after(PATIENCE):
            kept = [(await anext(other)).content for _ in sent]
        assert sorted(kept) == sorted(sent)
        assert not (await other.sync(other.cursor)).deliveries
