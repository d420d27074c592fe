"""What only links with lanes can do, client and real node together: `quic://` and WebTransport."""

from __future__ import annotations

import functools
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from gateway.client import Client, ClientSettings, Refused, Signal, State, StateChange, Trust, Unreachable, connect
from gateway.client.laned import LanedConnection
from gateway.client.quic import QuicTransport
from gateway.client.transport import TransportFailed
from gateway.core.settings import LimitSettings
from gateway.protocol.types import Lane
from tests.client.server import next_notice, take
from tests.support.node import LinkKind, RunningNode, client_tls, open_running, server_tls

ANNA, BO = 1001, 1002
QUICK = ClientSettings(backoff_base=0.02, backoff_cap=0.2)
FREELY = LimitSettings(message_rate=100_000, message_burst=100_000)

both = pytest.mark.parametrize("kind", ["quic", "https"])


@asynccontextmanager
async def user(node: RunningNode, user_id: int, **options: Any) -> AsyncIterator[Client]:
    defaults: dict[str, Any] = {
        "token": functools.partial(node.token, user_id),
        "device_id": "phone",
        "trust": Trust(context=client_tls()),
        "settings": QUICK,
    }
    with trio.fail_after(60):
        async with connect(options.pop("url", node.url), **(defaults | options)) as client:
            yield client


def transport_of(client: Client) -> QuicTransport:
    connection = client._upkeep.connection
    assert isinstance(connection, LanedConnection)
    assert isinstance(connection.lanes, QuicTransport)
    return connection.lanes


