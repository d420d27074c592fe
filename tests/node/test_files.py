"""Files through real nodes on every kind of link: with chat beside them, over a cut, on a shared directory."""

from __future__ import annotations

import fcntl
import random
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
import trio

from gateway.backends.memory_files import MemoryFileStore
from gateway.client import Client, ClientSettings, Delivery, FileFailed, OfferedFile, Receipt, connect, file_of
from gateway.client.trust import Trust
from gateway.core.settings_files import FileSettings
from gateway.logic.groups import create_group
from gateway.logic.settings import STORE_FILE
from gateway.node import open_node
from gateway.protocol.codes import Code
from gateway.protocol.files import CHUNK, file_reference
from gateway.protocol.messages import ErrorMessage, FileAck
from gateway.transports.tcp import TcpLink
from tests.support.files import ack_of, chunks_of, offer_of, send_file
from tests.support.lossy import LossyPath, Weather
from tests.support.node import LinkKind, RunningNode, client_tls, open_running, test_config

PATIENCE = 120.0
KINDS: tuple[LinkKind, ...] = ("tcp", "ws", "quic", "https")
MEGABYTE = 1_048_576
SIOCOUTQNSD = 0x894B
"""Linux: bytes of a socket that are not sent yet."""


@asynccontextmanager
async def seated(
    running: RunningNode, user: int, device: str = "phone", *, url: str = "", **settings: Any
) -> AsyncIterator[Client]:
    """A client of this node."""
    async with connect(
        url or running.url,
        token=running.token(user),
        device_id=device,
        trust=Trust(context=client_tls()),
        settings=ClientSettings(**settings),
    ) as client:
        yield client


def made(folder: Path, size: int, name: str = "holiday.jpg") -> Path:
    """A file of random bytes."""
    path = folder / name
    path.write_bytes(random.Random(size).randbytes(size))
    return path


async def next_file(client: Client) -> OfferedFile:
    """The next file among the deliveries."""
    async for delivery in client:
        file = file_of(delivery)
        if file is not None:
            return file
    raise AssertionError("the client ended")


@pytest.mark.parametrize("kind", KINDS)
async def test_a_file_from_client_to_client(tmp_path: Path, kind: LinkKind) -> None:
    source = made(tmp_path, 700_001)
    with trio.fail_after(PATIENCE):
        async with open_running(tmp_path / "data", kind) as running:
            async with seated(running, 1001) as alice, seated(running, 1002) as bob, seated(running, 1003) as mallory:
                sent = await alice.send_file(source, to_user=1002, content_type="image/jpeg", file_id="f-1")
                assert (sent.size, sent.server_seq) == (700_001, 1)
                file = await next_file(bob)
                assert (file.reference, file.from_user, file.name) == (sent.reference, 1001, "holiday.jpg")
                assert (file.content_type, file.to_user) == ("image/jpeg", 1002)
                await bob.fetch(file, tmp_path / "got.jpg")
                assert (tmp_path / "got.jpg").read_bytes() == source.read_bytes()
                assert not (tmp_path / "got.jpg.part").exists()
                with pytest.raises(FileFailed) as refused:
                    await mallory.fetch(file, tmp_path / "stolen.jpg")
                assert refused.value.code == Code.INVALID_PAYLOAD
                with pytest.raises(FileExistsError):
                    await bob.fetch(file, tmp_path / "got.jpg")
                again = await alice.send_file(source, to_user=1002, content_type="image/jpeg", file_id="f-1")
                assert again.reference == sent.reference
                files = running.hub.files
                assert files is not None
                metrics = running.hub.metrics
                assert (metrics.files_received, metrics.files_repeated, metrics.files_fetched) == (1, 1, 1)
            await running.empty()
            assert files.statistics() == {"connections": 0, "users": 0, "open": 0}


