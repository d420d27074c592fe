"""The first connection, the login, and the last goodbye."""

from __future__ import annotations

import math
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from gateway._framing import encode_frame
from gateway.client import (
    ClientError,
    ClientSettings,
    State,
    TransportFailed,
    Unreachable,
    connect,
)
from gateway.protocol.messages import (
    AuthRequest,
    AuthResponse,
    SyncResponse,
    encode,
)
from tests.client.server import URL, Link, Server, chat, connecting, online, states, take


async def test_login_says_who_we_are() -> None:
    server = Server()
    requests: list[AuthRequest] = []

    async def script() -> None:
        link = await server.accept()
        requests.append(await link.log_in(user_id=77, node_id="n9"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(script)
        async with connecting(server, platform="desktop", device_id="laptop") as client:
            assert (client.user_id, client.node_id, client.state) == (77, "n9", State.ONLINE)
            assert client.url == URL
    (request,) = requests
    assert (request.token, request.device_id, request.platform) == ("secret", "laptop", "desktop")
    assert request.protocol_version == 1
    assert request.client.startswith("trio-gateway/")


@pytest.mark.parametrize("bad", [{"device_id": "a b"}, {"platform": ""}, {"cursor": -1}])
async def test_names_that_cannot_be_are_refused_at_once(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        async with connecting(Server(), **bad):
            pass


async def test_the_programs_exception_comes_out_as_it_is() -> None:
    server = Server()

    async def script() -> None:
        await (await server.accept()).log_in()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(script)
        with pytest.raises(KeyError, match="mine"):
            async with connecting(server):
                raise KeyError("mine")


async def test_cancelling_leaves_at_once_and_closes_the_link(autojump_clock: MockClock) -> None:
    server = Server()
    links: list[Link] = []

    async def script() -> None:
        links.append(await server.welcome())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(script)
        with trio.move_on_after(5):
            async with connecting(server):
                await trio.sleep_forever()
    assert trio.current_time() < 6
    with pytest.raises(trio.EndOfChannel):
        await links[0].next_frame()


async def test_the_first_connection_is_tried_until_the_start_timeout(autojump_clock: MockClock) -> None:
    server = Server()
    server.faults.extend(TransportFailed("connection refused") for _ in range(1000))
    start = trio.current_time()
    with pytest.raises(Unreachable, match="connection refused"):
        async with connecting(server):
            pass
    assert trio.current_time() - start == pytest.approx(10)
    assert len(server.dialled) > 3


async def test_a_server_that_comes_up_late_is_reached(autojump_clock: MockClock) -> None:
    server = Server()
    server.faults.extend(TransportFailed("connection refused") for _ in range(20))
    async with online(server, settings=ClientSettings(start_timeout=math.inf)) as (client, _):
        assert client.statistics().attempts == 21


async def test_what_will_not_change_fails_at_once(autojump_clock: MockClock) -> None:
    server = Server()
    server.faults.append(TransportFailed("HTTP 403 origin", final=True))
    with pytest.raises(Unreachable, match="HTTP 403"):
        async with connecting(server):
            pass
    assert trio.current_time() < 0.1


async def test_a_dial_that_hangs_is_given_up(autojump_clock: MockClock) -> None:
    async def hang(endpoint: object, nursery: object) -> Any:
        await trio.sleep_forever()

    with pytest.raises(Unreachable, match=r"no connection to tcp://gateway.test:9000 within 2 s"):
        async with connect(URL, token="t", device_id="d", dial=hang, settings=ClientSettings(connect_timeout=2)):
            pass


async def test_a_login_without_an_answer_is_given_up(autojump_clock: MockClock) -> None:
    server = Server()
    with pytest.raises(Unreachable, match="no answer to the login in time"):
        async with connecting(server, settings=ClientSettings(login_timeout=3)):
            pass
    assert len(server.dialled) >= 2


async def test_a_fault_of_ours_is_told(autojump_clock: MockClock) -> None:
    async def broken(endpoint: object, nursery: object) -> Any:
        raise ZeroDivisionError("bug")

    with pytest.raises(ClientError, match="fault in the client: ZeroDivisionError") as caught:
        async with connect(URL, token="t", device_id="d", dial=broken):
            pass
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


async def test_login_cut_at_every_byte(autojump_clock: MockClock) -> None:
    """Wherever the link breaks on the way to the session, the next attempt makes it, and nothing is lost."""
    answer = encode(AuthResponse(user_id=1001, node_id="n1", max_frame=65_536), seq=1)
    sync = encode(SyncResponse(messages=(chat(1), chat(2)), next_cursor=2), seq=2)
    stream = answer + sync
    for cut in range(len(stream)):
        server = Server()

        async def script(server: Server = server, cut: int = cut) -> None:
            link = await server.accept()
            await link.stream.send_all(stream[:cut])
            await wait_all_tasks_blocked()
            link.cut()
            await server.welcome([chat(1), chat(2)])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(script)
            async with connecting(server) as client:
                assert [d.server_seq for d in await take(client, 2)] == [1, 2]
                assert client.statistics().attempts == 2


async def test_login_byte_by_byte(autojump_clock: MockClock) -> None:
    server = Server()

    async def script() -> None:
        link = await server.accept()
        for byte in encode(AuthResponse(user_id=1001), seq=1):
            await link.stream.send_all(bytes([byte]))
            await trio.sleep(0.01)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(script)
        async with connecting(server) as client:
            assert client.user_id == 1001


@pytest.mark.parametrize("garbage", [b"\xff" * 64, encode_frame(10, b"nonsense"), encode_frame(2, b"\0" * 40)])
async def test_a_server_that_breaks_the_protocol_is_left(autojump_clock: MockClock, garbage: bytes) -> None:
    server = Server()
    async with online(server) as (client, link):
        await link.stream.send_all(garbage)
        (waiting,) = await states(client, "waiting")
        assert waiting.reason.startswith("the server broke the protocol: ")
        await server.welcome()


async def test_kinds_from_a_newer_server_are_ignored() -> None:
    async with online(Server()) as (client, link):
        known = encode(chat(1))
        await link.stream.send_all(known[:4] + b"\x03\xe7" + known[6:])
        await link.send(chat(1))
        assert [d.server_seq for d in await take(client, 1)] == [1]
