"""How NatsBus proves who it is, whom it believes, and that secrets go nowhere else."""

from __future__ import annotations

import base64
import hashlib
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nkeys
import pytest
import trio
import trustme

from gateway.backends.nats_access import checked_server, read_credentials, read_nkey, tls_context
from gateway.backends.settings_nats import NatsSettings, NatsTlsSettings
from tests.backends.nats import running_bus, settings, until
from tests.contracts.bus import Inbox
from tests.support.nats_server import NatsServer, nats_server

SUBJECT = "im.logic.upstream"


def seed(prefix: int, number: int) -> bytes:
    """A seed for tests, always the same."""
    text: bytes = nkeys.encode_seed(hashlib.sha256(b"%d" % number).digest(), prefix)
    return text


def public(seed: bytes) -> str:
    key: bytes = nkeys.from_seed(bytearray(seed)).public_key
    return key.decode()


def jwt(signer: bytes, subject: str, nats: dict[str, Any]) -> str:
    """A NATS JWT, as its own tools would make it."""

    def encoded(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    claims = {"iat": 1_700_000_000, "iss": public(signer), "sub": subject, "name": "test", "nats": nats}
    claims["jti"] = base64.b32encode(hashlib.sha256(json.dumps(claims).encode()).digest()).rstrip(b"=").decode()
    header = {"typ": "JWT", "alg": "ed25519-nkey"}
    signed = f"{encoded(json.dumps(header).encode())}.{encoded(json.dumps(claims).encode())}"
    return f"{signed}.{encoded(nkeys.from_seed(bytearray(signer)).sign(signed.encode()))}"


USER = seed(nkeys.PREFIX_BYTE_USER, 1)
LIMITS = {"subs": -1, "data": -1, "payload": -1}


def operator_config() -> tuple[str, str]:
    """A server's configuration, and the .creds file of a user whom it knows by JWT only."""
    operator, account = seed(nkeys.PREFIX_BYTE_OPERATOR, 2), seed(nkeys.PREFIX_BYTE_ACCOUNT, 3)
    limits = {**LIMITS, "imports": -1, "exports": -1, "wildcards": True, "conn": -1, "leaf": -1}
    operator_jwt = jwt(operator, public(operator), {"type": "operator", "version": 2})
    account_jwt = jwt(operator, public(account), {"type": "account", "version": 2, "limits": limits})
    user_jwt = jwt(account, public(USER), {"type": "user", "version": 2, **LIMITS})
    config = f"operator: {operator_jwt}\nresolver: MEMORY\nresolver_preload: {{ {public(account)}: {account_jwt} }}\n"
    creds = (
        f"-----BEGIN NATS USER JWT-----\n{user_jwt}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{USER.decode()}\n------END USER NKEY SEED------\n"
    )
    return config, creds


async def carries(settings: NatsSettings) -> None:
    """A payload goes out and comes back."""
    inbox = Inbox()
    async with running_bus(settings) as bus:
        bus.subscribe(SUBJECT, inbox)
        assert bus.publish(SUBJECT, b"x")
        await inbox.wait(1)


async def refused(settings: NatsSettings, caplog: pytest.LogCaptureFixture) -> str:
    """It never connects; why, as the log says."""
    async with running_bus(settings, connected=False) as bus:
        await until(lambda: bool(reasons(caplog)))
        assert not bus.healthy
    return reasons(caplog)[0]


def reasons(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [str(record.__dict__["reason"]) for record in caplog.records if record.getMessage() == "bus_away"]


async def test_user_and_password(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with nats_server(tmp_path, 'authorization { user: gateway, password: "s3cret-of-ours" }') as server:
        await carries(settings(server.url, user="gateway", password="s3cret-of-ours"))
        why = await refused(settings(server.url, user="gateway", password="a-wrong-s3cret"), caplog)
        assert "authorization violation" in why.lower()
        assert "s3cret" not in caplog.text


async def test_token(tmp_path: Path) -> None:
    async with nats_server(tmp_path, 'authorization { token: "t0ken-of-ours" }') as server:
        await carries(settings(server.url, token="t0ken-of-ours"))


async def test_nkey(tmp_path: Path) -> None:
    file = tmp_path / "gateway.nk"
    file.write_bytes(USER + b"\n")
    async with nats_server(tmp_path, f"authorization {{ users: [ {{ nkey: {public(USER)} }} ] }}") as server:
        await carries(settings(server.url, nkey_file=str(file)))


async def test_credentials_file(tmp_path: Path) -> None:
    config, creds = operator_config()
    file = tmp_path / "gateway.creds"
    file.write_text(creds)
    async with nats_server(tmp_path, config) as server:
        await carries(settings(server.url, credentials_file=str(file)))


async def test_a_password_that_changes_ends_nothing_for_good(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with nats_server(tmp_path, "authorization { user: a, password: b }") as server:
        inbox = Inbox()
        async with running_bus(settings(server.url, user="a", password="c"), connected=False) as bus:
            bus.subscribe(SUBJECT, inbox)
            assert bus.publish(SUBJECT, b"patient")
            await until(lambda: bool(reasons(caplog)))
            await server.kill()
            (tmp_path / "nats.conf").write_text("authorization { user: a, password: c }")
            await server.start()
            await inbox.wait(1)


async def test_what_is_not_permitted_is_logged_and_the_rest_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rules = '{ publish: "im.>", subscribe: "im.>" }'
    config = f"authorization {{ users: [ {{ user: a, password: b, permissions: {rules} }} ] }}"
    inbox = Inbox()
    async with (
        nats_server(tmp_path, config) as server,
        running_bus(settings(server.url, user="a", password="b")) as bus,
    ):
        bus.subscribe(SUBJECT, inbox)
        bus.subscribe("other.subject", inbox)
        assert bus.publish("other.subject", b"x")
        assert bus.publish(SUBJECT, b"y")
        assert await inbox.wait(1) == [b"y"]
        await until(lambda: "bus_not_permitted" in [record.getMessage() for record in caplog.records])
        assert bus.healthy
        assert bus.statistics().connections == 1


# -- TLS ---------------------------------------------------------------------------------------------------


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    certificate.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "server.pem"))
    authority.issue_cert("gateway").private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "client.pem"))
    return authority