async def test_whoever_was_offline_finds_it_and_a_live_client_hears_the_offer(tmp_path: Path) -> None:
    source = made(tmp_path, 10)
    with trio.fail_after(PATIENCE):
        async with open_running(tmp_path / "data") as running, seated(running, 1001) as alice:
            async with seated(running, 1002) as bob:
                await alice.send_file(source, to_user=1002)
                async for notice in bob.notices:
                    if isinstance(notice, OfferedFile):
                        break
            await alice.send_file(made(tmp_path, 11, "later"), to_user=1002)
            async with seated(running, 1002, "desk") as bob:
                assert [(await next_file(bob)).size for _ in range(2)] == [10, 11]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_groups_file_is_its_members(tmp_path: Path, kind: LinkKind) -> None:
    source = made(tmp_path, 100_000)
    with trio.fail_after(PATIENCE):
        async with open_running(tmp_path / "data", kind) as running:
            create_group(tmp_path / "data" / STORE_FILE, 7, [1001, 1002])
            async with seated(running, 1001) as alice, seated(running, 1002) as bob, seated(running, 1003) as mallory:
                await alice.send_file(source, group_id=7)
                file = await next_file(bob)
                await bob.fetch(file, tmp_path / "got")
                with pytest.raises(FileFailed):
                    await mallory.fetch(file, tmp_path / "stolen")
                with pytest.raises(FileFailed) as refused:
                    await mallory.send_file(source, group_id=7)
                assert refused.value.code == Code.INVALID_PAYLOAD
        assert (tmp_path / "got").read_bytes() == source.read_bytes()


async def test_five_megabytes_over_tcp_with_chat_beside_both_ways(tmp_path: Path) -> None:
    source = made(tmp_path, 5 * MEGABYTE)
    told: list[str] = []

    async def chat(client: Client, to: int) -> None:
        number = 0
        while True:
            number += 1
            receipt = await client.send(f"message {number}", to_user=to, wait="accepted")
            assert isinstance(receipt, Receipt)
            told.append(receipt.msg_id)
            await trio.sleep(0.005)

    with trio.fail_after(PATIENCE):
        async with (
            open_running(tmp_path / "data") as running,
            seated(running, 1001) as alice,
            seated(running, 1002) as bob,
        ):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(chat, alice, 1002)
                await alice.send_file(source, to_user=1002)
                beside_sending = len(told)
                nursery.cancel_scope.cancel()
            file = await next_file(bob)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(chat, bob, 1001)
                await bob.fetch(file, tmp_path / "got")
                nursery.cancel_scope.cancel()
            assert beside_sending > 2  # how fast is for benchmarks to say
            assert len(told) > beside_sending + 2
        assert (tmp_path / "got").read_bytes() == source.read_bytes()


async def test_twenty_megabytes_over_quic_while_both_clients_move(tmp_path: Path) -> None:
    source = made(tmp_path, 20 * MEGABYTE)

    async def move(client: Client, running: RunningNode, what: str) -> None:
        """To another port, once some of the file has passed."""
        while getattr(running.hub.metrics, what) < MEGABYTE:
            await trio.sleep(0.001)
        await client.migrate()

    with trio.fail_after(PATIENCE):
        async with (
            open_running(tmp_path / "data", "quic") as running,
            seated(running, 1001) as alice,
            seated(running, 1002) as bob,
        ):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(move, alice, running, "file_bytes_received")
                await alice.send_file(source, to_user=1002)
            (tmp_path / "got.part").write_bytes(source.read_bytes()[: 15 * MEGABYTE])  # an earlier process had so much
            async with trio.open_nursery() as nursery:
                nursery.start_soon(move, bob, running, "file_bytes_sent")
                await bob.fetch(await next_file(bob), tmp_path / "got")
            metrics = running.hub.metrics
            assert (metrics.file_bytes_received, metrics.file_bytes_sent) == (20 * MEGABYTE, 5 * MEGABYTE)
            assert (metrics.files_received, metrics.files_fetched) == (1, 1)
            assert (metrics.files_interrupted, metrics.fetches_interrupted) == (0, 0)
            assert [client.statistics().logins for client in (alice, bob)] == [1, 1]
        assert (tmp_path / "got").read_bytes() == source.read_bytes()


