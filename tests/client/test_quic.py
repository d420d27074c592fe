"""The client on `quic://`, against a scripted aioquic server."""

from __future__ import annotations

import errno
import os
import socket
import ssl
from pathlib import Path

import pytest
import trio
from cryptography.hazmat.primitives.serialization import Encoding

from gateway.client import (
    ClientSettings,
    MemoryTickets,
    Refused,
    RequestFailed,
    Signal,
    State,
    StateChange,
    Trust,
    Unreachable,
    connect,
)
from gateway.protocol import messages
from gateway.protocol.messages import (
    ChatMessage,
    Event,
    MessageAck,
    decode,
)
from gateway.protocol.types import AckStatus, Lane, MsgType
from tests.client.quic_world import SETTINGS, USER, log_in, online, store, transport_of, welcome
from tests.client.server import chat, next_notice, take
from tests.support.node import client_tls
from tests.support.quic_server import serving


async def test_each_kind_of_frame_has_its_lane() -> None:
    async with serving() as server, online(server) as (client, peer):
        assert client.transport == "quic"
        async with trio.open_nursery() as nursery:

            async def stored() -> None:
                message, seq = await peer.expect(ChatMessage, Lane.MESSAGE)
                assert message.content == "hello"
                store(peer, message, seq)

            nursery.start_soon(stored)
            await client.send("hello", to_user=1002)
        assert client.signal(to_user=1002, kind="typing")
        signal, _ = await peer.expect(messages.Signal, Lane.EPHEMERAL)
        assert signal.kind == "typing"
        assert client.signal(to_user=1002, kind="picture", data=bytes(2000))  # too long for a datagram
        signal, _ = await peer.expect(messages.Signal, Lane.CONTROL)
        assert signal.kind == "picture"
        peer.send_datagram(messages.Signal(from_user=1002, kind="seen"))
        assert (await next_notice(client, Signal)).kind == "seen"
        peer.send(chat(2), lane=Lane.MESSAGE)
        assert [each.content for each in await take(client, 1)] == ["text 2"]
        ack, _ = await peer.expect(MessageAck, Lane.MESSAGE)
        assert ack.status == AckStatus.DELIVERED


async def test_what_is_queued_at_the_end_arrives_and_the_server_hears_goodbye() -> None:
    async with serving() as server:
        async with online(server) as (client, peer):
            for number in range(50):
                await client.send(f"{number} " + "x" * 5000, to_user=1002, wait=None)
        await peer.until(lambda: peer.closed)
        assert peer.closed == (0, "")
        texts = [decode(frame) for frame in peer.frames[Lane.MESSAGE]]
        assert [each.content.split()[0] for each in texts if isinstance(each, ChatMessage)] == [*map(str, range(50))]


@pytest.mark.parametrize("data", [b"", b"\0\0\0\1\0\0", b"\0\0\0\4\0\x0cabcd", bytes(40)])
async def test_a_datagram_that_is_no_frame_ends_nothing(data: bytes) -> None:
    async with serving() as server, online(server) as (client, peer):
        peer.quic.send_datagram_frame(data)
        peer.send_datagram(messages.Signal(from_user=1002, kind="fine"))
        assert (await next_notice(client, Signal)).kind == "fine"


# -- trust -------------------------------------------------------------------------------------------------


async def test_a_pinned_certificate_is_believed() -> None:
    async with serving() as server:
        colons = ":".join(server.sha256[at : at + 2] for at in range(0, 64, 2)).upper()
        async with online(server, trust=Trust(certificate_sha256=("0" * 64, colons))):
            pass


