"""The listener: whom it lets in, how it tells the others, and what it leaves behind."""

from __future__ import annotations

import gc
import itertools
import logging
import os
import resource
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

from gateway.core.link import Link, LinkClosed
from gateway.transports import listener as module
from gateway.transports.listener import Listener
from gateway.transports.proxy_protocol import TrustedProxies
from gateway.transports.reactor import Reactor
from gateway.transports.tcp import TcpLink
from tests.transports.harness import (
    PATIENCE,
    Certificates,
    Ear,
    descriptors,
    link_around,
    receive_exactly,
    running_reactor,
)
from tests.transports.test_proxy_protocol import proxy_header


class Host:
    """Serves each link as an echo, under a deadline like a Connection's; remembers who came."""

    def __init__(self) -> None:
        self.links: list[Link] = []
        self.open = 0
        self.fault: Exception | None = None
        self.deadline = PATIENCE

    async def serve(self, link: Link) -> None:
        self.links.append(link)
        self.open += 1
        try:
            if self.fault is not None:
                raise self.fault
            ear = Ear()
            ear.on_feed = link.send
            link.attach(ear)
            with trio.fail_after(self.deadline):
                await link.open()
            await ear.until_told("lost")
        except (LinkClosed, trio.TooSlowError):
            pass
        finally:
            self.open -= 1


def refusal(code: int) -> bytes:
    return f"refused {code}".encode()


@asynccontextmanager
async def listening(
    host: Host, *, tls: Certificates | None = None, address: str = "127.0.0.1", **more: Any
) -> AsyncIterator[Listener]:
    before = descriptors()
    async with running_reactor() as reactor, trio.open_nursery() as nursery:
        made = Listener(
            "tcp", address, 0, link=lambda sock, _address: _link(sock, _address, reactor, tls), serve=host.serve, **more
        )
        yield await nursery.start(made.run)
        nursery.cancel_scope.cancel()
    assert host.open == 0
    assert descriptors() == before


def _link(sock: socket.socket, address: str, reactor: Reactor, tls: Certificates | None) -> TcpLink:
    link = link_around(sock, reactor, tls)
    link.address = address
    return link


async def connect(listener: Listener) -> trio.SocketStream:
    with trio.fail_after(PATIENCE):
        return await trio.open_tcp_stream(listener.address, listener.port)


async def echoes(stream: trio.abc.Stream, data: bytes = b"hello") -> None:
    await stream.send_all(data)
    assert await receive_exactly(stream, len(data)) == data


async def words(stream: trio.abc.ReceiveStream) -> bytes:
    """Everything until the end; a reset counts as one."""
    data = b""
    with trio.fail_after(PATIENCE):
        try:
            while part := await stream.receive_some(65_536):
                data += part
        except trio.BrokenResourceError:
            pass
    return data


async def until(true: Callable[[], bool]) -> None:
    with trio.fail_after(PATIENCE):
        while not true():
            await trio.sleep(0.001)


# -- listening ---------------------------------------------------------------------------------------------


async def test_serves_with_the_peers_address_and_without_delay() -> None:
    host = Host()
    async with listening(host) as made, await connect(made) as stream:
        assert made.address == "127.0.0.1"
        assert made.port > 0
        await echoes(stream)
        link = host.links[0]
        assert isinstance(link, TcpLink)
        assert link.address == "127.0.0.1"
        with socket.socket(fileno=os.dup(link.fd)) as sock:
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert made.accepted == 1


async def test_tls(tls: Certificates) -> None:
    host = Host()
    async with listening(host, tls=tls) as made, await connect(made) as below:
        stream = trio.SSLStream(below, tls.client, server_hostname="localhost", https_compatible=True)
        await echoes(stream)


@pytest.mark.parametrize("address", ["::1", "::"])
async def test_ipv6(address: str) -> None:
    host = Host()
    async with listening(host, address=address) as made:
        async with await connect(made) as stream:
            await echoes(stream)
        assert host.links[0].address == "::1"


