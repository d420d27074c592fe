"""What a connection to the console may cost, and that none of them hurts another or holds up the end."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping

import pytest
import trio

from gateway.console import server
from gateway.console.browser import Served
from tests.console.asking import Asker, Shown, console


async def test_garbage_is_400_and_hurts_nobody(caplog: pytest.LogCaptureFixture) -> None:
    async with console(Shown()) as asker:
        for data in (
            b"\x00" * 100 + b"\r\n\r\n",
            b"GET /\xff HTTP/1.1\r\nhost: localhost\r\n\r\n",
            b"GET / HTTP/one\r\n\r\n",
            b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
            b"GET / HTTP/1.1\r\nhost: localhost\r\nx: " + b"y" * 20_000,
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 100 + b"\r\n\r\n",
        ):
            assert (await asker.send(data)).startswith(b"HTTP/1.1 4")
        assert (await asker.ask("/healthz")).status == 200
    assert not caplog.records


async def test_a_fault_in_the_server_ends_one_connection(caplog: pytest.LogCaptureFixture) -> None:
    """HTTP/2 with a path that Hypercorn cannot decode: an exception of its own, in one connection."""
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
    block = b"\x82\x86\x44\x02/\xff\x41\x09localhost"  # GET, http, path "/\xff", authority
    headers = len(block).to_bytes(3, "big") + b"\x01\x05\x00\x00\x00\x01" + block
    async with console(Shown()) as asker:
        await asker.send(preface + headers)
        assert (await asker.ask("/healthz")).status == 200
    assert [each.message for each in caplog.records] == ["console_connection_failed"]


async def test_places_are_bounded_and_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MOST_CONNECTIONS", 3)
    async with console(Shown()) as asker:
        held = [await trio.open_tcp_stream("127.0.0.1", asker.port) for _ in range(3)]
        for stream in held:  # answered, so that it surely holds its place
            await stream.send_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")
            assert b" 200 " in await stream.receive_some(4096)
        assert await asker.send(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n") == b""
        for stream in held:
            await stream.aclose()
        while not await asker.send(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"):
            await trio.sleep(0.01)


async def test_a_slow_request_loses_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "LONGEST_CONNECTION", 0.2)
    async with console(Shown()) as asker:
        assert await asker.send(b"GET /healthz HTTP/1.1\r\nhost: loc") == b""


class Volume:
    """A page of more than sockets hold."""

    def answer(self, method: str, path: str, query: str, headers: Mapping[str, str]) -> Served | None:
        size = 64 * 1024 * 1024
        return (
            Served(status=200, headers=(("content-length", str(size)),), body=bytes(size)) if path == "/big" else None
        )


async def unread(asker: Asker) -> trio.SocketStream:
    """A client that has its answer coming and does not read it: the server is stuck in a send that it shields."""
    stream = await trio.open_tcp_stream("127.0.0.1", asker.port)
    await stream.send_all(b"GET /big HTTP/1.1\r\nhost: localhost\r\n\r\n")
    assert await stream.receive_some(1) == b"H"
    return stream


async def test_a_client_that_reads_nothing_does_not_hold_up_the_end() -> None:
    async with console(Shown(), page=Volume()) as asker:
        stream = await unread(asker)
        assert (await asker.ask("/healthz")).status == 200
    await stream.aclose()  # the console has stopped before this, or the test would have timed out


async def test_a_client_that_reads_nothing_loses_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "LONGEST_CONNECTION", 0.5)
    async with console(Shown(), page=Volume()) as asker:
        stream = await unread(asker)
        async with stream:
            await trio.sleep(0.6)  # what is tested is that time passes
            received = 0
            with contextlib.suppress(trio.BrokenResourceError):
                while data := await stream.receive_some(1_048_576):
                    received += len(data)
            assert received < 64 * 1024 * 1024


async def test_idle_connections_do_not_hold_up_the_end() -> None:
    async with console(Shown()) as asker:
        idle = [await trio.open_tcp_stream("127.0.0.1", asker.port) for _ in range(5)]
        await idle[0].send_all(b"GET /")
        assert (await asker.ask("/healthz")).status == 200
    for stream in idle:
        await stream.aclose()


async def test_starting_and_stopping_leaves_nothing() -> None:
    async def once() -> None:
        async with console(Shown()) as asker:
            assert (await asker.ask("/healthz")).status == 200

    await once()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        await once()
    assert len(os.listdir("/proc/self/fd")) <= before
