"""Files by FileChunk through a Hub: received, bounded, refused, announced, fetched; hostile clients among them."""

import hashlib
from typing import Any

import pytest
import trio
from trio.abc import Clock

from gateway._framing import build_downstream
from gateway.backends.memory import MemoryBus
from gateway.backends.memory_files import MemoryFileStore
from gateway.core.file_store import StoreBroken
from gateway.core.settings import LimitSettings
from gateway.core.settings_files import FileSettings
from gateway.protocol.codes import Code
from gateway.protocol.files import CHUNK, WINDOW, file_key, file_reference
from gateway.protocol.messages import (
    ErrorMessage,
    FileAck,
    FileChunk,
    FileOffer,
    Heartbeat,
    Kick,
    decode,
    packet,
)
from gateway.protocol.types import Action, MsgType
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
    upstream_of,
)
from tests.support.peer import Peer


async def test_a_file_goes_from_its_sender_to_its_recipient(autojump_clock: Clock) -> None:
    async with open_files() as world:
        alice, bob = await world.seated(1001), await world.seated(1002)
        offer = offer_of(CONTENT)
        seq = await alice.send(offer)
        first = await alice.frame()
        assert first is not None
        assert (first.seq, decode(first)) == (seq, FileAck(file_id="f-1", received=0))
        for chunk in chunks_of(CONTENT):
            await alice.send(chunk)
        done = await ack_of(alice, received=len(CONTENT))
        assert done == FileAck(file_id="f-1", message=REFERENCE, received=len(CONTENT))
        (announced,) = await upstream_of(world, MsgType.FILE_OFFER)
        assert announced == offer_of(CONTENT, REFERENCE)
        assert world.upstream[-1].user_id == 1001
        assert world.upstream[-1].frame.seq == seq
        assert await fetch_file(bob, REFERENCE) == CONTENT
        assert await fetch_file(bob, REFERENCE, 90_000) == CONTENT[90_000:]
        assert await fetch_file(bob, REFERENCE, len(CONTENT)) == b""
        assert await fetch_file(alice, REFERENCE) == CONTENT
        metrics = world.hub.metrics
        assert (metrics.files_received, metrics.files_fetched, metrics.file_bytes_received) == (1, 4, len(CONTENT))
        assert metrics.file_bytes_sent == 2 * len(CONTENT) + 10_000


async def test_an_empty_file_is_complete_when_it_is_offered(autojump_clock: Clock) -> None:
    async with open_files() as world:
        alice = await world.seated(1001)
        await alice.send(offer_of(b""))
        assert (await ack_of(alice)).message == ""
        assert (await ack_of(alice)).message == REFERENCE
        assert await fetch_file(alice, REFERENCE) == b""


async def test_a_cut_file_goes_on_where_it_stopped(autojump_clock: Clock) -> None:
    async with open_files() as world:
        alice = await world.seated(1001)
        await alice.send(offer_of(CONTENT))
        for chunk in chunks_of(CONTENT)[:3]:
            await alice.send(chunk)
        await ack_of(alice, received=3 * CHUNK)
        await alice.hang_up()
        await trio.sleep(1)
        assert world.hub.metrics.files_interrupted == 1
        again = await world.seated(1001, "desk")
        await again.send(offer_of(CONTENT))
        assert (await ack_of(again)).received == 3 * CHUNK
        for chunk in chunks_of(CONTENT, start=2 * CHUNK):  # what is there already is no harm
            await again.send(chunk)
        assert (await ack_of(again, received=len(CONTENT))).message == REFERENCE
        assert await fetch_file(again, REFERENCE) == CONTENT


async def test_a_file_offered_again_is_announced_again(autojump_clock: Clock) -> None:
    bus = MemoryBus()
    async with trio.open_nursery() as nursery:
        await nursery.start(bus.run)
        async with open_files(bus=bus) as world:
            alice = await world.seated(1001)
            publish, bus.publish = bus.publish, lambda subject, payload: False  # type: ignore[method-assign]
            refused = await send_file_refused(alice, CONTENT)
            assert (refused.code, refused.received) == (Code.UPSTREAM_UNAVAILABLE, len(CONTENT))
            bus.publish = publish  # type: ignore[method-assign]
            await alice.send(offer_of(CONTENT))
            assert (await ack_of(alice)).message == REFERENCE
            assert len(await upstream_of(world, MsgType.FILE_OFFER)) == 1
            await alice.send(offer_of(CONTENT, to_user=1003))  # the same name for something else
            assert (await alice.receive(FileAck)).code == Code.INVALID_PAYLOAD
        nursery.cancel_scope.cancel()


