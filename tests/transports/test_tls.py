"""TLS: who is refused, what is allocated when, how it ends, and what is said about files that are wrong."""

from __future__ import annotations

import os
import ssl
from contextlib import suppress
from pathlib import Path

import pytest
import trio
import trio.testing
import trustme

from gateway.core.link import LinkClosed
from gateway.transports.settings import TlsSettings
from gateway.transports.tcp import TcpLink
from gateway.transports.tls import HANDSHAKE, TlsLink, load_tls
from tests.transports.harness import (
    PATIENCE,
    Certificates,
    Ear,
    Pair,
    connected,
    descriptors,
    link_around,
    running_reactor,
)


class Client:
    """A TLS client by hand, so that what it sends can be held back, cut or repeated."""

    def __init__(self, peer: trio.SocketStream, context: ssl.SSLContext) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")
        self.peer = peer

    def step(self) -> bytes:
        """What the handshake wants to send now."""
        with suppress(ssl.SSLWantReadError):
            self.tls.do_handshake()
        return self.outgoing.read()

    async def hear(self) -> None:
        with trio.fail_after(PATIENCE):
            self.incoming.write(await self.peer.receive_some(65_536))

    async def finish(self) -> bytes:
        """Up to the client's Finished, which is not sent yet."""
        await self.peer.send_all(self.step())
        while self.tls.version() is None or not self.outgoing.pending:
            await self.hear()
            if data := self.step():
                return data
        raise AssertionError

    def wrap(self, data: bytes) -> bytes:
        self.tls.write(data)
        return self.outgoing.read()


async def shaken(pair: Pair) -> Client:
    """Both ends up, the client's by hand."""
    assert pair.tls is not None
    client = Client(pair.peer, pair.tls.client)
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pair.link.open)
            await pair.peer.send_all(await client.finish())
    return client


async def refused(pair: Pair) -> str:
    with trio.fail_after(PATIENCE), pytest.raises(LinkClosed) as info:
        await pair.link.open()
    assert not pair.ear.told
    pair.link.abort()
    return str(info.value)


async def test_is_tls_1_3(tls_pair: Pair) -> None:
    stream = await tls_pair.up()
    assert isinstance(stream, trio.SSLStream)
    assert stream.version() == "TLSv1.3"


async def test_01_a_silent_peer_costs_nothing_and_is_freed_by_abort(tls_pair: Pair) -> None:
    link = tls_pair.link
    assert isinstance(link, TlsLink)
    with trio.move_on_after(0.05) as scope:
        await link.open()
    assert scope.cancelled_caught
    assert link._tls is None, "nothing is allocated for a peer that has said nothing"
    before = descriptors()
    link.abort()
    assert descriptors() == before - 1


async def test_01_a_handshake_that_stalls_half_way(tls_pair: Pair) -> None:
    link = tls_pair.link
    assert isinstance(link, TlsLink)
    assert tls_pair.tls is not None
    client = Client(tls_pair.peer, tls_pair.tls.client)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_closed, link)
        await client.finish()
        await trio.testing.wait_all_tasks_blocked()
        used = link._tls
        link.abort()
        assert used is not None
        assert link._tls is None
    assert not tls_pair.ear.told


async def test_01_an_eof_in_the_handshake_ends_it_at_once(tls_pair: Pair) -> None:
    assert tls_pair.tls is not None
    client = Client(tls_pair.peer, tls_pair.tls.client)
    hello = client.step()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_closed, tls_pair.link)
        await tls_pair.peer.send_all(hello[:100])
        await trio.testing.wait_all_tasks_blocked()
        await tls_pair.peer.aclose()


async def _closed(link: TcpLink) -> None:
    with trio.fail_after(PATIENCE), pytest.raises(LinkClosed):
        await link.open()


async def test_a_handshake_byte_by_byte(tls_pair: Pair) -> None:
    assert tls_pair.tls is not None
    client = Client(tls_pair.peer, tls_pair.tls.client)
    hello = client.step()
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tls_pair.link.open)
            for byte in hello:
                await tls_pair.peer.send_all(bytes([byte]))
                await trio.lowlevel.checkpoint()
            await client.hear()
            while not (finished := client.step()):
                await client.hear()
            await tls_pair.peer.send_all(finished)
    await tls_pair.peer.send_all(client.wrap(b"up"))
    await tls_pair.ear.until_heard(b"up")


