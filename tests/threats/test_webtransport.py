"""Threats 1, 2, 9, 20, 44, 46 where WebTransport is unlike other links; what all links bear is tested for all."""

from __future__ import annotations

import gc
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trio

from gateway._framing import build_heartbeat
from gateway.core.link import Lane
from gateway.core.settings import LoginSettings
from gateway.protocol.codes import Code
from gateway.protocol.http3 import H3Code, frame
from gateway.protocol.messages import AuthResponse
from gateway.protocol.varints import varint
from gateway.transports.settings_webtransport import WebTransportSettings
from gateway.transports.webtransport import link
from gateway.transports.webtransport.http3 import Http3
from gateway.transports.webtransport.link import WebTransportLink
from tests.support.node import PATIENCE, RunningNode, descriptors, neighbour, open_running
from tests.support.peer import Peer
from tests.support.quic_peer import QuicClient
from tests.support.webtransport_peer import answered, ask, open_pipe, say_settings, start_session

QUICK = LoginSettings(link_timeout=1.0, auth_timeout=1.0)
"""The same rules in less time."""


async def h3(running: RunningNode) -> QuicClient:
    """A connection with ALPN `h3` that has said nothing yet."""
    return await running.quic(alpn="h3")


async def test_t01_silence_is_closed_five_seconds_after_the_first_packet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "OPENING", 0.4)
    async with open_running(tmp_path, "https") as running, neighbour(running):
        silent, half, slow = [await h3(running) for _ in range(3)]

        async def drip() -> None:
            with suppress(trio.BrokenResourceError):
                dripped = open_pipe(slow, b"\x00", True)
                for byte in b"\x04\x3f" + b"\x21\x00" * 100_000:
                    dripped.write(bytes((byte,)))
                    await trio.sleep(0.05)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(drip)
            with suppress(trio.BrokenResourceError):  # so slow a machine that it is over already
                say_settings(half)
                open_pipe(half, b"\x01\x40\x80half of the fields", False)
            for each in (silent, half, slow):
                assert (await each.wait_closed())[0] == H3Code.NO_ERROR
            nursery.cancel_scope.cancel()
        await running.empty(but=1)


async def test_t02_a_session_that_never_authenticates_is_told_4103(tmp_path: Path) -> None:
    async with open_running(tmp_path, "https", login=QUICK) as running, neighbour(running):
        session, mute = await running.webtransport(), await running.webtransport()
        peer = Peer(session.open(Lane.CONTROL))
        assert await session.wait_closed() == (Code.AUTH_TIMEOUT, "no Auth in time")
        assert await mute.wait_closed() == (Code.AUTH_TIMEOUT, "no Auth in time")
        refusal = await peer.receive(AuthResponse)
        assert refusal.code == Code.AUTH_TIMEOUT


async def test_t09_a_foreign_origin_never_becomes_a_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "REFUSING", 0.2)
    settings = WebTransportSettings(origins=("https://ok.example",))
    async with open_running(tmp_path, "https", webtransport=settings) as running, neighbour(running):
        for origin in ("https://ok.example.evil", "null", "http://ok.example", "https://ok.example:8443"):
            client = await h3(running)
            say_settings(client)
            assert (await answered(ask(client, origin=origin)))[0] == 403
            assert (await client.wait_closed())[0] == H3Code.NO_ERROR
        await start_session(await h3(running), origin="https://ok.example")
        assert running.hub.metrics.sessions == 1, "the neighbour's"


async def test_t20_what_breaks_http3_ends_its_connection_alone(tmp_path: Path) -> None:
    async with open_running(tmp_path, "https") as running, neighbour(running):
        for data, unidirectional, code in (
            (b"\x00\x04\x02\x02\x00", True, H3Code.SETTINGS_ERROR),
            (b"\x00\x04" + varint(1 << 40), True, H3Code.EXCESSIVE_LOAD),
            (b"\x00" + frame(0x21, b""), True, H3Code.MISSING_SETTINGS),
            (b"\x02\x3f\xe1\x1f", True, H3Code.QPACK_ENCODER_STREAM_ERROR),
            (b"\x03\xff", True, H3Code.QPACK_DECODER_STREAM_ERROR),
            (b"\x01" + varint(16_385), False, H3Code.EXCESSIVE_LOAD),
            (frame(1, b"\0\0" + b"\xd1" * 16_000), False, H3Code.EXCESSIVE_LOAD),
            (frame(1, b"\xff" * 16_000), False, H3Code.QPACK_DECOMPRESSION_FAILED),
            (b"\x40\x41\x01", False, H3Code.ID_ERROR),
        ):
            client = await h3(running)
            open_pipe(client, data, unidirectional)
            assert (await client.wait_closed())[0] == code
        await running.empty(but=1)
        assert running.hub.metrics.faults == 0


async def test_t20_a_second_session_and_one_before_settings(tmp_path: Path) -> None:
    async with open_running(tmp_path, "https") as running, neighbour(running):
        client = await h3(running)
        first, second = ask(client), ask(client)
        assert (await answered(second))[0] == 429
        assert not first.received
        say_settings(client)
        assert (await answered(first))[0] == 200
        peer = Peer(open_pipe(client, b"\x40\x41" + varint(first.stream_id) + bytes((Lane.CONTROL,)), False))
        await peer.log_in(running.token(1001))
        assert (await answered(ask(client)))[0] == 429
        await peer.send_bytes(build_heartbeat(9, 1))
        frame_ = await peer.frame()
        assert frame_ is not None
        assert frame_.seq == 9


@pytest.mark.parametrize("place", ["established", "requested", "datagram", "pumped"])
async def test_t44_a_bug_of_this_layer_ends_that_connection_only(
    tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_running(tmp_path, "https") as running, neighbour(running):
        client = await h3(running)
        owner = WebTransportLink if place in ("established", "datagram", "pumped") else Http3
        original = getattr(owner, place)
        known = {id(each.link) for each in running.hub.registry}

        def bug(self: Any, *rest: Any) -> Any:
            host = self if isinstance(self, WebTransportLink) else self._host
            if id(host) in known:
                return original(self, *rest)
            raise RuntimeError("a planted bug")

        with monkeypatch.context() as planted:
            planted.setattr(owner, place, bug)
            say_settings(client)
            request = ask(client)
            client.send_datagram(varint(request.stream_id // 4) + b"x")
            await client.wait_closed()
            await running.empty(but=1)
        peer = await running.seated(1001)
        await peer.hang_up()


async def test_t46_coming_and_going_leaves_nothing(tmp_path: Path) -> None:
    async with open_running(tmp_path, "https") as running, neighbour(running):
        gc.collect()
        before = descriptors()
        for number in range(24):
            client = await h3(running)
            if number % 3:
                session = await start_session(client)
                if number % 3 == 2:
                    session.open(Lane.CONTROL)
                    session.close(0)
            client.close(0)
        await running.empty(but=1)
        with trio.fail_after(PATIENCE):
            while descriptors() > before:
                await trio.sleep(0.01)
