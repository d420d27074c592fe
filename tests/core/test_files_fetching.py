"""Fetching files by FileChunk, and the rate of both ways: what gives way to what, and who is held up."""

import trio
from trio.abc import Clock

from gateway.backends.memory_files import MemoryFileStore
from gateway.core.settings_files import FileSettings
from gateway.protocol.codes import Code
from gateway.protocol.files import CHUNK
from gateway.protocol.messages import (
    FileAck,
    FileChunk,
    Heartbeat,
    decode,
)
from tests.support.files import (
    CONTENT,
    REFERENCE,
    ack_of,
    chunks_of,
    fetch_file,
    offer_of,
    only,
    open_files,
    send_file,
)
from tests.support.peer import Peer


async def test_chunks_give_way_to_everything_else(autojump_clock: Clock) -> None:
    content = CONTENT * 10
    async with open_files() as world:
        alice, bob = await world.seated(1001), await world.seated(1002)
        await send_file(alice, content)
        await bob.send(FileAck(file_id=REFERENCE))
        assert (await bob.receive(FileChunk)).offset == 0
        await bob.send(Heartbeat())
        between = 0
        while isinstance(said := decode(await bob.frame()), FileChunk):  # type: ignore[arg-type]
            between += 1
        assert isinstance(said, Heartbeat)
        assert between < len(content) // CHUNK // 2


async def test_a_reader_who_stops_holds_up_only_the_file(autojump_clock: Clock) -> None:
    content = CONTENT * 10
    from trio.testing import lockstep_stream_pair

    from gateway.transports.stream import serve_stream

    async with open_files(FileSettings(patience=30)) as world, trio.open_nursery() as nursery:
        alice = await world.seated(1001)
        await send_file(alice, content)
        ours, theirs = lockstep_stream_pair()  # takes nothing until it is read
        nursery.start_soon(serve_stream, world.hub.serve, theirs, "192.0.2.1")
        bob = Peer(ours)
        await bob.log_in(1002)
        await bob.send(FileAck(file_id=REFERENCE))
        await trio.sleep(31)
        assert world.hub.metrics.fetches_refused == {Code.SLOW_CONSUMER: 1}
        connection = world.hub.registry.of_user(1002)[0]
        assert connection.queued == 1  # that it was given up waits behind one chunk
        await bob.hang_up()


async def test_a_fetch_ends_with_its_connection_or_when_the_client_has_enough(autojump_clock: Clock) -> None:
    content = CONTENT * 50
    async with open_files() as world:
        alice, bob = await world.seated(1001), await world.seated(1002)
        await send_file(alice, content)
        await bob.send(FileAck(file_id=REFERENCE))
        await bob.receive(FileChunk)
        await bob.send(FileAck(file_id=REFERENCE))  # once at a time
        await bob.send(FileAck(file_id=REFERENCE, code=Code.GOING_AWAY))
        await bob.send(Heartbeat())
        said = []
        while not isinstance(message := decode(await bob.frame()), Heartbeat):  # type: ignore[arg-type]
            said.append(message)
        assert [each.code for each in only(said, FileAck)] == [Code.TOO_MANY_STREAMS]  # type: ignore[attr-defined]
        assert world.hub.metrics.fetches_interrupted == 1
        await bob.send(FileAck(file_id=REFERENCE))
        await bob.receive(FileChunk)
        await bob.hang_up()
        await trio.sleep(1)
        assert world.hub.metrics.fetches_interrupted == 2


async def test_more_than_there_is_cannot_be_asked_for(autojump_clock: Clock) -> None:
    async with open_files() as world:
        alice = await world.seated(1001)
        await send_file(alice, CONTENT)
        await alice.send(FileAck(file_id=REFERENCE, received=len(CONTENT) + 1))
        assert (await alice.receive(FileAck)).code == Code.INVALID_PAYLOAD


async def test_old_files_expire(autojump_clock: Clock) -> None:
    store = MemoryFileStore()
    async with open_files(FileSettings(keep=1e-9), store=store) as world:
        alice = await world.seated(1001)
        await send_file(alice, CONTENT)
        await trio.sleep(700)
        assert store.size == 0
        assert world.hub.metrics.files_expired == 1


async def test_a_users_files_have_a_rate_of_their_own_and_messages_do_not_wait_for_it(autojump_clock: Clock) -> None:
    content = CONTENT * 10
    async with open_files(FileSettings(bytes_per_second=100_000)) as world, trio.open_nursery() as nursery:
        alice = await world.seated(1001)
        before = trio.current_time()
        await alice.send(offer_of(content))

        async def send() -> None:
            for chunk in chunks_of(content):
                await alice.send(chunk)

        nursery.start_soon(send)
        await ack_of(alice, received=len(content))
        assert 8.5 < trio.current_time() - before < 11
        before = trio.current_time()
        await fetch_file(alice, REFERENCE)
        assert 8.5 < trio.current_time() - before < 12
        assert world.hub.metrics.throttled == 0


async def test_short_chunks_and_repeated_ones_cost_as_much(autojump_clock: Clock) -> None:
    async with open_files(FileSettings(bytes_per_second=100_000)) as world, trio.open_nursery() as nursery:
        alice = await world.seated(1001)
        before = trio.current_time()
        await alice.send(offer_of(CONTENT[:60]))

        async def send() -> None:
            for _ in range(2):
                for chunk in chunks_of(CONTENT[:59], size=1):
                    await alice.send(FileChunk(file_id="f-1", offset=chunk.offset, data=chunk.data))
            await alice.send(FileChunk(file_id="f-1", offset=59, data=CONTENT[59:60]))

        nursery.start_soon(send)
        await ack_of(alice, received=60)
        assert trio.current_time() - before > 15