async def send_file_refused(peer: Peer, content: bytes, offer: FileOffer | None = None) -> FileAck:
    """Send a file that is not taken."""
    offer = offer or offer_of(content)
    await peer.send(offer)
    for chunk in chunks_of(content, offer.file_id):
        await peer.send(chunk)
    while not (ack := await peer.receive(FileAck)).code:
        pass
    return ack


# -- whom it is for ---------------------------------------------------------------------------------------------------


async def test_nobody_else_can_fetch_it_nor_learn_that_it_is_there(autojump_clock: Clock) -> None:
    async with open_files() as world:
        alice, mallory = await world.seated(1001), await world.seated(1003)
        await send_file(alice, CONTENT)
        answers = []
        for reference in (REFERENCE, file_reference(1001, "no such"), file_reference(1003, "f-1")):
            await mallory.send(FileAck(file_id=reference))
            answers.append(await mallory.receive(FileAck))
        assert {(each.code, each.message) for each in answers} == {(4004, "there is no such file for you")}
        assert world.hub.metrics.fetches_refused == {4004: 3}
        # the sender's own word for it leads nobody anywhere, nor does a path
        for name in ("f-1", "../1001/f-1", f"01001-{file_key('f-1')}", "", "1001-" + "a" * 42 + "/"):
            await mallory.send(FileAck(file_id=name))
            assert (await mallory.receive(ErrorMessage)).code == Code.INVALID_PAYLOAD
        await mallory.send(offer_of(b"mine", to_user=1001))  # the same file_id is another file
        await mallory.send(FileChunk(file_id="f-1", data=b"mine", last=True))
        assert (await ack_of(mallory, received=4)).message == file_reference(1003, "f-1")
        assert await fetch_file(alice, REFERENCE) == CONTENT


@pytest.mark.parametrize("word", [Code.OK, Code.INVALID_PAYLOAD, Code.UPSTREAM_UNAVAILABLE, None])
async def test_a_groups_file_is_for_whom_logic_says(autojump_clock: Clock, word: Code | None) -> None:
    async with open_files() as world:
        alice, bob = await world.seated(1001), await world.seated(1002)
        await send_file(alice, CONTENT, offer_of(CONTENT, to_user=0, group_id=7))
        await bob.send(FileAck(file_id=REFERENCE, received=99_990))
        with trio.fail_after(1):
            up = (await world.wait_upstream(2))[-1]
        assert (up.user_id, decode(up.frame)) == (1002, FileAck(file_id=REFERENCE, message="7", received=99_990))
        if word is not None:
            answer = packet(FileAck(file_id=REFERENCE, code=word))
            for _ in range(2):  # a bus may bring it twice
                down = build_downstream(1002, (up.conn_id,), "", "", 0, Action.DELIVER, 0, MsgType.FILE_ACK, answer, 0)
                world.down(down)
        frame = await bob.frame()
        assert frame is not None
        said = decode(frame)
        if word is Code.OK:
            assert said == FileChunk(file_id=REFERENCE, offset=99_990, data=CONTENT[99_990:], last=True)
        else:
            assert isinstance(said, FileAck)
            assert said.code == (Code.INVALID_PAYLOAD if word is Code.INVALID_PAYLOAD else Code.UPSTREAM_UNAVAILABLE)


