"""WebTransport on a real endpoint: sessions as links with lanes, how they begin and end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import trio

from gateway.core.limits import Admission
from gateway.core.link import IncomingStream, Lane, LanedLink, Link, LinkClosed, OutgoingStream, StreamSink
from gateway.core.settings import LimitSettings
from gateway.protocol.codes import Code
from gateway.protocol.http3 import Capsule, H3Code, from_h3, to_h3
from gateway.transports.quic.door import QuicDoor
from gateway.transports.settings_quic import QuicSettings
from gateway.transports.settings_webtransport import WebTransportSettings
from gateway.transports.webtransport import link as module
from gateway.transports.webtransport.http3 import Http3
from gateway.transports.webtransport.link import WebTransportLink
from tests.support.quic_peer import PATIENCE, Pipe, QuicClient, open_quic
from tests.support.webtransport_peer import answered, ask, open_pipe, say_settings, start_session

ORIGIN = "https://chat.example.org"


def laned(link: WebTransportLink) -> LanedLink:
    """For mypy: all that a LanedLink promises is there."""
    return link


class Notes:
    """A LanedReceiver that remembers, and whose task stays in `converse` until it is told to end."""

    def __init__(self, link: WebTransportLink) -> None:
        self.link = link
        self.lanes: dict[int, bytes] = {}
        self.events: list[object] = []
        self.datagrams: list[bytes] = []
        self.sinks: list[Sink] = []
        self.refused = ""
        self.open = trio.Event()
        self.over = trio.Event()
        self._changed = trio.Event()

    def feed(self, lane: int, data: bytes) -> None:
        self.lanes[lane] = self.lanes.get(lane, b"") + data
        self._tell()

    def close(self, code: int, reason: str = "") -> None:
        self.events.append(("close", code))
        self._tell()

    def lost(self, reason: str = "") -> None:
        self.events.append(("lost", reason))
        self.over.set()
        self._tell()

    def lane_opened(self, lane: int) -> None:
        self.events.append(("opened", lane))
        self._tell()

    def lane_closed(self, lane: int) -> None:
        self.events.append(("closed", lane))
        self._tell()

    def writable(self, lane: int) -> None:
        self.events.append(("writable", lane))
        self._tell()

    def datagram(self, data: bytes) -> None:
        self.datagrams.append(data)
        self._tell()

    def confirmed(self) -> None:
        self.events.append("confirmed")

    def incoming(self, stream: IncomingStream) -> StreamSink | None:
        self.sinks.append(Sink(stream, self._tell))
        self._tell()
        return self.sinks[-1]

    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def until(self, true: Callable[[], object]) -> None:
        with trio.fail_after(PATIENCE):
            while not true():
                await self._changed.wait()


class Sink:
    """Takes an ephemeral stream and grants all of it."""

    def __init__(self, stream: IncomingStream, tell: Callable[[], None]) -> None:
        self.stream = stream
        self.data = b""
        self.end_of_it: object = None
        self._tell = tell

    def feed(self, data: bytes) -> None:
        self.data += data
        self.stream.grant(len(data))
        self._tell()

    def end(self) -> None:
        self.end_of_it = "end"
        self._tell()

    def reset(self, code: int) -> None:
        self.end_of_it = code
        self._tell()


class World:
    """An endpoint and the links that it served."""

    def __init__(self, door: QuicDoor, address: str) -> None:
        self.door = door
        self.address = address
        self.links: list[Notes] = []
        self.began = trio.Event()

    async def serve(self, link: Link) -> None:
        assert isinstance(link, WebTransportLink)
        notes = Notes(link)
        self.links.append(notes)
        link.attach(notes)
        self.began.set()
        try:
            await link.open()
        except LinkClosed as closed:
            notes.refused = str(closed)
            return
        notes.open.set()
        await notes.over.wait()

    async def last(self) -> Notes:
        """The link that was served last, once it is up."""
        with trio.fail_after(PATIENCE):
            await self.began.wait()
            await self.links[-1].open.wait()
        return self.links[-1]


@asynccontextmanager
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made: list[World] = []

    async def serve(link: Link) -> None:
        await made[0].serve(link)

    door = QuicDoor(
        QuicSettings(port=0, stream_opens_per_second=1_000),
        WebTransportSettings(origins=(ORIGIN,)),
        serve=serve,
        admission=Admission(LimitSettings()),
        data_dir=tmp_path,
    )
    async with trio.open_nursery() as nursery:
        host, port = await nursery.start(door.run)
        made.append(World(door, f"{host}:{port}"))
        yield made[0]
        with trio.fail_after(PATIENCE):
            while door.endpoint.statistics().connections:
                await trio.sleep(0.01)
        assert door.endpoint.statistics().failures == 0
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def connected(there: World) -> AsyncIterator[QuicClient]:
    async with open_quic(there.address, alpn="h3") as client:
        yield client


async def test_lanes_streams_and_datagrams_both_ways(tmp_path: Path) -> None:
    async with world(tmp_path) as there, connected(there) as client:
        session = await start_session(client, origin=ORIGIN)
        notes = await there.last()
        link = notes.link
        control, messages = session.open(Lane.CONTROL, b"hello"), session.open(Lane.MESSAGE, b"message")
        await notes.until(lambda: notes.lanes == {Lane.CONTROL: b"hello", Lane.MESSAGE: b"message"})
        assert link.send(b"to control")
        assert link.send_on(Lane.MESSAGE, b"to messages")
        assert await control.receive_some() == b"to control"
        assert await messages.receive_some() == b"to messages"
        assert 1000 < link.max_datagram < 1400
        assert link.send_datagram(b"x" * link.max_datagram)
        assert not link.send_datagram(b"x" * (link.max_datagram + 1))
        assert await session.receive_datagram() == b"x" * link.max_datagram
        session.send_datagram(b"typing")
        await notes.until(lambda: notes.datagrams == [b"typing"])
        session.open(Lane.EPHEMERAL, b"file").finish()
        await notes.until(lambda: notes.sinks and notes.sinks[0].end_of_it)
        assert notes.sinks[0].data == b"file"
        outgoing = link.open_stream()
        await outgoing.send(b"another file")
        outgoing.finish()
        pipe, said = await session.accept()
        assert said + await pipe.read_all() == b"\x03another file"
        assert (link.transport, link.early, link.ticket, link.tickets()) == ("webtransport", False, "", ())


async def test_a_lane_that_is_paused_gets_no_credit_beyond_its_header(tmp_path: Path) -> None:
    async with world(tmp_path) as there, connected(there) as client:
        session = await start_session(client)
        notes = await there.last()
        notes.link.pause()
        window = QuicSettings().stream_window
        control = session.open(Lane.CONTROL)
        control.write(b"x" * (2 * window))
        header = len(session.header(False)) + 1
        await notes.until(lambda: len(notes.lanes.get(Lane.CONTROL, b"")) >= window - header)
        assert len(notes.lanes[Lane.CONTROL]) <= window
        assert control.unacknowledged >= window
        notes.link.resume()
        await notes.until(lambda: len(notes.lanes[Lane.CONTROL]) == 2 * window)


async def test_a_slow_reader_is_seen_by_the_room_on_its_lane(tmp_path: Path) -> None:
    async with (
        world(tmp_path) as there,
        open_quic(there.address, alpn="h3", stingy=True, max_stream_data=65_536) as client,
    ):
        session = await start_session(client)
        notes = await there.last()
        session.open(Lane.CONTROL, b"here")
        await notes.until(lambda: notes.lanes)
        sent = 0
        while notes.link.send(b"y" * 65_536):
            sent += 1
            assert sent < 100
        assert notes.link.unsent > 65_536


# -- the beginning -------------------------------------------------------------------------------------------------


async def test_t01_a_connection_without_a_connect_ends_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OPENING", 0.3)
    async with world(tmp_path) as there:
        for said in ("nothing", "settings", "a GET"):
            async with connected(there) as client:
                with suppress(trio.BrokenResourceError):  # so slow a machine that it is over already
                    if said != "nothing":
                        say_settings(client)
                    if said == "a GET":
                        ask(client, _method="GET", _protocol="")
                assert await client.wait_closed() == (H3Code.NO_ERROR, "")
        assert {each.refused for each in there.links} == {"no CONNECT in time"}


async def test_a_get_is_answered_and_the_connection_still_good_for_a_session(tmp_path: Path) -> None:
    async with world(tmp_path) as there, connected(there) as client:
        assert (await answered(ask(client, _method="GET", _protocol="")))[0] == 405
        assert (await answered(ask(client, _path="/")))[0] == 404
        await start_session(client)
        await there.last()


async def test_t09_a_foreign_origin_is_answered_403_and_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REFUSING", 0.2)
    async with world(tmp_path) as there, connected(there) as client:
        say_settings(client)
        status, _ = await answered(ask(client, origin="https://chat.example.org.evil"))
        assert status == 403
        assert await client.wait_closed() == (H3Code.NO_ERROR, "")
        assert there.links[0].refused.startswith("403")


async def test_t20_a_second_session_is_refused_while_the_first_goes_on(tmp_path: Path) -> None:
    async with world(tmp_path) as there, connected(there) as client:
        session = await start_session(client)
        notes = await there.last()
        assert (await answered(ask(client)))[0] == 429
        session.open(Lane.CONTROL, b"still here")
        await notes.until(lambda: notes.lanes == {Lane.CONTROL: b"still here"})


async def test_streams_and_datagrams_sent_with_the_connect_are_kept(tmp_path: Path) -> None:
    async with world(tmp_path) as there, connected(there) as client:
        for each in (b"\x40\x41\x00\x01early", b"\x40\x41\x00\x02also"):
            client.quic.send_stream_data(4 if each[3] == 1 else 8, each)
        client.quic.send_datagram_frame(b"\x00typing")
        client.quic._local_next_stream_id_bidi = 3
        client.transmit()
        request = client.pipes[0] = type(say_settings(client))(client, 0)
        client.quic._local_next_stream_id_bidi = 0
        again = ask(client)
        assert again.stream_id == request.stream_id == 0
        assert (await answered(again))[0] == 200
        notes = await there.last()
        await notes.until(lambda: notes.lanes == {Lane.CONTROL: b"early", Lane.MESSAGE: b"also"})
        await notes.until(lambda: notes.datagrams == [b"typing"])


async def test_t14_a_connect_in_early_data_is_answered_after_the_handshake_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    early: list[tuple[bool, bool]] = []
    decide = Http3.decide

    def deciding(self: Http3) -> None:
        before = self.session.id is not None
        decide(self)
        early.append((self._peer.early, self.session.id is not None and not before))

    monkeypatch.setattr(Http3, "decide", deciding)
    async with world(tmp_path) as there:
        async with connected(there) as client:
            ticket = await client.wait_ticket()
        requests: list[Pipe] = []

        def said_early(client: QuicClient) -> None:
            say_settings(client)
            requests.append(ask(client))

        async with open_quic(there.address, alpn="h3", ticket=ticket, early=said_early) as client:
            assert (await client.wait_handshaken()).early_data_accepted
            assert (await answered(requests[0]))[0] == 200
            assert not (await there.last()).link.early
    assert (True, False) in early, "it came early"
    assert (True, True) not in early, "and was not answered then"


async def test_t20_breaking_http3_closes_with_its_code(tmp_path: Path) -> None:
    async with world(tmp_path) as there:
        for data, code in (
            (b"\x00\x07\x01\x00", H3Code.MISSING_SETTINGS),
            (b"\x00\x04\x02\x02\x01", H3Code.SETTINGS_ERROR),
            (b"\x02\x3f\xe1\x1f", H3Code.QPACK_ENCODER_STREAM_ERROR),
            (b"\x01\x00", H3Code.STREAM_CREATION_ERROR),
        ):
            async with connected(there) as client:
                open_pipe(client, data, True)
                assert (await client.wait_closed())[0] == code
        async with connected(there) as client:
            open_pipe(client, b"\x01\x80\x00\x40\x01", False)
            assert (await client.wait_closed())[0] == H3Code.EXCESSIVE_LOAD


# -- the end -------------------------------------------------------------------------------------------------------


async def test_a_goodbye_carries_its_code_behind_what_was_sent(tmp_path: Path) -> None:
    async with world(tmp_path) as there, connected(there) as client:
        session = await start_session(client)
        notes = await there.last()
        control = session.open(Lane.CONTROL, b"here")
        await notes.until(lambda: notes.lanes)
        notes.link.send(b"last words")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(notes.link.say_goodbye, Code.KICKED_BY_ADMIN, "go away")
            assert await session.wait_closed() == (Code.KICKED_BY_ADMIN, "go away")
            assert await control.receive_some() == b"last words"
            session.connect.finish()
        notes.over.set()
        assert await client.wait_closed() == (H3Code.NO_ERROR, "")


async def test_a_client_that_has_the_goodbye_is_not_waited_for(tmp_path: Path) -> None:
    async with world(tmp_path) as there, connected(there) as client:
        session = await start_session(client)
        notes = await there.last()
        with trio.fail_after(PATIENCE):
            await notes.link.say_goodbye(Code.KICKED_BY_ADMIN, "go away")
        assert notes.events == []
        notes.over.set()
        assert await session.wait_closed() == (Code.KICKED_BY_ADMIN, "go away")


async def test_an_abort_says_why_if_nothing_was_said(tmp_path: Path) -> None:
    async with world(tmp_path) as there, connected(there) as client:
        session = await start_session(client)
        notes = await there.last()
        notes.link.parting = Code.SLOW_CONSUMER, "slow"
        notes.over.set()
        assert await session.wait_closed() == (Code.SLOW_CONSUMER, "slow")
        assert await client.wait_closed() == (H3Code.NO_ERROR, "")


async def test_who_reads_nothing_is_told_the_code_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LAST_BYTES", 0.1)
    stingy = {"stingy": True, "max_stream_data": 16_384}
    async with world(tmp_path) as there, open_quic(there.address, alpn="h3", **stingy) as client:
        session = await start_session(client)
        notes = await there.last()
        session.open(Lane.CONTROL, b"here")
        await notes.until(lambda: notes.lanes)
        notes.link.send(b"z" * 100_000)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(notes.link.say_goodbye, Code.SLOW_CONSUMER, "slow")
            assert await session.wait_closed() == (Code.SLOW_CONSUMER, "slow")
        notes.over.set()


async def test_the_clients_code_is_told_and_the_connection_let_go(tmp_path: Path) -> None:
    async with world(tmp_path) as there, connected(there) as client:
        session = await start_session(client)
        notes = await there.last()
        session.open(Lane.CONTROL)
        session.close(4403, "nothing heard")
        await notes.until(notes.over.is_set)
        assert notes.link.told == (4403, "nothing heard")
        assert notes.events[-1] == ("lost", "closed by the client with 4403")
        assert (await client.wait_closed())[0] == H3Code.NO_ERROR


async def test_a_control_lane_that_ends_ends_the_link_in_order(tmp_path: Path) -> None:
    async with world(tmp_path) as there, connected(there) as client:
        session = await start_session(client)
        notes = await there.last()
        session.open(Lane.CONTROL, b"bye").finish()
        await notes.until(lambda: ("close", Code.OK) in notes.events)
        assert notes.lanes == {Lane.CONTROL: b"bye"}


async def send_on(outgoing: OutgoingStream) -> None:
    while True:
        await outgoing.send(b"x")
        await trio.sleep(0.01)


async def test_codes_of_streams_are_mapped_both_ways(tmp_path: Path) -> None:
    async with world(tmp_path) as there, connected(there) as client:
        session = await start_session(client)
        notes = await there.last()
        assert from_h3(await session.open(9).refused()) == Code.UNKNOWN_TYPE
        pipe = session.open(Lane.EPHEMERAL, b"half")
        await notes.until(lambda: notes.sinks and notes.sinks[-1].data)
        pipe.reset(to_h3(77))
        await notes.until(lambda: notes.sinks[-1].end_of_it is not None)
        assert notes.sinks[-1].end_of_it == 77
        outgoing = notes.link.open_stream()
        await outgoing.send(b"x")
        (await session.accept())[0].stop(to_h3(4304))
        with trio.fail_after(PATIENCE), pytest.raises(LinkClosed, match="4304"):
            await send_on(outgoing)


async def test_draining_is_said_and_heard(tmp_path: Path) -> None:
    async with world(tmp_path) as there, connected(there) as client:
        session = await start_session(client)
        notes = await there.last()
        there.door.close()
        assert await session.capsule() == Capsule.DRAIN_SESSION
        session.connect.write(b"\x00\x05\x80\x00\x78\xae\x00")
        session.open(Lane.CONTROL, b"frames still flow")
        await notes.until(lambda: notes.lanes)
        assert notes.link.leaving


async def test_nothing_is_left_of_streams_that_have_ended(tmp_path: Path) -> None:
    async with world(tmp_path) as there, connected(there) as client:
        session = await start_session(client)
        notes = await there.last()
        before = notes.link.http3.statistics()
        for round_ in range(1, 6):
            for _ in range(40):
                session.open(Lane.EPHEMERAL, b"x").finish()
            await notes.until(lambda: sum(each.end_of_it == "end" for each in notes.sinks) >= 40 * round_)  # noqa: B023
        assert len(notes.sinks) == 200
        assert notes.link.http3.statistics() == before