async def test_data_right_behind_the_handshake(tls_pair: Pair) -> None:
    """It is fed once `open` has all it needs, never before."""
    assert tls_pair.tls is not None
    client = Client(tls_pair.peer, tls_pair.tls.client)
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tls_pair.link.open)
            finished = await client.finish()
            await tls_pair.peer.send_all(finished + client.wrap(b"early") + client.wrap(b"bird"))
    assert tls_pair.ear.heard == b"earlybird"


@pytest.mark.parametrize(
    "garbage", [b"GET / HTTP/1.1\r\n\r\n", bytes(100), os.urandom(2_000), b"\x16\x03\x01\x02\x00" + bytes(512)]
)
async def test_garbage_is_refused(tls_pair: Pair, garbage: bytes) -> None:
    await tls_pair.peer.send_all(garbage)
    assert "TLS" in await refused(tls_pair)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_2])
async def test_47_old_versions_are_refused_with_an_alert(tls_pair: Pair, version: ssl.TLSVersion) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = version
    client = Client(tls_pair.peer, context)
    await tls_pair.peer.send_all(client.step())
    assert "UNSUPPORTED_PROTOCOL" in await refused(tls_pair)
    await client.hear()
    with pytest.raises(ssl.SSLError, match=r"(?i)alert"):
        client.tls.do_handshake()


async def test_47_a_huge_hello_is_refused(tls_pair: Pair) -> None:
    """Records of a handshake message that declares 16 MB, and of one that declares what OpenSSL would take."""
    record = b"\x16\x03\x01\x40\x00"
    hello = record + b"\x01\x01\xf0\x00" + bytes(16_380) + (record + bytes(16_384)) * 3
    assert len(hello) > HANDSHAKE
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_send_if_read, tls_pair.peer, hello)
        assert "TLS" in await refused(tls_pair)
        nursery.cancel_scope.cancel()


async def _send_if_read(peer: trio.SocketStream, data: bytes) -> None:
    with suppress(trio.BrokenResourceError):
        await peer.send_all(data)


async def test_1_2_when_configured(tls: Certificates) -> None:
    server = load_tls(TlsSettings(certificate=tls.settings.certificate, minimum_version="1.2"))
    assert server.context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert server.context.options & ssl.OP_NO_RENEGOTIATION


async def test_many_records_in_one_read_are_fed_at_once(tls_pair: Pair) -> None:
    client = await shaken(tls_pair)
    fed: list[bytes] = []
    tls_pair.ear.on_feed = fed.append
    await tls_pair.peer.send_all(b"".join(client.wrap(f"{number} ".encode()) for number in range(5)))
    await tls_pair.ear.until_heard(b"0 1 2 3 4 ")
    assert fed == [b"0 1 2 3 4 "]


async def test_a_record_in_pieces(tls_pair: Pair) -> None:
    client = await shaken(tls_pair)
    data = os.urandom(16_384)
    record = client.wrap(data) + client.wrap(b"next")
    for start in range(0, len(record), 5_000):
        await tls_pair.peer.send_all(record[start : start + 5_000])
        await trio.testing.wait_all_tasks_blocked()
    await tls_pair.ear.until_heard(data + b"next")


async def test_a_broken_record_ends_the_link(tls_pair: Pair) -> None:
    await tls_pair.up()
    await tls_pair.peer.send_all(b"\x17\x03\x03\x00\x20" + bytes(32))
    assert "TLS" in str(await tls_pair.ear.until_told("lost"))
    assert not tls_pair.ear.heard


async def test_close_notify_is_answered(tls_pair: Pair) -> None:
    client = await shaken(tls_pair)
    client.tls.write(b"last")
    with pytest.raises(ssl.SSLWantReadError):
        client.tls.unwrap()
    await tls_pair.peer.send_all(client.outgoing.read())
    assert await tls_pair.ear.until_told("lost") == "close_notify"
    assert tls_pair.ear.heard == b"last"
    while data := await tls_pair.peer.receive_some():
        client.incoming.write(data)
    with pytest.raises(ssl.SSLZeroReturnError):  # the server's close_notify
        client.tls.read(10)


async def test_ragged_eof(tls_pair: Pair) -> None:
    await tls_pair.up()
    await tls_pair.peer.send_eof()
    assert await tls_pair.ear.until_told("lost") == "end of file"