async def test_every_interface_takes_ipv4_as_ipv4() -> None:
    host = Host()
    async with listening(host, address="::") as made, await trio.open_tcp_stream("127.0.0.1", made.port) as stream:
        await echoes(stream)
        assert host.links[0].address == "127.0.0.1"


async def test_a_name_and_a_shared_port() -> None:
    host = Host()
    async with listening(host, address="localhost", reuse_port=True) as made:
        other = Listener("tcp", made.address, made.port, link=_never, serve=host.serve, reuse_port=True)
        async with trio.open_nursery() as nursery:
            await nursery.start(other.run)
            nursery.cancel_scope.cancel()


def _never(_sock: socket.socket, _address: str) -> Link:
    raise AssertionError


async def test_an_address_that_cannot_be_had_is_one_clear_line() -> None:
    before = descriptors()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=rf"tcp: cannot listen on 127\.0\.0\.1 port {port}: Address already in use"):
            await Listener("tcp", "127.0.0.1", port, link=_never, serve=Host().serve).run()
    with pytest.raises(OSError, match=r"tcp: cannot listen on 192\.0\.2\.1 port 0: Cannot assign"):
        await Listener("tcp", "192.0.2.1", 0, link=_never, serve=Host().serve).run()
    with pytest.raises(OSError, match=r"websocket: no such address to listen on: not\.a\.host\.invalid"):
        await Listener("websocket", "not.a.host.invalid", 0, link=_never, serve=Host().serve).run()
    assert descriptors() == before


# -- one connection's trouble is its own -------------------------------------------------------------------


@pytest.mark.parametrize("fault", [ValueError("a bug"), ExceptionGroup("", [KeyError("a bug")])])
async def test_44_an_exception_in_serve_ends_that_connection(
    fault: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    host = Host()
    async with listening(host) as made, await connect(made) as neighbour:
        await echoes(neighbour)
        host.fault = fault
        with caplog.at_level(logging.ERROR, "gateway.listener"):
            async with await connect(made) as stream:
                assert await words(stream) == b""
        assert [record.message for record in caplog.records] == ["connection_failed"]
        host.fault = None
        await echoes(neighbour)


@pytest.mark.parametrize("proxied", [False, True])
async def test_44_an_exception_while_building_the_link(proxied: bool, caplog: pytest.LogCaptureFixture) -> None:
    def broken(_sock: socket.socket, _address: str) -> Link:
        raise RuntimeError("a bug")

    proxies = TrustedProxies(["127.0.0.1"]) if proxied else None
    async with trio.open_nursery() as nursery:
        made = Listener("tcp", "127.0.0.1", 0, link=broken, serve=Host().serve, trusted_proxies=proxies)
        await nursery.start(made.run)
        with caplog.at_level(logging.ERROR, "gateway.listener"):
            for _ in range(2):
                async with await connect(made) as stream:
                    await stream.send_all(proxy_header())
                    assert await words(stream) == b""
        assert [record.message for record in caplog.records] == ["accept_failed"] * 2
        nursery.cancel_scope.cancel()


async def test_01_the_deadline_holds_in_total_not_per_read(tls: Certificates) -> None:
    host = Host()
    host.deadline = 0.2
    async with listening(host, tls=tls) as made, await connect(made) as stream:
        hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
        with suppress(trio.BrokenResourceError), trio.fail_after(PATIENCE):
            for byte in itertools.cycle(hello):
                await stream.send_all(bytes([byte]))
                await trio.sleep(0.01)
        assert host.open == 0


async def test_01_an_eof_frees_the_descriptor_at_once(tls: Certificates) -> None:
    host = Host()
    for encrypted in (None, tls):
        async with listening(host, tls=encrypted) as made:
            before = descriptors()
            for data in (b"", b"\x16\x03\x01"):
                stream = await connect(made)
                await until(lambda: host.open == 1)
                await stream.send_all(data)
                await stream.aclose()
                await until(lambda: host.open == 0)
            assert descriptors() == before


# -- admission ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("said_first", [b"", b"an Auth frame that was sent at once"])
async def test_a_refused_peer_is_told(said_first: bytes) -> None:
    host = Host()
    asked: list[str] = []

    def admit(address: str) -> int:
        asked.append(address)
        return 4300

    async with listening(host, admit=admit, refusal=refusal) as made:
        before = descriptors()
        stream = await connect(made)
        if said_first:
            await stream.send_all(said_first)
        assert await words(stream) == b"refused 4300"
        await stream.aclose()
        assert asked == ["127.0.0.1"]
        assert not host.links
        assert (made.accepted, made.refused) == (0, 1)
        assert descriptors() == before


async def test_refused_without_a_word() -> None:
    async with listening(Host(), admit=lambda _address: 4301) as made, await connect(made) as stream:
        assert await words(stream) == b""


# -- leaving -----------------------------------------------------------------------------------------------


async def test_close_stops_accepting_at_once_and_connections_live_on() -> None:
    host = Host()
    ended = trio.Event()
    async with running_reactor() as reactor, trio.open_nursery() as nursery:
        made = Listener("tcp", "127.0.0.1", 0, link=partial(TcpLink, reactor), serve=host.serve)

        async def run(*, task_status: trio.TaskStatus[Listener]) -> None:
            await made.run(task_status=task_status)
            ended.set()

        await nursery.start(run)
        stream = await connect(made)
        await echoes(stream)
        made.close()
        made.close()
        with pytest.raises(OSError, match="all attempts to connect"):
            await connect(made)
        await echoes(stream)
        assert not ended.is_set()
        await stream.aclose()
        with trio.fail_after(PATIENCE):
            await ended.wait()


async def test_45_cancelled_at_any_instant_leaves_no_listening_socket() -> None:
    before = descriptors()
    async with running_reactor() as reactor:
        for passes in range(12):
            host = Host()
            made = Listener("tcp", "127.0.0.1", 0, link=partial(TcpLink, reactor), serve=host.serve)
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_cancel_after, scope, passes)
                    await nursery.start(made.run)
                    async with await connect(made) as stream:
                        await echoes(stream)
                    nursery.cancel_scope.cancel()
            assert descriptors() == before + 1, f"after {passes} passes"  # the reactor's epoll