# -- hostile and broken clients ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {"file_id": ""},
        {"file_id": "a" * 65},
        {"file_id": "../../etc/passwd"},
        {"file_id": "a b"},
        {"to_user": 0},
        {"group_id": 7},
        {"to_user": -1, "group_id": 7},
        {"size": 2**63},
        {"sha256": b""},
        {"sha256": b"x" * 33},
        {"name": ""},
        {"name": "n" * 256},
        {"name": "ü" * 128},
        {"name": "../../etc/passwd"},
        {"name": "a\\b"},
        {"name": ".."},
        {"name": "a\0b"},
        {"name": "a\nb"},
        {"content_type": "x" * 129},
        {"content_type": "text/plain\r\nSet-Cookie: a"},
    ],
)
async def test_an_offer_that_breaks_a_rule_is_refused_and_nothing_is_kept(
    autojump_clock: Clock, wrong: dict[str, Any]
) -> None:
    store = MemoryFileStore()
    async with open_files(store=store) as world:
        alice = await world.seated(1001)
        await alice.send(offer_of(CONTENT, **wrong))
        ack = await alice.receive(FileAck)
        assert ack.code == Code.INVALID_PAYLOAD
        assert ack.message
        assert (await store.usage(1001)).files == 0
        await alice.send(Heartbeat())
        await alice.receive(Heartbeat)


@pytest.mark.parametrize(
    ("content", "offer", "why"),
    [
        (CONTENT, offer_of(CONTENT, size=len(CONTENT) - 1), "longer"),
        (CONTENT, offer_of(CONTENT, size=len(CONTENT) + 1), "shorter"),
        (CONTENT, offer_of(CONTENT, sha256=hashlib.sha256(b"other").digest()), "sha256"),
        (CONTENT, offer_of(CONTENT, size=0), "longer"),
    ],
)
async def test_an_offer_that_lies_leaves_nothing(
    autojump_clock: Clock, content: bytes, offer: FileOffer, why: str
) -> None:
    store = MemoryFileStore()
    async with open_files(store=store) as world:
        alice = await world.seated(1001)
        if offer.size:
            ack = await send_file_refused(alice, content, offer)
            assert ack.code == Code.INVALID_PAYLOAD
            assert why in ack.message
        else:  # complete with the offer, and its digest is wrong
            await alice.send(offer)
            await ack_of(alice, code=Code.OK)
            assert (await alice.receive(FileAck)).code == Code.INVALID_PAYLOAD
        assert (await store.usage(1001)).files == 0
        assert not await upstream_of(world, MsgType.FILE_OFFER)
        await alice.send(Heartbeat())  # chunks that came too late broke nothing
        await alice.receive(Heartbeat)


async def test_a_chunk_with_a_gap_is_refused(autojump_clock: Clock) -> None:
    store = MemoryFileStore()
    async with open_files(store=store) as world:
        alice = await world.seated(1001)
        await alice.send(offer_of(CONTENT))
        await ack_of(alice)
        await alice.send(FileChunk(file_id="f-1", offset=2**62, data=b"x"))
        assert (await alice.receive(FileAck)).code == Code.INVALID_PAYLOAD
        assert (await store.usage(1001)).files == 0


async def test_chunks_without_an_offer_and_too_long_ones_are_errors_and_bounded(autojump_clock: Clock) -> None:
    async with open_files(limits=LimitSettings()) as world:
        alice = await world.seated(1001)
        await alice.send(offer_of(CONTENT))
        await ack_of(alice)
        await alice.send(FileChunk(file_id="f-1", data=b"x" * (CHUNK + 1)))
        assert (await alice.receive(ErrorMessage)).code == Code.INVALID_PAYLOAD
        for number in range(10):
            await alice.send(FileChunk(file_id=f"never-{number}", data=b"x"))
        said = await alice.closed()
        assert [each.code for each in only(said, ErrorMessage)] == [Code.INVALID_PAYLOAD] * 10  # type: ignore[attr-defined]
        assert isinstance(said[-1], Kick)


async def test_files_before_a_login_are_out_of_order(autojump_clock: Clock) -> None:
    async with open_files() as world:
        for message in (offer_of(CONTENT), FileChunk(file_id="f-1", data=b"x"), FileAck(file_id=REFERENCE)):
            peer = await world.connect()
            await peer.send(message)
            assert (await peer.receive(ErrorMessage)).code == Code.OUT_OF_ORDER
            assert await peer.closed() == []