async def test_over_a_path_that_loses_and_reorders_it_arrives_whole(tmp_path: Path) -> None:
    source = made(tmp_path, MEGABYTE // 2)
    with trio.fail_after(PATIENCE):
        async with open_running(tmp_path / "data", "quic") as running, trio.open_nursery() as nursery:
            host, _, port = running.node.addresses["quic"].rpartition(":")
            path = LossyPath((host, int(port)), Weather(loss=0.02, delay=0.002, lateness=0.003))
            await nursery.start(path.run)
            url = running.url.replace(f":{port}", f":{path.port}")
            async with seated(running, 1001, url=url) as alice, seated(running, 1002, url=url) as bob:
                await alice.send_file(source, to_user=1002)
                await bob.fetch(await next_file(bob), tmp_path / "got")
            assert min(path.lost, path.repeated, path.late) > 0
            nursery.cancel_scope.cancel()
        assert (tmp_path / "got").read_bytes() == source.read_bytes()


@pytest.mark.parametrize("kind", ["tcp", "ws", "quic"])
async def test_both_ways_go_on_after_a_cut(tmp_path: Path, kind: LinkKind) -> None:
    """The node drops the link again and again: each time a part of the file has come, and only the rest is sent."""
    size = 2 * MEGABYTE
    source = made(tmp_path, size)

    async def cut(running: RunningNode, user: int, what: str, until: int) -> None:
        cuts, at = 0, getattr(running.hub.metrics, what)
        while cuts < 3:
            await trio.sleep(0.001)
            if getattr(running.hub.metrics, what) > at + until:
                at = getattr(running.hub.metrics, what)
                for connection in running.hub.registry.of_user(user):
                    connection.link.abort()
                    connection.lost("cut")
                    cuts += 1

    with trio.fail_after(PATIENCE):
        async with open_running(tmp_path / "data", kind) as running:
            settings: dict[str, Any] = {"backoff_base": 0.01, "reply_timeout": 1.0}
            async with seated(running, 1001, **settings) as alice, seated(running, 1002, **settings) as bob:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(cut, running, 1001, "file_bytes_received", size // 10)
                    await alice.send_file(source, to_user=1002)
                    nursery.cancel_scope.cancel()
                file = await next_file(bob)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(cut, running, 1002, "file_bytes_sent", size // 10)
                    await bob.fetch(file, tmp_path / "got")
                    nursery.cancel_scope.cancel()
                metrics = running.hub.metrics
                assert metrics.file_bytes_received == size  # not a byte twice
                assert metrics.files_interrupted > 0
                assert metrics.fetches_interrupted > 0
        assert (tmp_path / "got").read_bytes() == source.read_bytes()


class Shared:
    """A bus or a location store that another node runs."""

    def __init__(self, real: Any) -> None:
        self._real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    async def run(self, *_: object, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await trio.sleep_forever()


async def test_two_nodes_on_a_shared_directory(tmp_path: Path) -> None:
    """What one node was sent the other hands out, and goes on with what came to the first."""
    files = FileSettings(directory=str(tmp_path / "shared"))
    source = made(tmp_path, 2 * MEGABYTE)
    with trio.fail_after(PATIENCE):
        async with open_running(tmp_path / "data", files=files) as one, trio.open_nursery() as nursery:
            second = test_config(tmp_path / "data", "tcp", files=files, node_id="node-2")
            bus, locations = cast(Any, Shared(one.node.bus)), cast(Any, Shared(one.node.locations))
            async with open_node(second, bus=bus, locations=locations) as node:
                await nursery.start(node.run)
                other = RunningNode(node, "tcp", nursery)
                async with seated(one, 1001) as alice, seated(other, 1002) as bob:
                    sent = await alice.send_file(source, to_user=1002, file_id="f-1")
                    file = await next_file(bob)
                    assert file.reference == sent.reference
                    await bob.fetch(file, tmp_path / "got")
                await half_sent(one, source.read_bytes(), source.name)
                async with seated(other, 1001, "desk") as alice:
                    await alice.send_file(source, to_user=1002, file_id="f-1")
                    await alice.send_file(source, to_user=1002, file_id="f-2")
                first, later = one.hub.metrics, node.hub.metrics
                assert (later.files_repeated, later.files_received, later.files_fetched) == (1, 1, 1)
                assert first.file_bytes_received + later.file_bytes_received == 2 * source.stat().st_size
                await other.empty()
                nursery.cancel_scope.cancel()
        assert (tmp_path / "got").read_bytes() == source.read_bytes()


async def half_sent(running: RunningNode, content: bytes, name: str) -> None:
    """A client begins to send and is gone before the end."""
    peer = await running.seated(1001)
    await peer.send(offer_of(content, "f-2", name=name, content_type=""))
    await ack_of(peer)
    for chunk in chunks_of(content, "f-2")[:20]:
        await peer.send(chunk)
    await ack_of(peer, received=20 * CHUNK)
    await peer.hang_up()
    await running.empty()


async def test_a_slow_reader_has_little_of_a_file_before_a_message(tmp_path: Path) -> None:
    """The kernel would take megabytes of it, and a message would wait behind them all."""
    content = random.Random(1).randbytes(8 * MEGABYTE)
    with trio.fail_after(PATIENCE):
        async with open_running(tmp_path / "data") as running:
            alice = await running.seated(1001)
            offer = offer_of(content, to_user=1001)
            await send_file(alice, content, offer)
            bob = await running.seated(1001, "desk")
            await bob.send(FileAck(file_id=file_reference(1001, offer.file_id)))
            while running.hub.metrics.file_bytes_sent < MEGABYTE // 8:
                await trio.sleep(0.001)
            before = -1
            while before != running.hub.metrics.file_bytes_sent:  # until nothing more is taken: bob reads nothing
                before = running.hub.metrics.file_bytes_sent
                await trio.sleep(0.05)
            assert before < len(content)
            connection = running.hub.registry.of_user(1001)[1]
            unsent = struct.unpack("i", fcntl.ioctl(cast(TcpLink, connection.link).fd, SIOCOUTQNSD, b"\0" * 4))[0]
            assert unsent < MEGABYTE // 4
            for peer in (alice, bob):
                await peer.hang_up()


async def test_a_store_of_ones_own_and_none(tmp_path: Path) -> None:
    source = made(tmp_path, 1000)
    store = MemoryFileStore()
    with trio.fail_after(PATIENCE):
        configured = test_config(tmp_path / "data", "tcp")
        async with open_node(configured, file_store=store) as node, trio.open_nursery() as nursery:
            await nursery.start(node.run)
            async with seated(RunningNode(node, "tcp", nursery), 1001) as alice:
                await alice.send_file(source, to_user=1002)
            assert store.size == 1000
            assert not (tmp_path / "data" / "files").exists()
            nursery.cancel_scope.cancel()
        async with open_running(tmp_path / "data", files=FileSettings(enabled=False)) as running:
            peer = await running.seated(1001)
            await peer.send(offer_of(b"x"))
            assert (await peer.receive(ErrorMessage)).code == Code.UNKNOWN_TYPE
            await peer.hang_up()


def test_a_delivery_that_only_claims_to_be_a_file_is_none() -> None:
    claims = ["", "{}", "[]", '{"file_id":"1001-x","name":"a","size":1,"sha256":"00"}', "x" * 100]
    for content in claims:
        assert file_of(Delivery(msg_id="m", from_user=1001, content=content, content_type=40)) is None