@pytest.mark.parametrize("trust", [Trust(), Trust(certificate_sha256=("0" * 64,)), Trust(context=client_tls())])
async def test_another_certificate_is_refused_before_the_token_is_told(
    trust: Trust, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving() as server:
        with trio.fail_after(10), pytest.raises(Unreachable, match="not trusted") as caught:
            async with connect(server.url, token="secret", device_id="d", trust=trust, settings=SETTINGS):
                pass
        assert caught.value.code == 0
        peer = await server.accept()
        assert not peer.frames[Lane.CONTROL]
    assert not caplog.records, "the library's own log would appear in the middle of a program's output"


async def test_authorities_of_a_file_and_the_name(tmp_path: Path) -> None:
    async with serving() as server:
        path = tmp_path / "ca.pem"
        path.write_bytes(server.certificate.public_bytes(Encoding.PEM))
        url = server.url.replace("127.0.0.1", "localhost")
        async with online(server, url=url, trust=Trust(ca_file=str(path))):
            pass
        with trio.fail_after(10), pytest.raises(Unreachable, match="not trusted"):  # 127.0.0.1 is not its name
            async with connect(server.url, token="t", device_id="d", trust=Trust(ca_file=str(path)), settings=SETTINGS):
                pass


async def test_who_does_not_speak_our_protocol_is_told_so_once() -> None:
    async with serving(alpn="other") as server:
        with trio.fail_after(10), pytest.raises(Unreachable, match="does not speak this protocol"):
            async with connect(server.url, token="t", device_id="d", trust=Trust(insecure=True), settings=SETTINGS):
                pass


async def test_a_context_that_verifies_nothing_does_so_on_quic_too() -> None:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    async with serving() as server, online(server, trust=Trust(context=context)):
        pass


def test_what_an_ssl_context_becomes() -> None:
    context = ssl.create_default_context()
    assert Trust(context=context).ssl_context() is context
    assert Trust(context=context).verified
    for trust in (Trust(context=context, insecure=True), Trust(context=context, certificate_sha256=("0" * 64,))):
        assert trust.ssl_context().verify_mode is ssl.CERT_NONE
        assert not trust.verified
    assert Trust(context=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)).authorities() == Trust().authorities()
    assert len({Trust().key, Trust(insecure=True).key, Trust(ca_file="a").key, Trust(context=context).key}) == 4


def test_a_pin_that_is_none() -> None:
    with pytest.raises(ValueError, match="64 hexadecimal digits"):
        Trust(certificate_sha256=("abc",))


# -- ends --------------------------------------------------------------------------------------------------


async def test_a_closed_port_is_noticed_at_once() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    settings = ClientSettings(start_timeout=1, connect_timeout=600)
    with trio.fail_after(10), pytest.raises(Unreachable, match=r"nobody answers at 127\.0\.0\.1 UDP port"):
        async with connect(f"quic://127.0.0.1:{port}", token="t", device_id="d", settings=settings):
            pass


async def test_nothing_is_left_of_a_dial_that_was_given_up() -> None:
    before = len(os.listdir("/proc/self/fd"))
    async with serving() as server:
        server.deaf = True
        settings = ClientSettings(start_timeout=0.3)
        with trio.fail_after(10), pytest.raises(Unreachable, match="no answer from quic://"):
            async with connect(server.url, token="t", device_id="d", trust=Trust(insecure=True), settings=settings):
                pass
    assert len(os.listdir("/proc/self/fd")) == before


async def test_a_close_code_decides() -> None:
    async with serving() as server, online(server) as (client, peer):
        peer.close(4302, "slow down")
        change = await next_notice(client, StateChange)
        while change.state is not State.WAITING:
            change = await next_notice(client, StateChange)
        assert (change.code, change.reason) == (4302, "slow down")
        (await welcome(server)).close(4202, "out")
        with pytest.raises(Refused, match="4202 kicked_by_admin: out"):
            await client.__anext__()


@pytest.mark.parametrize("lane", [Lane.CONTROL, Lane.MESSAGE])
async def test_a_lane_that_ends_ends_the_link(lane: Lane) -> None:
    async with serving() as server, online(server) as (client, peer):
        peer.quic.send_stream_data(peer._ids[lane], b"", True)
        server.transmit(peer)
        await welcome(server)
        assert client.statistics().logins == 2


async def test_a_server_that_restarted_says_so_and_what_was_under_way_is_sent_again() -> None:
    async with serving() as server, online(server) as (client, _):
        server.forget()
        server.tickets.clear()
        before = trio.current_time()
        await client.send("are you there", to_user=1002, wait=None)
        peer = await welcome(server)
        assert trio.current_time() - before < 5
        message, seq = await peer.expect(ChatMessage, Lane.MESSAGE)
        assert message.content == "are you there"
        store(peer, message, seq)
        await client.wait_acknowledged()