async def test_two_uploads_of_one_file_at_once_do_not_mix(autojump_clock: Clock) -> None:
    async with open_files() as world:
        one, other = await world.seated(1001), await world.seated(1001, "desk")
        await one.send(offer_of(CONTENT))
        await ack_of(one)
        await other.send(offer_of(CONTENT))
        assert (await other.receive(FileAck)).code == Code.TOO_MANY_STREAMS
        await one.send(offer_of(CONTENT[:5]))  # another offer under the same name
        assert (await one.receive(FileAck)).code == Code.TOO_MANY_STREAMS
        seq = await one.send(offer_of(CONTENT))  # the same one: how far is it?
        frame = await one.frame()
        assert frame is not None
        assert (frame.seq, decode(frame)) == (seq, FileAck(file_id="f-1"))
        for chunk in chunks_of(CONTENT):
            await one.send(chunk)
        assert (await ack_of(one, received=len(CONTENT))).message == REFERENCE


async def test_too_many_at_once_are_refused_and_room_comes_back(autojump_clock: Clock) -> None:
    async with open_files(FileSettings(max_open_per_user=2, max_open=3)) as world:
        alice = await world.seated(1001)
        for number in range(3):
            await alice.send(offer_of(CONTENT, f"f-{number}"))
        codes = {ack.file_id: ack.code for ack in [await alice.receive(FileAck) for _ in range(3)]}
        assert codes == {"f-0": 0, "f-1": 0, "f-2": Code.TOO_MANY_STREAMS}
        for user in (1004, 1005):
            peer = await world.seated(user)
            await peer.send(offer_of(CONTENT))
            assert (await peer.receive(FileAck)).code == (0 if user == 1004 else Code.NODE_FULL)
        await alice.send(FileAck(file_id=REFERENCE))
        assert (await alice.receive(FileAck)).code == Code.TOO_MANY_STREAMS
        await alice.hang_up()
        await trio.sleep(1)
        alice = await world.seated(1001)
        await alice.send(offer_of(CONTENT, "f-9"))
        assert (await alice.receive(FileAck)).code == 0


async def test_thousands_of_offers_cost_their_sender_and_nobody_else(autojump_clock: Clock) -> None:
    store = MemoryFileStore()
    async with open_files(store=store, limits=LimitSettings()) as world:
        mallory, alice = await world.seated(1003), await world.seated(1001)

        async def flood() -> None:
            try:
                for number in range(3000):
                    await mallory.send(offer_of(CONTENT, f"f-{number}", to_user=1001))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return

        async def drain() -> None:
            await mallory.closed()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(flood)
            nursery.start_soon(drain)
            await trio.sleep(5)
            await send_file(alice, CONTENT)
            await trio.sleep(60)
            nursery.cancel_scope.cancel()
        assert (await store.usage(1003)).files <= FileSettings().max_open_per_user
        assert world.hub.metrics.closed[Code.RATE_LIMITED] == 1


async def test_a_users_files_are_bounded_in_size_bytes_and_number(autojump_clock: Clock) -> None:
    settings = FileSettings(max_size=100_000, max_bytes_per_user=150_000, max_files_per_user=2)
    async with open_files(settings) as world:
        alice, bob = await world.seated(1001), await world.seated(1002)

        async def told(content: bytes, file_id: str, peer: Peer = alice) -> int:
            await peer.send(offer_of(content, file_id))
            ack = await peer.receive(FileAck)
            if not ack.code and not ack.message:
                for chunk in chunks_of(content, file_id):
                    await peer.send(chunk)
                ack = await ack_of(peer, received=len(content))
            return ack.code

        assert await told(CONTENT + b"x", "large") == Code.FRAME_TOO_LARGE
        assert await told(CONTENT, "f-1") == 0
        assert await told(CONTENT[:50_001], "f-2") == Code.RATE_LIMITED
        assert await told(CONTENT[:49_000], "f-2") == 0
        assert await told(b"x", "f-3") == Code.RATE_LIMITED
        assert await told(CONTENT, "f-1") == 0  # what is there already is not refused
        assert await told(CONTENT, "f-1", bob) == 0


