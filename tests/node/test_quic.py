"""The UDP port as part of a node: listens by default, tells where, with which certificate, and what it cannot do."""

from __future__ import annotations

import signal
import socket
from pathlib import Path

import pytest
import trio
import trustme
from cryptography import x509

import gateway
from gateway.backends.dev_keys import development_key, issue_token
from gateway.config import Config
from gateway.console.settings import ConsoleSettings
from gateway.core.link import Lane
from gateway.protocol.messages import GoAway
from gateway.transports.quic.certificates import FILE_NAME
from gateway.transports.quic.keeping import SECRET_FILE
from gateway.transports.settings import TcpSettings
from gateway.transports.settings_quic import QuicSettings
from gateway.transports.settings_websocket import WebSocketSettings
from tests.cli.running import node
from tests.support.node import PATIENCE, open_running
from tests.support.peer import Peer
from tests.support.quic_peer import QuicClient, open_quic


def config(directory: Path, **quic: object) -> Config:
    return Config(
        data_dir=str(directory),
        tcp=TcpSettings(enabled=False),
        websocket=WebSocketSettings(enabled=False),
        quic=QuicSettings(port=0, **quic),  # type: ignore[arg-type]
        console=ConsoleSettings(enabled=False),
    )


def shown(client: QuicClient) -> x509.Certificate:
    """The certificate that the node showed."""
    certificate = client.quic.tls._peer_certificate
    assert certificate is not None
    return certificate


def fingerprint(client: QuicClient) -> str:
    from cryptography.hazmat.primitives.hashes import SHA256

    return shown(client).fingerprint(SHA256()).hex()


async def test_what_is_configured_by_default_listens_on_loopback() -> None:
    quic = Config().quic
    assert (quic.enabled, quic.host, quic.port) == (True, "127.0.0.1", 8443)


async def test_a_node_with_nothing_but_udp(tmp_path: Path) -> None:
    made = config(tmp_path)
    async with gateway.open_node(made) as running, trio.open_nursery() as nursery:
        await nursery.start(running.run)
        address = running.addresses["quic"]
        record = running._record()
        assert record.address == address
        assert record.endpoints == (f"quic://{address}", f"https://{address}/im")
        async with open_quic(address, authority=str(tmp_path / FILE_NAME)) as client:
            assert fingerprint(client) == running.certificate_sha256
            peer = Peer(client.open(Lane.CONTROL))
            with trio.fail_after(PATIENCE):
                await peer.log_in(issue_token(development_key(made.data_dir), 1001))
        statistics = running.quic_statistics()
        assert statistics is not None
        assert statistics.completed == 1
        nursery.cancel_scope.cancel()
    assert (tmp_path / SECRET_FILE).exists()


async def test_the_certificate_and_the_secret_outlive_a_restart(tmp_path: Path) -> None:
    found = []
    for _ in range(2):
        async with gateway.open_node(config(tmp_path)) as running:
            found.append((running.certificate_sha256, (tmp_path / SECRET_FILE).read_bytes()))
    assert found[0] == found[1]


async def test_with_a_certificate_of_ones_own_no_fingerprint_is_told_and_it_is_reloaded(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    pem = tmp_path / "server.pem"

    def issue(name: str) -> None:
        authority.issue_cert("localhost", common_name=name).private_key_and_cert_chain_pem.write_to_path(str(pem))

    issue("first")
    async with gateway.open_node(config(tmp_path, certificate=str(pem))) as running, trio.open_nursery() as nursery:
        await nursery.start(running.run)
        assert not running.certificate_sha256
        address, trust = running.addresses["quic"], str(tmp_path / "ca.pem")
        async with open_quic(address, authority=trust) as held:
            peer = Peer(held.open(Lane.CONTROL))
            assert "CN=first" in shown(held).subject.rfc4514_string()
            issue("second")
            running.reload()
            async with open_quic(address, authority=trust) as other:
                assert "CN=second" in shown(other).subject.rfc4514_string()
            pem.write_text("broken")
            running.reload()
            async with open_quic(address, authority=trust) as other:
                assert "CN=second" in shown(other).subject.rfc4514_string()
            with trio.fail_after(PATIENCE):
                await peer.log_in(issue_token(development_key(tmp_path), 1001))
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("quic", "part"),
    [
        ({"certificate": "none.pem"}, "quic.certificate: none.pem cannot be read"),
        ({"key": "none.key"}, "quic.certificate: must name the certificate that quic.key belongs to"),
        ({"host": "0.0.0.0"}, "quic.certificate: must be set"),
        ({"receive_window": 1_000_000}, "quic.stream_window: 262144 must be at most a sixth of quic.receive_window"),
        ({"datagrams": False}, "webtransport.enabled: must be false: WebTransport needs quic.datagrams"),
        ({"idle_timeout": 90.0}, "quic.idle_timeout: 90 must be more than heartbeat.timeout"),
        ({"secret": "short"}, "quic.secret: must have 32 characters"),
    ],
)
async def test_what_cannot_work_is_one_line(tmp_path: Path, quic: dict[str, object], part: str) -> None:
    with pytest.raises(gateway.ConfigError) as caught:
        async with gateway.open_node(config(tmp_path, **quic)):
            raise AssertionError("it opened")
    assert part in str(caught.value)


