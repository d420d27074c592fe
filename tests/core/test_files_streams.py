"""Files on ephemeral streams through a LanedConnection: credit by what is written, resumption, lies, fetches."""

import random
from typing import Any

import trio
from trio.abc import Clock
from trio.testing import wait_all_tasks_blocked

from gateway._framing import HEADER, parse_frame
from gateway.backends.memory_files import MemoryFileStore
from gateway.core.link import LinkClosed, OutgoingStream, StreamSink
from gateway.core.settings_files import FileSettings
from gateway.protocol.codes import Code
from gateway.protocol.files import file_reference
from gateway.protocol.messages import ChatMessage, ErrorMessage, FileAck, FileChunk, FileOffer, Message, decode, encode
from gateway.protocol.types import Lane, MsgType
from tests.support.files import offer_of, open_files
from tests.support.laned import MemoryLanes
from tests.support.world import World

CONTENT = random.Random(8).randbytes(300_000)
REFERENCE = file_reference(1001, "f-1")


class Given:
    """A stream that the client opened: what the node grants and whether it stops it."""

    def __init__(self) -> None:
        self.granted = 0
        self.stopped: int | None = None
        self.sink: StreamSink | None = None

    def grant(self, count: int) -> None:
        self.granted += count

    def stop(self, code: int) -> None:
        self.stopped = code if self.stopped is None else self.stopped