async def test_what_is_under_way_counts_with_what_is_kept(autojump_clock: Clock) -> None:
    async with open_files(FileSettings(max_bytes_per_user=150_000)) as world:
        alice = await world.seated(1001)
        await alice.send(offer_of(CONTENT))
        await ack_of(alice)
        await alice.send(offer_of(CONTENT, "f-2"))
        assert (await alice.receive(FileAck)).code == Code.RATE_LIMITED


async def test_a_full_store_and_a_broken_one_are_told_and_the_link_stays(autojump_clock: Clock) -> None:
    store = MemoryFileStore(room=50_000)
    async with open_files(store=store) as world:
        alice = await world.seated(1001)
        assert (await send_file_refused(alice, CONTENT)).code == Code.NODE_FULL
        store.room = 10**6
        await alice.send(offer_of(CONTENT))
        kept = (await ack_of(alice)).received
        assert 0 < kept <= 50_000
        for chunk in chunks_of(CONTENT, start=kept):
            await alice.send(chunk)
        assert (await ack_of(alice, received=len(CONTENT))).message == REFERENCE

        async def broken(*_: object, **__: object) -> None:
            raise StoreBroken("gone")

        store.usage = store.open = broken  # type: ignore[method-assign, assignment]
        await alice.send(offer_of(CONTENT, "f-2"))
        assert (await alice.receive(FileAck)).code == Code.UPSTREAM_UNAVAILABLE
        await alice.send(FileAck(file_id=REFERENCE))
        assert (await alice.receive(FileAck)).code == Code.UPSTREAM_UNAVAILABLE

        async def fault(*_: object, **__: object) -> None:
            raise ZeroDivisionError

        store.usage = fault  # type: ignore[method-assign, assignment]
        await alice.send(offer_of(CONTENT, "f-2"))
        assert (await alice.receive(FileAck)).code == Code.INTERNAL_ERROR


async def test_a_file_that_stands_still_is_given_up_and_what_came_is_kept(autojump_clock: Clock) -> None:
    async with open_files(FileSettings(patience=20)) as world:
        alice = await world.seated(1001)
        await alice.send(offer_of(CONTENT))
        await alice.send(chunks_of(CONTENT)[0])
        before = trio.current_time()
        ack = await ack_of(alice, code=Code.HEARTBEAT_TIMEOUT)
        assert 19 < trio.current_time() - before < 21
        assert ack.received == CHUNK
        await alice.send(chunks_of(CONTENT)[1])  # too late, and no error
        await alice.send(offer_of(CONTENT))
        assert (await alice.receive(FileAck)).received == CHUNK


async def test_a_sender_who_does_not_wait_is_held_back_by_the_store(autojump_clock: Clock) -> None:
    content = CONTENT * 20
    gate = trio.Event()

    class Slow(MemoryFileStore):
        async def usage(self, owner: int, *, but: str = "") -> Any:
            await gate.wait()
            return await super().usage(owner, but=but)

    async with open_files(store=Slow()) as world, trio.open_nursery() as nursery:
        alice = await world.seated(1001)
        sent = 0

        async def send() -> None:
            nonlocal sent
            await alice.send(offer_of(content))
            for chunk in chunks_of(content):
                await alice.send(chunk)
                sent += len(chunk.data)

        nursery.start_soon(send)
        await trio.sleep(1)
        (connection,) = world.hub.registry
        assert connection._brakes == 1
        assert connection.decoder.pending < WINDOW
        gate.set()
        assert (await ack_of(alice, received=len(content))).message == REFERENCE
        assert connection._brakes == 0
        assert sent == len(content)


async def test_the_sender_vanishes_at_any_moment(autojump_clock: Clock) -> None:
    for moment in range(8):
        store = MemoryFileStore()
        async with open_files(store=store) as world:
            alice = await world.seated(1001)
            await alice.send(offer_of(CONTENT))
            for chunk in chunks_of(CONTENT)[:moment]:
                await alice.send(chunk)
            await alice.hang_up()
            await trio.sleep(5)
            files = world.hub.files
            assert files is not None
            assert files.statistics() == {"connections": 0, "users": 0, "open": 0}
            metrics = world.hub.metrics
            assert metrics.files_received + metrics.files_interrupted == metrics.files_offered