async def test_a_stranger_cannot_reset_us() -> None:
    async with serving() as server, online(server) as (client, peer):
        server.socket.sendto(b"\x5f" + bytes(40), peer.address)
        server.socket.sendto(b"\x5f" + bytes(3), peer.address)
        peer.send(chat(1), lane=Lane.MESSAGE)
        await take(client, 1)
        assert client.statistics().logins == 1


async def test_what_comes_is_acknowledged_though_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as server, online(server) as (_, peer):
        loss = peer.quic._loss
        await peer.until(lambda: not loss.bytes_in_flight)
        probed = 0
        probe = loss.on_loss_detection_timeout

        def count(*, now: float) -> None:
            nonlocal probed
            probed += 1
            probe(now=now)

        monkeypatch.setattr(loss, "on_loss_detection_timeout", count)
        for _ in range(20):
            peer.send(Event(kind="alone"), lane=Lane.MESSAGE)
            await peer.until(lambda: not loss.bytes_in_flight)
        assert probed < 15  # 20 and more when only a probe brings an acknowledgement


async def test_a_client_that_is_cancelled_says_goodbye() -> None:
    async with serving() as server:
        with trio.CancelScope() as scope:
            async with online(server) as (_, peer):
                scope.cancel()
                await trio.sleep_forever()
        await peer.until(lambda: peer.closed)


# -- migration ---------------------------------------------------------------------------------------------


async def test_a_client_that_moves_keeps_its_connection() -> None:
    async with serving() as server, online(server) as (client, peer):
        for number in range(1, 4):
            before = transport_of(client).local
            await client.migrate()
            assert transport_of(client).local != before
            await client.send(f"from port {number}", to_user=1002, wait=None)
            message, seq = await peer.expect(ChatMessage, Lane.MESSAGE)
            assert message.content == f"from port {number}"
            store(peer, message, seq, number * 2)
            peer.send(chat(number * 2 - 1), lane=Lane.MESSAGE)
            await take(client, 1)
        assert client.statistics().logins == 1
        assert len(set(peer.addresses)) == 4


async def test_an_address_that_cannot_be_had_changes_nothing() -> None:
    async with serving() as server, online(server) as (client, peer):
        with pytest.raises(RequestFailed, match="not migrated"):
            await client.migrate(("192.0.2.1", 0))
        await client.send("still here", to_user=1002, wait=None)
        await peer.expect(ChatMessage, Lane.MESSAGE)


async def test_a_socket_that_fails_is_replaced() -> None:
    async with serving() as server, online(server) as (client, peer):
        pump = transport_of(client)._pump
        assert pump._socket is not None
        before = pump.local
        pump._trouble(OSError(errno.ENETUNREACH, "no network"), pump._socket, trio.current_time())
        assert pump.local != before
        await client.send("from elsewhere", to_user=1002, wait=None)
        await peer.expect(ChatMessage, Lane.MESSAGE)
        assert client.statistics().logins == 1
        assert len(peer.addresses) == 2


async def test_a_silent_server_is_asked_from_another_address() -> None:
    async with serving() as server, online(server) as (client, peer):
        pump = transport_of(client)._pump
        before = pump.local
        server.deaf = True
        await client.send("hello", to_user=1002, wait=None)
        while pump.engine.probes < 3:
            await trio.sleep(0.01)
        assert pump.local == before
        pump._heard_at -= 10  # a long silence
        pump._watch(trio.current_time())
        assert pump.local != before
        moved = pump.local
        pump._watch(trio.current_time())
        assert pump.local == moved  # not again at once
        server.deaf = False
        await peer.expect(ChatMessage, Lane.MESSAGE)
        assert client.statistics().logins == 1


