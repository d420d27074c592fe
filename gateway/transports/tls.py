"""TLS on a socket link: certificates into a context, records into bytes. Knows nothing of what the bytes mean."""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
from pathlib import Path
from typing import Final

import trio

from gateway.core.link import LinkClosed
from gateway.transports.reactor import Reactor
from gateway.transports.settings import TlsSettings
from gateway.transports.tcp import TcpLink, reason_of

log = logging.getLogger("gateway.tls")

RECORD: Final = 16_384
"""The most plaintext that fits one TLS record."""
SHARE: Final = 17_408
"""Bytes taken per readiness: one whole record. OpenSSL's memory buffers never shrink: a link may retain this much."""
HANDSHAKE: Final = 32_768
"""Bytes a client may need for its handshake; a hello with post-quantum shares has under 3,000."""
UNREAD: Final = 1_048_576
"""Bytes that may wait when an answer to a key update joins them: a peer that asks and never reads is cut off."""

_VERSIONS: Final = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


class TlsServer:
    """What the TLS links of a listener share: the context, and their turns.

    A handshake step costs about a millisecond of CPU. The lock lets one run per pass of the scheduler, so
    that thousands of clients who reconnect at once leave room for those who are seated.

    Raises:
        ValueError: one line that names the file and says what would be right.
    """

    def __init__(self, settings: TlsSettings) -> None:
        self.context = _context(settings)
        self.turn = trio.Lock()
        self._settings = settings

    def reload(self) -> None:
        """Read certificate and key anew, for handshakes that begin from now on; when they cannot be used, the log says
        why and those read before stay."""
        try:
            self.context = _context(self._settings)
        except ValueError as error:
            log.error("certificate_not_reloaded", extra={"reason": str(error)})


def load_tls(settings: TlsSettings) -> TlsServer:
    """Read the certificate and its key.

    Raises:
        ValueError: one line that names the file and says what would be right.
    """
    return TlsServer(settings)


def _context(settings: TlsSettings) -> ssl.SSLContext:
    certificate, key = Path(settings.certificate), Path(settings.key or settings.certificate)
    for path, field in ((certificate, "certificate"), (key, "key")):
        try:
            path.read_bytes()
        except OSError as error:
            raise ValueError(f"tls.{field}: {path} cannot be read ({reason_of(error)}); name a PEM file") from None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[settings.minimum_version]
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.num_tickets = 1  # a client reconnects once; each ticket costs an encryption and 200 bytes
    # A callable that answers nothing: else OpenSSL would ask for the password on the terminal.
    nothing: list[bool] = []

    def password() -> bytes:
        nothing.append(True)
        return b""

    try:
        context.load_cert_chain(certificate, key, password=password)
    except (ssl.SSLError, ValueError) as error:
        if nothing:
            raise ValueError(f"tls.key: {key} is encrypted; store the key without a password") from None
        if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
            raise ValueError(f"tls.key: {key} is not the key of the certificate in {certificate}") from None
        raise ValueError(
            f"tls.certificate: {certificate} with key {key} is no PEM certificate chain and private key"
        ) from None
    return context


class TlsLink(TcpLink):
    """A `TcpLink` whose bytes travel in TLS records. Nothing is allocated for TLS until the peer has said something."""

    __slots__ = ("_incoming", "_outgoing", "_server", "_tls")

    def __init__(self, reactor: Reactor, sock: socket.socket, address: str, server: TlsServer) -> None:
        super().__init__(reactor, sock, address, share=SHARE, layered=True)
        self._server = server
        self._tls: ssl.SSLObject | None = None
        self._incoming: ssl.MemoryBIO | None = None
        self._outgoing: ssl.MemoryBIO | None = None

    async def open(self) -> None:
        received = 0
        while True:
            data = await self._arrival()
            received += len(data)
            async with self._server.turn:
                up = self._shake_hands(data)
            if self.unsent:
                await self.flush()
            if up:
                break
            if received > HANDSHAKE:
                raise LinkClosed("TLS: the handshake is too long")
        self._start()
        try:
            self._unwrap()
        except Exception:
            self.fault()

    def send(self, data: bytes) -> bool:
        tls, outgoing = self._tls, self._outgoing
        if tls is None or outgoing is None:
            return True
        try:
            if len(data) <= RECORD:
                tls.write(data)
                return super().send(outgoing.read())
            records = []
            view = memoryview(data)
            for start in range(0, len(data), RECORD):
                tls.write(view[start : start + RECORD])
                records.append(outgoing.read())
            return super().send(b"".join(records))
        except ssl.SSLError:
            # The session is broken, which reading will find too: nothing may leave in the clear.
            self._tls = None
            with contextlib.suppress(OSError):
                self.shutdown(both=True)
            return True

    async def say_goodbye(self, code: int, reason: str) -> None:
        self._say_close_notify()
        self._forget()
        await super().say_goodbye(code, reason)

    def abort(self) -> None:
        super().abort()
        self._forget()

    async def _arrival(self) -> bytes:
        """Some bytes of the handshake, before the reactor pushes.

        Raises:
            LinkClosed: the peer or the network ended the link.
        """
        while True:
            await self._wait(trio.lowlevel.wait_readable)
            try:
                data = self.receive()
            except OSError as error:
                raise LinkClosed(reason_of(error)) from None
            if data:
                return data
            if data is not None:
                raise LinkClosed("end of file")

    def _shake_hands(self, data: bytes) -> bool:
        """One step of the handshake; True when it is done.

        Raises:
            LinkClosed: refused; the peer got an alert.
        """
        if self.fd < 0:
            raise LinkClosed("closed")
        if self._tls is None:
            self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            self._tls = self._server.context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        assert self._incoming is not None
        self._incoming.write(data)
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError as error:
            raise LinkClosed(f"TLS: {error.reason}") from None
        finally:
            self._send_control()
        return True

    def received(self, data: bytes) -> None:
        """Called for every chunk that arrives."""
        if self._incoming is not None:
            self._incoming.write(data)
            self._unwrap()

    def _unwrap(self) -> None:
        """Feed what came in, all of it at once."""
        tls, incoming, outgoing = self._tls, self._incoming, self._outgoing
        if tls is None or incoming is None or outgoing is None:
            return
        plain, parts, end = b"", [], ""
        try:
            while True:
                part = tls.read(RECORD)
                if not part:
                    end = "close_notify"
                    break
                if plain:
                    parts.append(plain)
                plain = part
                if not incoming.pending and not tls.pending():
                    break
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            end = f"TLS: {error.reason}"
        if outgoing.pending:
            self._send_control()
            if self.unsent > UNREAD:
                end = "TLS: answers are not being read"
        if plain and self.receiver is not None:
            self.receiver.feed(0, b"".join([*parts, plain]) if parts else plain)
        if end and self.fd >= 0:
            self._say_close_notify()
            self.lost(end)

    def _send_control(self) -> None:
        """Handshake messages, alerts and key updates."""
        if self._outgoing is not None and self._outgoing.pending:
            super().send(self._outgoing.read())

    def _say_close_notify(self) -> None:
        if self._tls is not None:
            with contextlib.suppress(ssl.SSLError):
                self._tls.unwrap()
            self._send_control()

    def _forget(self) -> None:
        """The session's 18 KB, before the socket is gone for good."""
        self._tls = self._incoming = self._outgoing = None
