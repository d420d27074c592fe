"""The link over real sockets, with and without TLS: upgrade, payload, control frames, and every way to end."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from gateway.protocol.websocket import server_header
from gateway.transports.settings_websocket import WebSocketSettings
from gateway.transports.tls import TlsServer
from gateway.transports.websocket import PONG_ROOM
from tests.websocket.frames import close_body, frame
from tests.websocket.test_codec import REFUSED
from tests.websocket.test_upgrade import request
from tests.websocket.wire import Seat, Wire, certificates, open_wire


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[TlsServer, ssl.SSLContext]:
    folder: Path = tmp_path_factory.mktemp("certificates")
    return certificates(folder)


@pytest.fixture(params=["plain", "tls"])
async def wire(request: pytest.FixtureRequest, tls: tuple[TlsServer, ssl.SSLContext]) -> AsyncIterator[Wire]:
    async with open_wire(tls if request.param == "tls" else None) as made:
        yield made


@pytest.fixture
async def plain() -> AsyncIterator[Wire]:
    async with open_wire() as made:
        yield made


async def test_payload_both_ways(wire: Wire) -> None:
    seat, peer = await wire.upgraded()
    await peer.send(frame(b"hello ") + frame(b"wor", fin=False) + frame(b"ld", 0))
    await seat.wait_data(b"hello world")
    assert seat.link.transport == "websocket"
    assert seat.link.address == "192.0.2.1"
    for answer in (b"", b"one", b"x" * 300, b"y" * 70_000):
        assert seat.link.prefix is not None
        if not seat.link.send(seat.link.prefix(len(answer)) + answer):
            await seat.link.flush()
        assert await peer.frame() == (2, answer)


async def test_frames_right_behind_the_request(wire: Wire) -> None:
    seat, peer = await wire.connect()
    data = request() + frame(b"early ") + frame(b"bird")
    await peer.send(data[:-3])
    await peer.until(b"\r\n\r\n")
    await peer.send(data[-3:])
    await seat.wait_data(b"early bird")


async def test_one_byte_at_a_time(plain: Wire) -> None:
    seat, peer = await plain.connect()
    peer.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for byte in request() + frame(b"slow") + frame(close_body(1000), 8):
        await peer.send(bytes([byte]))
    assert (await peer.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
    assert await peer.frame() == (8, close_body(1000))
    await peer.ended()
    await seat.over.wait()
    assert seat.data == b"slow"


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (request(line="GET /nowhere HTTP/1.1"), 404),
        (request({"Origin": "https://evil.example"}), 403),
        (request({"Upgrade": None}), 426),
        (request({"X-Long": "y" * 65_536}), 400),
        (b"\x16\x03\x01 what is this" * 5000, 400),
    ],
)
async def test_a_refusal_is_read_then_the_end(wire: Wire, data: bytes, status: int) -> None:
    seat, peer = await wire.connect()
    await peer.send(data)
    answer = await peer.rest()
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert answer.endswith(b"\n")
    await peer.stream.aclose()
    await seat.over.wait()
    assert seat.refused is not None
    assert seat.refused.startswith(f"{status}: ")
    assert (seat.data, seat.code, seat.gone) == (b"", None, None)


async def test_who_does_not_take_the_refusal_is_cut_off(plain: Wire, autojump_clock: trio.abc.Clock) -> None:
    seat, peer = await plain.connect()
    await peer.send(b"POST / HTTP/1.1\r\n")
    await seat.over.wait()
    assert (await peer.rest()).startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize("said", [b"", request()[:50]])
async def test_the_end_before_the_upgrade(plain: Wire, said: bytes) -> None:
    seat, peer = await plain.connect()
    await peer.send(said)
    await peer.stream.aclose()
    with trio.fail_after(0.5):
        await seat.over.wait()
    assert seat.refused == "end of file"
    assert seat.gone is None


async def test_the_end_after_the_upgrade(wire: Wire) -> None:
    seat, peer = await wire.upgraded()
    await peer.send(frame(b"cut")[:-1])
    await trio.aclose_forcefully(peer.stream)
    await seat.over.wait()
    assert seat.gone is not None


async def test_the_peers_close_is_answered(wire: Wire) -> None:
    seat, peer = await wire.upgraded()
    seat.answer = lambda _, data: seat.link.send(server_header(len(data)) + data)
    await peer.send(frame(b"last words") + frame(close_body(4711, b"bye"), 8) + frame(b"too late"))
    assert await peer.frame() == (2, b"last words")
    assert await peer.frame() == (8, close_body(4711))
    await peer.ended()
    await seat.over.wait()
    assert (seat.data, seat.code, seat.gone) == (b"last words", 0, None)


async def test_a_close_without_a_code_is_answered_without(wire: Wire) -> None:
    _, peer = await wire.upgraded()
    await peer.send(frame(b"", 8))
    assert await peer.frame() == (8, b"")
    await peer.ended()


@pytest.mark.parametrize("leave", ["close", "end of file", "reset"])
async def test_who_connects_and_leaves_frees_its_descriptor(plain: Wire, leave: str) -> None:
    seat, peer = await plain.upgraded()
    if leave == "close":
        await peer.send(frame(close_body(1001), 8))
    elif leave == "reset":
        peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    peer.socket.close()
    with trio.fail_after(0.5):
        await seat.over.wait()


@pytest.mark.parametrize(
    "name", ["unmasked", "RSV1", "opcode 3", "fragmented ping", "long ping", "length 2^62", "a text"]
)
async def test_t08_what_breaks_the_rules_is_told_before_the_end(wire: Wire, name: str) -> None:
    data, code = REFUSED[name]
    seat, peer = await wire.upgraded()
    await peer.send(frame(b"good") + data + b"more" * 1000)
    opcode, payload = await peer.frame()
    assert (opcode, payload[:2]) == (8, code.to_bytes(2, "big"))
    assert payload[2:].decode() == seat.reason
    await peer.ended()
    await seat.over.wait()
    assert (seat.data, seat.code) == (b"good", code)


async def test_t08_a_million_empty_fragments(plain: Wire) -> None:
    seat, peer = await plain.upgraded()
    flood = frame(b"", fin=False) + frame(b"", 0, fin=False) * 10_000
    async with trio.open_nursery() as nursery:

        async def pour() -> None:
            try:
                for _ in range(100):
                    await peer.send(flood)
            except trio.BrokenResourceError:
                pass

        nursery.start_soon(pour)
        opcode, payload = await peer.frame()
        assert (opcode, payload[:2]) == (8, (1009).to_bytes(2, "big"))
        nursery.cancel_scope.cancel()
    await peer.stream.aclose()
    await seat.over.wait()
    assert seat.code == 1009


async def test_pings_are_answered_at_once_and_before_what_they_interrupt(wire: Wire) -> None:
    seat, peer = await wire.upgraded(messages=True)
    seat.answer = lambda opcode, data: seat.link.send(server_header(len(data), opcode) + data)
    await peer.send(frame(b"he", 1, fin=False) + frame(b"a", 9) + frame(b"llo", 0) + frame(b"b", 9) + frame(b"", 10))
    assert [await peer.frame() for _ in range(3)] == [(10, b"a"), (10, b"b"), (1, b"hello")]
    assert seat.lanes == [1]


async def test_t08_a_flood_of_pings(wire: Wire) -> None:
    seat, peer = await wire.upgraded(WebSocketSettings(ping_burst=5, ping_rate=0.001))
    await peer.send(frame(b"x", 9) * 100)
    assert [await peer.frame() for _ in range(5)] == [(10, b"x")] * 5
    assert await peer.closed_with(1008) == "too many pings"
    await seat.over.wait()
    assert seat.code == 1008


async def test_pings_at_the_allowed_rate_go_on(plain: Wire, autojump_clock: trio.abc.Clock) -> None:
    _, peer = await plain.upgraded(WebSocketSettings(ping_burst=2, ping_rate=2.0))
    for _ in range(20):
        await peer.send(frame(b"x", 9))
        assert await peer.frame() == (10, b"x")
        await trio.sleep(0.5)


async def test_our_close_waits_for_the_peers(wire: Wire) -> None:
    seat, peer = await wire.upgraded()
    seat.close(4300, "node_full")
    opcode, payload = await peer.frame()
    assert (opcode, payload) == (8, close_body(4300, b"node_full"))
    await peer.send(frame(b"on its way already") + frame(b"ping", 9))
    await trio.testing.wait_all_tasks_blocked()
    assert not seat.over.is_set()
    await peer.send(frame(close_body(4300), 8))
    await peer.ended()
    await seat.over.wait()
    assert seat.data == b""


async def test_our_close_to_a_paused_link(wire: Wire) -> None:
    seat, peer = await wire.upgraded()
    seat.link.pause()
    await peer.send(frame(b"never read"))
    seat.close(4302, "over the rate")
    assert await peer.closed_with(4302) == "over the rate"
    await seat.over.wait()
    assert seat.data == b""


async def test_a_peer_that_ends_instead_of_closing(wire: Wire) -> None:
    seat, peer = await wire.upgraded()
    seat.close(4400, "going_away")
    await peer.frame()
    await trio.aclose_forcefully(peer.stream)
    with trio.fail_after(1):
        await seat.over.wait()


async def test_a_peer_that_never_answers_our_close(plain: Wire, autojump_clock: trio.abc.Clock) -> None:
    seat, _ = await plain.upgraded()
    started = trio.current_time()
    seat.close(4400, "going_away")
    await seat.over.wait()
    assert trio.current_time() - started == pytest.approx(2.0)


async def test_pause_and_resume(wire: Wire) -> None:
    seat, peer = await wire.upgraded()
    seat.link.pause()
    await peer.send(frame(b"later"))
    for _ in range(5):
        await trio.testing.wait_all_tasks_blocked(0.01)
    assert seat.data == b""
    seat.link.resume()
    await seat.wait_data(b"later")


async def stuff(seat: Seat, size: int = 1 << 20) -> int:
    """Send until the socket takes no more; returns the messages of `size` zeroes."""
    count = 1
    while seat.link.send(server_header(size) + bytes(size)):
        count += 1
    assert seat.link.unsent
    return count


async def test_a_pong_never_cuts_a_frame_in_two(wire: Wire) -> None:
    seat, peer = await wire.upgraded()
    count = await stuff(seat)
    before = seat.link.unsent
    # Room for a pong there is not, unless what is unsent is small enough.
    await peer.send(frame(b"ping", 9))
    await trio.testing.wait_all_tasks_blocked(0.05)
    seat.close(4303, "slow_consumer")
    for _ in range(count):
        opcode, payload = await peer.frame()
        assert (opcode, len(payload)) == (2, 1 << 20)
    opcode, payload = await peer.frame()
    if opcode == 10:
        assert before < PONG_ROOM + 1000
        opcode, payload = await peer.frame()
    assert (opcode, payload) == (8, close_body(4303, b"slow_consumer"))
    await peer.send(frame(close_body(4303), 8))
    await peer.ended()


async def test_a_peer_that_pings_and_reads_nothing(plain: Wire) -> None:
    seat, peer = await plain.upgraded(WebSocketSettings(ping_burst=1_000_000))
    while seat.code is None:
        await peer.send(frame(b"x" * 125, 9) * 500)
    assert (seat.code, seat.reason) == (4303, "pongs are not being read")
    assert seat.link.unsent <= PONG_ROOM + 65_536
    peer.socket.close()
    await seat.over.wait()


async def test_forwarded_for(plain: Wire) -> None:
    seat, peer = await plain.connect(WebSocketSettings(trusted_proxies=("192.0.2.0/24",)))
    await peer.upgrade(request({"X-Forwarded-For": "198.51.100.1, 203.0.113.7"}))
    await seat.opened.wait()
    assert seat.link.address == "203.0.113.7"


async def test_abort_tells_nothing(wire: Wire) -> None:
    seat, peer = await wire.upgraded()
    seat.link.abort()
    seat.link.abort()
    assert seat.link.send(b"into the void")
    assert seat.gone is None
    seat.lost("for the seat to end")
    await trio.aclose_forcefully(peer.stream)