async def test_where_nothing_can_be_kept_it_does_not_start(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).mkdir()
    with pytest.raises(gateway.ConfigError, match=r"quic\.certificate: cannot keep one in"):
        async with gateway.open_node(config(tmp_path)):
            raise AssertionError("it opened")


async def test_a_taken_port_is_told(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        made = Config(
            data_dir=str(tmp_path),
            tcp=TcpSettings(enabled=False),
            websocket=WebSocketSettings(enabled=False),
            quic=QuicSettings(port=taken.getsockname()[1]),
            console=ConsoleSettings(enabled=False),
        )
        async with gateway.open_node(made) as running:
            with pytest.raises(ExceptionGroup) as caught:
                await running.run()
        assert caught.group_contains(OSError, match="quic: cannot listen on 127.0.0.1 UDP port")


async def test_sighup_and_sigterm_reach_the_udp_port(tmp_path: Path) -> None:
    """As a process: the certificate is replaced and the connection stays; then it is told to go elsewhere."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    pem = tmp_path / "server.pem"
    authority.issue_cert("localhost", common_name="first").private_key_and_cert_chain_pem.write_to_path(str(pem))
    quick = ("--set", "drain.reconnect_after=0", "--set", "drain.jitter=0", "--set", "drain.timeout=0.2")
    async with node("--set", f"quic.certificate={pem}", *quick, cwd=tmp_path) as running:
        address, trust = str((await running.event("serving"))["quic"]), str(tmp_path / "ca.pem")
        async with open_quic(address, authority=trust) as held:
            peer = Peer(held.open(Lane.CONTROL))
            await peer.log_in(issue_token(development_key(tmp_path / ".gateway"), 1001))
            authority.issue_cert("localhost", common_name="second").private_key_and_cert_chain_pem.write_to_path(
                str(pem)
            )
            running.signal(signal.SIGHUP)
            await running.event("certificate_reloaded")
            async with open_quic(address, authority=trust) as other:
                assert "CN=second" in shown(other).subject.rfc4514_string()
            running.signal(signal.SIGTERM)
            with trio.fail_after(PATIENCE):
                assert isinstance(await peer.receive(GoAway), GoAway)
                assert (await held.wait_closed())[0] == 4400
        assert await running.ended() == 0


async def test_a_ticket_that_is_forgotten_stands_for_no_session(tmp_path: Path) -> None:
    made = config(tmp_path, tickets=1)
    async with gateway.open_node(made) as running, trio.open_nursery() as nursery:
        await nursery.start(running.run)
        for user in (1001, 1002):
            async with open_quic(running.addresses["quic"], authority=str(tmp_path / FILE_NAME)) as client:
                with trio.fail_after(PATIENCE):
                    await Peer(client.open(Lane.CONTROL)).log_in(issue_token(development_key(made.data_dir), user))
        assert len(running.hub.bindings) <= 1
        nursery.cancel_scope.cancel()


async def test_without_udp_nothing_of_it_is_there(tmp_path: Path) -> None:
    async with open_running(tmp_path, "tcp") as running:
        assert "quic" not in running.node.addresses
        assert running.node.quic_statistics() is None
        assert not running.node.certificate_sha256
        assert not any("quic" in each for each in running.node._record().endpoints)
        assert not (tmp_path / FILE_NAME).exists()
