"""A path that loses every twentieth datagram, repeats some, lets others overtake, and takes 50 ms there and back."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from gateway.client import Client, Trust, connect, file_of
from gateway.core.settings import LimitSettings
from tests.support.lossy import LossyPath, Weather
from tests.support.node import LinkKind, RunningNode, client_tls, open_running

MESSAGES = 1000
FILE = 5_000_000
PATIENCE = 240.0
RATE = LimitSettings(message_rate=10_000, message_burst=10_000)


@asynccontextmanager
async def stormy(folder: Path, kind: LinkKind) -> AsyncIterator[tuple[RunningNode, Client, Client, LossyPath]]:
    """A node, and two clients of it at the other end of such a path."""
    async with open_running(folder / "data", kind, limits=RATE) as running, trio.open_nursery() as nursery:
        host, _, port = running.node.addresses["quic"].rpartition(":")
        path = LossyPath((host, int(port)), Weather())
        await nursery.start(path.run)
        url = running.url.replace(f":{port}", f":{path.port}")
        async with client(running, url, 1001) as alice, client(running, url, 1002) as bob:
            yield running, alice, bob, path
        assert min(path.lost, path.repeated, path.late) > 0
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def client(running: RunningNode, url: str, user: int) -> AsyncIterator[Client]:
    trust = Trust(context=client_tls())
    async with connect(url, token=running.token(user), device_id="phone", trust=trust) as each:
        yield each


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", ["quic", "https"])
async def test_a_chat_of_a_thousand_messages_arrives_each_once(kind: LinkKind, tmp_path: Path) -> None:
    with trio.fail_after(PATIENCE):
        async with stormy(tmp_path, kind) as (_, alice, bob, path):
            heard: Counter[str] = Counter()
            said = [f"message {number}" for number in range(MESSAGES)]

            async def talk() -> None:
                for each in said:
                    await alice.send(each, to_user=1002, wait=None)
                    await trio.sleep(0.002)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(talk)
                async for delivery in bob:
                    heard[delivery.content] += 1
                    if len(heard) == MESSAGES:
                        break
            await alice.wait_acknowledged()
            assert list(heard) == said, "each in its order"
            assert set(heard.values()) == {1}
            print(f"\n{kind}: of {path.carried} datagrams {path.lost} lost, {path.repeated} repeated, {path.late} late")


@pytest.mark.timeout(300)
async def test_a_file_of_five_megabytes_arrives_whole_and_messages_pass_beside_it(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(FILE))
    with trio.fail_after(PATIENCE):
        async with stormy(tmp_path, "quic") as (running, alice, bob, _):
            async with client(running, running.url, 1003) as carol:  # whose path is a good one
                await carol.send_file(source, to_user=1002)
            file = file_of(await anext(bob))
            assert file is not None
            async with trio.open_nursery() as nursery:
                nursery.start_soon(partial(alice.send_file, source, to_user=1003))
                nursery.start_soon(bob.fetch, file, tmp_path / "got")
                for number in range(20):
                    await trio.sleep(0.5)
                    await alice.send(f"beside {number}", to_user=1002)
                    assert (await anext(bob)).content == f"beside {number}"
            async with client(running, running.url, 1003) as carol:
                sent = file_of(await anext(carol))
                assert sent is not None
                await carol.fetch(sent, tmp_path / "sent")
    assert (tmp_path / "got").read_bytes() == (tmp_path / "sent").read_bytes() == source.read_bytes()