@both
async def test_a_signal_travels_by_datagram(kind: LinkKind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_running(tmp_path, kind) as node, user(node, ANNA) as anna, user(node, BO) as bo:
        assert transport_of(anna).max_datagram > 1000
        before = transport_of(anna).unacknowledged(Lane.CONTROL)
        heard: list[bytes] = []
        monkeypatch.setattr(transport_of(bo)._lanes, "datagram", heard.append)
        assert anna.signal(to_user=BO, kind="typing")
        while not heard:
            await trio.sleep(0.01)
        monkeypatch.undo()
        assert anna.signal(to_user=BO, kind="typing", data=b"x" * 900)
        assert transport_of(anna).unacknowledged(Lane.CONTROL) <= before  # not a byte on the stream
        assert (await next_notice(bo, Signal)).data == b"x" * 900
        assert node.hub.metrics.datagrams >= 1


@both
async def test_a_conversation_goes_on_while_both_move(kind: LinkKind, tmp_path: Path) -> None:
    async with (
        open_running(tmp_path, kind, limits=FREELY) as node,
        user(node, ANNA) as anna,
        user(node, BO) as bo,
        trio.open_nursery() as nursery,
    ):
        got: list[str] = []

        async def read() -> None:
            async for delivery in bo:
                got.append(delivery.content)

        nursery.start_soon(read)
        ports = {transport_of(anna).local, transport_of(bo).local}
        for number in range(100):
            await anna.send(f"{number}", to_user=BO, wait="accepted")
            if number % 30 == 10:
                await anna.migrate()
            if number % 30 == 20:
                await bo.migrate()
                ports |= {transport_of(anna).local, transport_of(bo).local}
        await anna.send("end", to_user=BO)
        while "end" not in got:
            await trio.sleep(0.01)
        assert got == [*map(str, range(100)), "end"]
        assert len(ports) == 8
        assert anna.statistics().logins == bo.statistics().logins == 1
        nursery.cancel_scope.cancel()


async def test_what_waits_is_sent_early_and_delivered_once(tmp_path: Path) -> None:
    async with open_running(tmp_path, "quic") as node, user(node, BO) as bo, user(node, ANNA) as anna:
        await anna.send("before", to_user=BO)
        await take(bo, 1)
        transport_of(anna)._pump.end(TransportFailed("pulled out"))  # without a word to the server
        await anna.send("held up", to_user=BO)
        assert [each.content for each in await take(bo, 1)] == ["held up"]
        statistics = anna.statistics()
        assert statistics.logins == 2
        assert node.hub.metrics.early_accepted >= 1
        await anna.send("after", to_user=BO)
        assert [each.content for each in await take(bo, 1)] == ["after"]  # and "held up" is not among them again


@both
async def test_close_codes_of_the_node(kind: LinkKind, tmp_path: Path) -> None:
    async with open_running(tmp_path, kind) as node, user(node, ANNA) as first, user(node, ANNA):
        with pytest.raises(Refused, match="4200 replaced_by_same_device"):
            await first.__anext__()


async def test_a_session_at_another_path_is_refused_with_the_hint_of_the_node(tmp_path: Path) -> None:
    async with open_running(tmp_path, "https") as node:
        with pytest.raises(Unreachable, match="HTTP 404 WebTransport sessions are opened at /im"):
            async with user(node, ANNA, url=node.url.replace("/im", "/elsewhere")):
                pass


@pytest.mark.parametrize("kind", ["tcps", "wss", "quic", "https"])
async def test_one_pin_for_every_transport(kind: LinkKind, tmp_path: Path) -> None:
    pem = await trio.Path(server_tls().certificate).read_bytes()
    pin = x509.load_pem_x509_certificate(pem[pem.index(b"-----BEGIN CERTIFICATE") :]).fingerprint(SHA256()).hex()
    async with open_running(tmp_path, kind) as node:
        async with user(node, ANNA, trust=Trust(certificate_sha256=(pin,))) as anna:
            await anna.send("to myself", to_user=ANNA)
        with pytest.raises(Unreachable, match="not trusted"):
            async with user(node, ANNA, trust=Trust(certificate_sha256=("ab" * 32,))):
                pass


# -- several ways to one server ----------------------------------------------------------------------------


def urls_of(node: RunningNode) -> list[str]:
    addresses = node.node.addresses
    return [f"quic://{addresses['quic']}", f"ws://{addresses['websocket']}/ws", f"tcp://{addresses['tcp']}"]


@asynccontextmanager
async def everywhere(tmp_path: Path, **sections: Any) -> AsyncIterator[RunningNode]:
    sections = {"tcp": {"enabled": True}, "websocket": {"enabled": True}} | sections
    async with open_running(tmp_path, "quic", **sections) as node:
        yield node


async def test_the_first_that_is_up_is_taken(tmp_path: Path) -> None:
    patient = ClientSettings(stagger=30, connect_timeout=60, start_timeout=60)
    async with everywhere(tmp_path) as node, user(node, ANNA, url=urls_of(node), settings=patient) as anna:
        assert anna.transport == "quic"
        await node.empty(but=1)  # nothing is left of others


async def test_without_udp_it_is_websocket_and_that_is_remembered(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as hole:
        hole.bind(("127.0.0.1", 0))  # takes everything and answers nothing, as a firewall does
        async with everywhere(tmp_path) as node:
            urls = [f"quic://127.0.0.1:{hole.getsockname()[1]}", *urls_of(node)[1:]]
            settings = ClientSettings(stagger=1, backoff_base=0.02)
            async with user(node, ANNA, url=urls, settings=settings) as anna:
                assert anna.transport == "websocket"
                assert anna._upkeep._policy.endpoints[0].scheme == "quic"
                anna._upkeep.connection.end(0, "cut")  # type: ignore[union-attr]
                while (await next_notice(anna, StateChange)).state is not State.WAITING:
                    pass
                assert anna._upkeep._policy.endpoints[0].scheme == "ws"
                while (change := await next_notice(anna, StateChange)).state is not State.ONLINE:
                    pass
                assert change.url == urls[1]


async def test_when_nothing_answers_every_reason_is_told(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    urls = [f"quic://127.0.0.1:{port}", f"tcp://127.0.0.1:{port}"]
    with trio.fail_after(20), pytest.raises(Unreachable, match=r"nobody answers at .* UDP port .*; cannot connect to"):
        async with connect(urls, token="t", device_id="d", settings=ClientSettings(start_timeout=0.5)):
            pass


# -- what people do wrong ----------------------------------------------------------------------------------


async def test_plain_text_to_a_port_with_tls_is_told_what_it_may_be(tmp_path: Path) -> None:
    async with open_running(tmp_path, "tcps") as node:
        url = node.url.replace("tcps://", "tcp://")
        with pytest.raises(Unreachable, match=r"does the server speak TLS\? then it is tcps://"):
            async with user(node, ANNA, url=url, settings=ClientSettings(start_timeout=1)):
                pass


def test_the_example_says_how_it_is_called() -> None:
    example = Path(__file__).parents[2] / "examples" / "chat_client.py"
    told = subprocess.run([sys.executable, str(example)], capture_output=True, text=True, timeout=60, check=False)
    assert told.returncode == 1
    assert "Give a URL" in told.stderr
    assert "Traceback" not in told.stderr