class Taken:
    """A stream that the node opened."""

    def __init__(self, gate: trio.Event | None) -> None:
        self.content = b""
        self.finished = False
        self.was_reset: int | None = None
        self._gate = gate

    async def send(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        if self._gate is not None and self.content:
            await self._gate.wait()
        self.content += data

    def finish(self) -> None:
        self.finished = True

    def reset(self, code: int) -> None:
        self.was_reset = code

    def split(self) -> tuple[FileOffer, bytes]:
        """The offer in front, and the bytes behind it."""
        length = int.from_bytes(self.content[:4], "big")
        offer = decode(parse_frame(MsgType.FILE_OFFER, self.content[HEADER : HEADER + length]))
        assert isinstance(offer, FileOffer)
        return offer, self.content[HEADER + length :]


class Streams(MemoryLanes):
    """A link with lanes and with ephemeral streams both ways."""

    def __init__(self) -> None:
        super().__init__()
        self.opened: list[Taken] = []
        self.allowed = 10
        self.gate: trio.Event | None = None

    async def stream(self) -> Given:
        """The client opens one."""
        given = Given()
        given.sink = (await self.told()).incoming(given)
        return given

    async def send_file(self, content: bytes, offer: FileOffer, *, pieces: int = 50_000, end: bool = True) -> Given:
        """Send a file on a stream, without looking at the credit."""
        given = await self.stream()
        assert given.sink is not None
        data = encode(offer, seq=77) + content
        for start in range(0, len(data), pieces):
            given.sink.feed(data[start : start + pieces])
            await trio.lowlevel.checkpoint()
        if end:
            given.sink.end()
        await wait_all_tasks_blocked()
        return given

    def acks(self) -> list[FileAck]:
        """The FileAcks on the control lane since the last call."""
        return [each for each in self.heard() if isinstance(each, FileAck)]

    def open_stream(self) -> OutgoingStream:
        if len(self.opened) >= self.allowed:
            raise LinkClosed("no further stream")
        self.opened.append(Taken(self.gate))
        return self.opened[-1]


async def seated(world: World, user: int, device: str = "phone") -> Streams:
    link = Streams()
    world.serve(link)
    await link.log_in(user, device)
    return link


async def test_a_file_on_a_stream_is_stored_announced_and_fetched_on_a_stream(autojump_clock: Clock) -> None:
    async with open_files() as world:
        alice, bob = await seated(world, 1001), await seated(world, 1002)
        given = await alice.send_file(CONTENT, offer_of(CONTENT))
        offer_bytes = len(encode(offer_of(CONTENT), seq=77))
        assert given.granted == offer_bytes + len(CONTENT)
        assert alice.acks() == [
            FileAck(file_id="f-1"),
            FileAck(file_id="f-1", message=REFERENCE, received=len(CONTENT)),
        ]
        await bob.say(FileAck(file_id=REFERENCE, received=100))
        await wait_all_tasks_blocked()
        (taken,) = bob.opened
        assert taken.split() == (offer_of(CONTENT, REFERENCE), CONTENT[100:])
        assert taken.finished
        assert taken.was_reset is None
        assert bob.heard() == []


async def test_the_offer_comes_in_any_pieces(autojump_clock: Clock) -> None:
    async with open_files() as world:
        alice = await seated(world, 1001)
        await alice.send_file(CONTENT[:1000], offer_of(CONTENT[:1000]), pieces=1)
        assert alice.acks()[-1].message == REFERENCE


async def test_credit_follows_what_is_written_not_what_came(autojump_clock: Clock) -> None:
    gate = trio.Event()

    class Slow(MemoryFileStore):
        async def usage(self, owner: int, *, but: str = "") -> Any:
            await gate.wait()
            return await super().usage(owner, but=but)

    async with open_files(store=Slow()) as world:
        alice = await seated(world, 1001)
        given = await alice.send_file(CONTENT, offer_of(CONTENT))
        assert given.granted == len(encode(offer_of(CONTENT), seq=77))
        gate.set()
        await wait_all_tasks_blocked()
        assert given.granted == len(encode(offer_of(CONTENT), seq=77)) + len(CONTENT)


async def test_a_reset_stream_goes_on_where_it_stopped_when_that_is_asked_for(autojump_clock: Clock) -> None:
    async with open_files() as world:
        alice = await seated(world, 1001)
        given = await alice.send_file(CONTENT[:100_000], offer_of(CONTENT), end=False)
        assert given.sink is not None
        given.sink.reset(0)
        await wait_all_tasks_blocked()
        alice.heard()
        await alice.say(offer_of(CONTENT))  # on the control lane: how much of it is there?
        await wait_all_tasks_blocked()
        assert alice.acks() == [FileAck(file_id="f-1", received=100_000)]
        await alice.send_file(CONTENT[100_000:], offer_of(CONTENT))
        assert alice.acks() == [FileAck(file_id="f-1", message=REFERENCE, received=len(CONTENT))]
        assert world.hub.metrics.files_offered == 2


async def test_a_stream_that_does_not_ask_begins_with_the_first_byte(autojump_clock: Clock) -> None:
    async with open_files() as world:
        alice = await seated(world, 1001)
        given = await alice.send_file(CONTENT[:100_000], offer_of(CONTENT), end=False)
        assert given.sink is not None
        given.sink.reset(0)
        await wait_all_tasks_blocked()
        await alice.send_file(CONTENT, offer_of(CONTENT))
        assert alice.acks()[-1] == FileAck(file_id="f-1", message=REFERENCE, received=len(CONTENT))


async def test_a_file_that_is_there_already_is_not_sent_again(autojump_clock: Clock) -> None:
    async with open_files() as world:
        alice = await seated(world, 1001)
        await alice.send_file(CONTENT, offer_of(CONTENT))
        alice.heard()
        given = await alice.send_file(b"", offer_of(CONTENT), end=False)
        assert given.stopped == 0
        assert alice.acks() == [FileAck(file_id="f-1", message=REFERENCE, received=len(CONTENT))]


async def test_lies_on_a_stream_stop_it_and_leave_nothing(autojump_clock: Clock) -> None:
    store = MemoryFileStore()
    async with open_files(store=store) as world:
        alice = await seated(world, 1001)
        lies = [
            offer_of(CONTENT, size=len(CONTENT) - 1),
            offer_of(CONTENT, size=len(CONTENT) + 1),
            offer_of(CONTENT, sha256=b"x" * 32),
        ]
        for offer in lies:
            given = await alice.send_file(CONTENT, offer)
            assert given.stopped == Code.INVALID_PAYLOAD
            assert alice.acks()[-1].code == Code.INVALID_PAYLOAD
            assert (await store.usage(1001)).files == 0


async def test_what_stands_before_a_stream_must_be_an_offer(autojump_clock: Clock) -> None:
    async with open_files() as world:
        alice = await seated(world, 1001)
        fronts: list[tuple[bytes, int]] = [
            (encode(ChatMessage(msg_id="m", to_user=1)), Code.OUT_OF_ORDER),
            (b"\xff\xff\xff\xff\0\x28", Code.FRAME_TOO_LARGE),
            (b"\0\0\0\4\0\x28junk", Code.MALFORMED_FRAME),
            (encode(offer_of(CONTENT, name="../x")), Code.INVALID_PAYLOAD),
        ]
        for front, code in fronts:
            given = await alice.stream()
            assert given.sink is not None
            given.sink.feed(front)
            given.sink.feed(b"more")
            given.sink.end()
            assert given.stopped == code
        given = await alice.stream()  # nothing at all
        assert given.sink is not None
        given.sink.end()
        given.sink.reset(0)
        assert world.hub.metrics.files_offered == 0


async def test_streams_are_for_seated_clients_and_bounded(autojump_clock: Clock) -> None:
    async with open_files(FileSettings(max_open_per_user=2)) as world:
        stranger = Streams()
        world.serve(stranger)
        assert (await stranger.stream()).sink is None
        alice = await seated(world, 1001)
        for number in range(2):
            await alice.send_file(CONTENT[:10], offer_of(CONTENT, f"f-{number}"), end=False)
        assert (await alice.stream()).sink is None
        again = await seated(world, 1001, "desk")
        assert (await again.stream()).sink is None


async def test_two_streams_for_one_file_do_not_mix(autojump_clock: Clock) -> None:
    async with open_files() as world:
        alice = await seated(world, 1001)
        first = await alice.send_file(CONTENT[:10], offer_of(CONTENT), end=False)
        second = await alice.send_file(CONTENT[:10], offer_of(CONTENT), end=False)
        assert second.stopped == Code.TOO_MANY_STREAMS
        assert first.sink is not None
        first.sink.feed(CONTENT[10:])
        first.sink.end()
        await wait_all_tasks_blocked()
        assert alice.acks()[-1].message == REFERENCE


async def test_offers_over_the_rate_are_refused_stream_by_stream(autojump_clock: Clock) -> None:
    from gateway.core.settings import LimitSettings

    async with open_files(limits=LimitSettings(message_rate=1, message_burst=10)) as world:
        alice = await seated(world, 1001)
        stopped = [(await alice.send_file(b"", offer_of(b"", f"f-{number}"))).stopped for number in range(5)]
        assert stopped[:2] == [0, 0]
        assert stopped[2:] == [Code.RATE_LIMITED] * 3


async def test_chunks_have_no_place_where_there_are_streams(autojump_clock: Clock) -> None:
    async with open_files() as world:
        alice = await seated(world, 1001)
        await alice.say(offer_of(CONTENT))
        await wait_all_tasks_blocked()
        alice.heard()
        await alice.say(FileChunk(file_id="f-1", data=b"x"))
        await wait_all_tasks_blocked()
        assert [type(each) for each in alice.heard()] == [ErrorMessage]


async def test_files_have_no_place_on_the_message_lane(autojump_clock: Clock) -> None:
    async with open_files() as world:
        alice = await seated(world, 1001)
        await alice.open_messages()
        said: list[Message] = [offer_of(CONTENT), FileAck(file_id=REFERENCE)]
        for message in said:
            await alice.say(message, Lane.MESSAGE)
            await wait_all_tasks_blocked()
            (error,) = alice.heard(Lane.MESSAGE)
            assert isinstance(error, ErrorMessage)
            assert error.code == Code.INVALID_PAYLOAD
        assert world.hub.metrics.files_offered == 0


async def test_a_client_that_allows_no_stream_is_told(autojump_clock: Clock) -> None:
    async with open_files() as world:
        alice = await seated(world, 1001)
        await alice.send_file(CONTENT, offer_of(CONTENT))
        alice.heard()
        alice.allowed = 0
        await alice.say(FileAck(file_id=REFERENCE))
        await wait_all_tasks_blocked()
        assert [ack.code for ack in alice.acks()] == [Code.TOO_MANY_STREAMS]


async def test_a_stream_that_is_not_read_is_given_up(autojump_clock: Clock) -> None:
    async with open_files(FileSettings(patience=20)) as world:
        alice = await seated(world, 1001)
        await alice.send_file(CONTENT, offer_of(CONTENT))
        alice.heard()
        alice.gate = trio.Event()
        await alice.say(FileAck(file_id=REFERENCE))
        await trio.sleep(21)
        assert alice.opened[0].was_reset == Code.SLOW_CONSUMER
        assert [ack.code for ack in alice.acks()] == [Code.SLOW_CONSUMER]


async def test_the_link_ends_in_the_middle(autojump_clock: Clock) -> None:
    async with open_files() as world:
        alice = await seated(world, 1001)
        await alice.send_file(CONTENT, offer_of(CONTENT))
        alice.gate = trio.Event()
        await alice.say(FileAck(file_id=REFERENCE))
        await alice.send_file(CONTENT[:10], offer_of(CONTENT, "f-2"), end=False)
        (await alice.told()).lost("gone")
        await alice.aborted.wait()
        await wait_all_tasks_blocked()
        metrics = world.hub.metrics
        assert (metrics.files_interrupted, metrics.fetches_interrupted) == (1, 1)
        assert alice.opened[0].was_reset is not None