async def test_nothing_leaves_in_the_clear_after_a_failure(tls_pair: Pair) -> None:
    await tls_pair.up()
    link = tls_pair.link
    assert isinstance(link, TlsLink)
    assert link._tls is not None
    with pytest.raises(ssl.SSLWantReadError):
        link._tls.unwrap()  # as if a fatal error had ended the session
    assert link.send(b"secret"), "dropped"
    assert link.unsent == 0
    await tls_pair.ear.until_told("lost")


async def test_goodbye_frees_the_session_before_it_waits(tls_pair: Pair) -> None:
    stream = await tls_pair.up()
    link = tls_pair.link
    assert isinstance(link, TlsLink)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.say_goodbye, 4400, "")
        with trio.fail_after(PATIENCE):
            assert await stream.receive_some() == b"", "close_notify, not a cut"
        assert link._tls is None
        await stream.aclose()


async def test_43_handshakes_take_turns(tls: Certificates) -> None:
    """At most one step of a handshake per pass of the scheduler, however many clients come at once."""
    steps: list[int] = []
    passes = 0
    async with running_reactor() as reactor, trio.open_nursery() as nursery:
        pairs = [connected() for _ in range(30)]
        links = [link_around(ours, reactor, tls) for ours, _ in pairs]
        streams = [trio.SocketStream(trio.socket.from_stdlib_socket(theirs)) for _, theirs in pairs]
        clients = [Client(stream, tls.client) for stream in streams]
        for client in clients:
            await client.peer.send_all(client.step())

        def stepped(original: object) -> object:
            def step(self: TlsLink, data: bytes) -> bool:
                steps.append(passes)
                return bool(original(self, data))  # type: ignore[operator]

            return step

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(TlsLink, "_shake_hands", stepped(TlsLink._shake_hands))
            for link in links:
                link.attach(Ear())
                nursery.start_soon(link.open)
            with trio.fail_after(PATIENCE):
                while len(steps) < len(links):
                    passes += 1
                    await trio.lowlevel.checkpoint()
        assert max(steps.count(number) for number in steps) <= 2  # two tasks' order within a pass is random
        nursery.cancel_scope.cancel()
    for link in links:
        link.abort()
    for stream in streams:
        await trio.aclose_forcefully(stream)


class TestFiles:
    """Each mistake is one line that names the file."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        authority = trustme.CA()
        for name in ("one", "two"):
            certificate = authority.issue_cert("localhost")
            certificate.private_key_pem.write_to_path(tmp_path / f"{name}.key")
            for blob in certificate.cert_chain_pems:
                blob.write_to_path(tmp_path / f"{name}.pem", append=True)
        (tmp_path / "text").write_text("no PEM")
        return tmp_path

    def wrong(self, folder: Path, certificate: str, key: str) -> str:
        with pytest.raises(ValueError, match=r"^tls\.") as info:
            load_tls(TlsSettings(certificate=str(folder / certificate), key=str(folder / key) if key else ""))
        assert "\n" not in str(info.value)
        assert str(folder) in str(info.value)
        return str(info.value)

    def test_separate_files(self, folder: Path) -> None:
        load_tls(TlsSettings(certificate=str(folder / "one.pem"), key=str(folder / "one.key")))

    def test_missing(self, folder: Path) -> None:
        assert "none.pem cannot be read (No such file" in self.wrong(folder, "none.pem", "one.key")
        assert "tls.key" in self.wrong(folder, "one.pem", "none.key")
        assert "Is a directory" in self.wrong(folder, ".", "one.key")

    def test_not_pem(self, folder: Path) -> None:
        assert "no PEM certificate" in self.wrong(folder, "text", "one.key")
        assert "private key" in self.wrong(folder, "one.pem", "text")

    def test_no_key_in_the_certificate_file(self, folder: Path) -> None:
        assert "private key" in self.wrong(folder, "one.pem", "")

    def test_another_certificates_key(self, folder: Path) -> None:
        assert "is not the key of the certificate" in self.wrong(folder, "one.pem", "two.key")

    def test_an_encrypted_key_does_not_ask_the_terminal(self, folder: Path) -> None:
        from cryptography.hazmat.primitives import serialization

        key = serialization.load_pem_private_key((folder / "one.key").read_bytes(), None)
        (folder / "locked.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.BestAvailableEncryption(b"secret"),
            )
        )
        assert "encrypted" in self.wrong(folder, "one.pem", "locked.key")