@asynccontextmanager
async def tls_server(folder: Path, *options: str) -> AsyncIterator[NatsServer]:
    files = [f'cert_file: "{folder}/server.pem"', f'key_file: "{folder}/server.pem"', *options]
    async with nats_server(folder, f"tls {{ {', '.join(files)} }}") as server:
        yield server


@pytest.mark.usefixtures("authority")
async def test_tls(tmp_path: Path) -> None:
    trusting = NatsTlsSettings(ca=str(tmp_path / "ca.pem"))
    async with tls_server(tmp_path) as server:
        await carries(settings(server.url, tls=trusting))
        await carries(settings(server.url.replace("nats:", "tls:"), tls=trusting))


@pytest.mark.usefixtures("authority")
async def test_a_server_may_ask_for_our_certificate(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ca, ours = str(tmp_path / "ca.pem"), str(tmp_path / "client.pem")
    async with tls_server(tmp_path, f'ca_file: "{ca}"', "verify: true") as server:
        await carries(settings(server.url, tls=NatsTlsSettings(ca=ca, certificate=ours)))
        await refused(settings(server.url, tls=NatsTlsSettings(ca=ca)), caplog)


@pytest.mark.usefixtures("authority")
async def test_strangers_are_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    stranger = tmp_path / "stranger.pem"
    trustme.CA().cert_pem.write_to_path(str(stranger))
    async with tls_server(tmp_path) as server:
        assert "CERTIFICATE" in await refused(settings(server.url, tls=NatsTlsSettings(ca=str(stranger))), caplog)
        caplog.clear()
        assert "CERTIFICATE" in await refused(settings(server.url), caplog)
        caplog.clear()
        wrong_name = NatsTlsSettings(ca=str(tmp_path / "ca.pem"), server_name="other.example")
        assert "CERTIFICATE" in await refused(settings(server.url, tls=wrong_name), caplog)


@pytest.mark.parametrize("how", ["section", "scheme"])
@pytest.mark.parametrize("secret", [{"user": "u", "password": "s3cret"}, {"token": "s3cret"}])
async def test_no_secret_goes_to_a_server_without_tls(
    how: str, secret: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody in the middle says that TLS is not needed."""
    heard = bytearray()

    async def middle(stream: trio.SocketStream) -> None:
        await stream.send_all(b'INFO {"server_id":"X","version":"2.10.0","max_payload":1048576}\r\n')
        async with stream:
            async for data in stream:
                heard.extend(data)

    async with trio.open_nursery() as nursery:
        listeners: list[trio.SocketListener] = await nursery.start(trio.serve_tcp, middle, 0)
        port = listeners[0].socket.getsockname()[1]
        url, tls = (
            (f"nats://localhost:{port}", NatsTlsSettings()) if how == "section" else (f"tls://localhost:{port}", None)
        )
        assert "TLS" in await refused(settings(url, tls=tls, **secret), caplog)
        assert b"s3cret" not in heard
        nursery.cancel_scope.cancel()


async def test_without_secrets_too_a_server_without_tls_is_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with nats_server(tmp_path) as server:
        assert "TLS" in await refused(settings(server.url, tls=NatsTlsSettings()), caplog)


# -- files -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read"),
        (b"\xff\xfe", "no text file"),
        (b"", "NATS USER JWT"),
        (b"-----BEGIN NATS USER JWT-----\nabc\n", "USER NKEY SEED"),
    ],
)
async def test_a_file_that_is_no_creds_file(
    tmp_path: Path, content: bytes | None, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "broken.creds"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ValueError, match=f"credentials_file: .*{words}"):
        read_credentials(str(file))
    async with nats_server(tmp_path) as server:  # nats-py itself would hang on some of them
        assert words in await refused(settings(server.url, credentials_file=str(file)), caplog)


@pytest.mark.parametrize("content", [b"", b"SAAAAA", b"SU A", b"secret stuff"])
def test_a_file_that_is_no_seed(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "broken.nk"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"nkey_file: .* no user seed") as refusal:
        read_nkey(str(file))
    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize("server", ["nats://127.0.0.1:4222", "tls://nats.example.org", "nats://[::1]:4222"])
def test_addresses(server: str) -> None:
    assert checked_server(server) == server


@pytest.mark.parametrize(
    "server",
    ["", "127.0.0.1:4222", "http://h:1", "ws://h:1", "nats://", "nats://h:0", "nats://h:99999", "nats://h:1/x", "nats://[",
     "nats://h:1\r\nPUB", "nats://user:s3cret@h:1"],
)  # fmt: skip
def test_what_is_no_address(server: str) -> None:
    with pytest.raises(ValueError, match="must be like nats://host:4222") as refusal:
        checked_server(server)
    assert "s3cret" not in str(refusal.value)


def test_files_of_tls_that_are_none(tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("")
    with pytest.raises(ValueError, match=r"tls.ca: .* cannot be used"):
        tls_context(NatsTlsSettings(ca=str(empty)))
    with pytest.raises(ValueError, match=r"tls.ca: .* cannot be used"):
        tls_context(NatsTlsSettings(ca=str(tmp_path / "missing")))
    with pytest.raises(ValueError, match=r"tls.certificate: .* cannot be used"):
        tls_context(NatsTlsSettings(certificate=str(empty)))
    assert tls_context(NatsTlsSettings()).verify_mode is ssl.CERT_REQUIRED


def test_secrets_are_not_shown() -> None:
    shown = repr(settings("nats://127.0.0.1:4222", user="u", password="s3cret-1", token="s3cret-2"))
    assert "s3cret" not in shown