async def _cancel_after(scope: trio.CancelScope, passes: int) -> None:
    for _ in range(passes):
        await trio.lowlevel.checkpoint()
    scope.cancel()


# -- out of descriptors ------------------------------------------------------------------------------------


@contextmanager
def no_descriptors() -> Iterator[None]:
    """Not one more for this process."""
    lowest_free = os.dup(0)
    os.close(lowest_free)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_33_out_of_descriptors(caplog: pytest.LogCaptureFixture) -> None:
    host = Host()
    async with listening(host, refusal=refusal) as made, await connect(made) as neighbour:
        await echoes(neighbour)
        socks = [trio.socket.socket() for _ in range(10)]
        with caplog.at_level(logging.ERROR, "gateway.listener"), no_descriptors():
            for sock in socks:
                await sock.connect((made.address, made.port))
            for sock in socks:
                assert await words(trio.SocketStream(sock)) == b"refused 4300"
            await echoes(neighbour)
        for sock in socks:
            sock.close()
        assert [record.message for record in caplog.records] == ["accept_exhausted"], "one line, however many"
        with trio.fail_after(5):  # a second by the table; this machine may be busy
            async with await connect(made) as stream:
                await echoes(stream)
        assert made.refused == 10


async def test_33_without_even_the_reserve_it_does_not_spin(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host()
    async with listening(host) as made:
        calls: list[float] = []
        exhausted = made._exhausted

        def counted(error: OSError) -> None:
            calls.append(trio.current_time())
            exhausted(error)

        monkeypatch.setattr(made, "_exhausted", counted)
        monkeypatch.setattr(made._reserve, "take", lambda: None)
        made._reserve.give_back()
        with trio.socket.socket() as sock:
            with no_descriptors():
                await sock.connect((made.address, made.port))
                await until(lambda: len(calls) >= 4)
            await echoes(trio.SocketStream(sock))
    gaps = [later - earlier for earlier, later in itertools.pairwise(calls)]
    assert min(gaps) >= module.BACK_OFF


async def test_46_connects_and_closes() -> None:
    host = Host()
    async with listening(host) as made:

        async def come_and_go(count: int) -> None:
            end = made.accepted + count
            for _ in range(count // 20):
                for _ in range(20):
                    socket.create_connection((made.address, made.port)).close()
                await trio.lowlevel.checkpoint()
            await until(lambda: made.accepted == end and host.open == 0)
            host.links.clear()

        await come_and_go(100)
        before = descriptors()
        tasks = trio.lowlevel.current_statistics().tasks_living
        gc.collect()
        objects = len(gc.get_objects())
        await come_and_go(2_000)
        await until(lambda: trio.lowlevel.current_statistics().tasks_living == tasks)
        gc.collect()
        assert len(gc.get_objects()) - objects < 200
        assert descriptors() == before
        assert made.accepted == 2_100


# -- PROXY protocol ----------------------------------------------------------------------------------------

LOCAL = TrustedProxies(["127.0.0.1"])


@pytest.mark.parametrize("encrypted", [False, True])
async def test_proxy_names_the_client(encrypted: bool, tls: Certificates) -> None:
    host = Host()
    asked: list[str] = []

    def admit(address: str) -> int:
        asked.append(address)
        return 0

    used = tls if encrypted else None
    async with listening(host, tls=used, admit=admit, trusted_proxies=LOCAL) as made, await connect(made) as below:
        stream: trio.abc.Stream = below
        for byte in proxy_header("2001:db8::7", extra=b"\x04\x00\x02hi"):
            await below.send_all(bytes([byte]))
        if encrypted:
            stream = trio.SSLStream(below, tls.client, server_hostname="localhost", https_compatible=True)
        await echoes(stream)
        assert host.links[0].address == "2001:db8::7"
        assert getattr(host.links[0], "spent", 0.0) > 0  # its deadline has begun with the accept
        assert asked == ["2001:db8::7"]


async def test_proxy_header_and_data_in_one_segment() -> None:
    host = Host()
    async with listening(host, trusted_proxies=LOCAL) as made, await connect(made) as stream:
        await stream.send_all(proxy_header() + b"data")
        assert await receive_exactly(stream, 4) == b"data"


async def test_proxy_speaks_for_itself() -> None:
    host = Host()
    async with listening(host, trusted_proxies=LOCAL) as made, await connect(made) as stream:
        await stream.send_all(proxy_header(command=0x20))
        await echoes(stream)
        assert host.links[0].address == "127.0.0.1"


async def test_proxied_client_refused() -> None:
    async with (
        listening(Host(), admit=lambda _: 4301, refusal=refusal, trusted_proxies=LOCAL) as made,
        await connect(made) as stream,
    ):
        await stream.send_all(proxy_header())
        assert await words(stream) == b"refused 4301"


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", proxy_header()[:-1], bytes(16)])
async def test_a_proxy_without_a_whole_header_is_closed(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PROXY_HEADER", 0.1)
    host = Host()
    async with listening(host, trusted_proxies=LOCAL) as made:
        before = descriptors()
        async with await connect(made) as stream:
            await stream.send_all(data)
            assert await words(stream) == b""
        async with await connect(made) as stream:
            await stream.send_all(data[:15])
            await stream.send_eof()
            assert await words(stream) == b""
        assert not host.links
        assert descriptors() == before


async def test_whoever_is_no_proxy_is_not_believed() -> None:
    host = Host()
    async with listening(host, trusted_proxies=TrustedProxies(["10.0.0.0/8"])) as made, await connect(made) as stream:
        await echoes(stream, proxy_header("192.0.2.7"))
        assert host.links[0].address == "127.0.0.1"