async def test_a_port_that_was_closed_for_a_second_ends_the_link(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as server, online(server) as (client, _):
        pump = transport_of(client)._pump
        refused = OSError(errno.ECONNREFUSED, "refused")
        assert pump._socket is not None
        now = trio.current_time()
        for passed in (0.0, 0.5, 0.9):
            pump._trouble(refused, pump._socket, now + passed)
            assert pump.failure is None
        pump._trouble(OSError(errno.EMSGSIZE, "too long"), pump._socket, now + 5)
        assert pump.failure is None
        pump._trouble(refused, pump._socket, now + 1.1)
        assert "nobody answers" in str(pump.failure)
        await welcome(server)
        assert client.statistics().logins == 2


async def test_a_link_of_one_lane_cannot_move() -> None:
    async with serving() as server, online(server) as (client, _):
        client._upkeep.connection = None
        with pytest.raises(RequestFailed, match="cannot change its address"):
            await client.migrate()


# -- early data --------------------------------------------------------------------------------------------


async def test_what_waits_goes_out_before_the_handshake_is_complete() -> None:
    async with serving() as server, online(server) as (client, first):
        await first.until(lambda: server.tickets)
        await client.send("held up", to_user=1002, wait=None)
        await first.expect(ChatMessage, Lane.MESSAGE)
        first.close(4400)
        peer = await server.accept()
        await peer.until(lambda: peer.complete)
        assert peer.early == [MsgType.HEARTBEAT, MsgType.MESSAGE]
        assert peer.resumed
        message, seq = await peer.expect(ChatMessage, Lane.MESSAGE)
        peer.send(MessageAck(msg_id=message.msg_id, status=AckStatus.ACCEPTED), lane=Lane.MESSAGE, seq=seq)
        request = await log_in(peer)
        assert request.resume_ticket == "again"
        peer.send(MessageAck(msg_id=message.msg_id, status=AckStatus.STORED, server_seq=1), lane=Lane.MESSAGE)
        await client.wait_acknowledged()
        assert not peer.frames[Lane.MESSAGE]  # accepted early: not written a second time
        assert not server.tickets or len(server.tickets) == 1  # the one it came by was used up


async def test_early_data_that_is_refused_arrives_all_the_same() -> None:
    async with serving() as server, online(server) as (client, first):
        await first.until(lambda: server.tickets)
        server.tickets.clear()
        await client.send("held up", to_user=1002, wait=None)
        first.close(4400)
        peer = await server.accept()
        await peer.until(lambda: peer.complete)
        assert not peer.early
        assert not peer.resumed
        await log_in(peer)
        message, seq = await peer.expect(ChatMessage, Lane.MESSAGE)
        assert message.content == "held up"
        store(peer, message, seq)
        await client.wait_acknowledged()


async def test_a_ticket_outlives_attempts_that_nobody_heard() -> None:
    tickets, trust = MemoryTickets(), Trust(insecure=True)
    settings = ClientSettings(start_timeout=0.5, connect_timeout=0.1, backoff_base=0.01)
    async with serving() as server:
        async with online(server, tickets=tickets) as (_, peer):
            await peer.until(lambda: server.tickets)
        server.deaf = True
        with trio.fail_after(10), pytest.raises(Unreachable):
            async with connect(server.url, token="t", device_id="d", trust=trust, tickets=tickets, settings=settings):
                pass
        assert tickets.take(f"{server.url} {trust.key}") is not None


async def test_another_users_ticket_sends_nobodys_messages() -> None:
    tickets = MemoryTickets()
    async with serving() as server:
        async with online(server, tickets=tickets) as (_, peer):
            await peer.until(lambda: server.tickets)
        kept = tickets.take(f"{server.url} {Trust(insecure=True).key}")
        assert kept is not None
        assert kept.user_id == USER
        tickets.put(f"{server.url} {Trust(insecure=True).key}", kept)
        async with online(server, tickets=tickets) as (_, peer):
            assert peer.resumed
            assert peer.early == [MsgType.HEARTBEAT]
        assert tickets.take("quic://elsewhere:1 |") is None


# -- heartbeats --------------------------------------------------------------------------------------------


async def test_a_heartbeat_goes_by_datagram_and_by_control_when_that_is_lost() -> None:
    settings = ClientSettings(heartbeat_interval=0.1, reply_timeout=0.6)
    async with serving() as server, online(server, settings=settings) as (client, peer):
        await peer.until(lambda: peer.beats[Lane.EPHEMERAL] >= 2)
        assert peer.beats[Lane.CONTROL] == 0
        peer.mute_datagrams = True
        await peer.until(lambda: peer.beats[Lane.CONTROL] >= 2)
        assert client.statistics().logins == 1
        assert client.statistics().round_trip > 0
