"""Whom a client believes to be the server: the same choice for TCP and WebSocket with TLS, QUIC and WebTransport."""

from __future__ import annotations

import hashlib
import os
import re
import ssl

import msgspec


class Untrusted(Exception):
    """The server's certificate is not the one that was pinned."""


class Trust(msgspec.Struct, frozen=True, kw_only=True):
    """How the server's certificate is judged. With nothing set: the system's authorities, and the name must fit."""

    ca_file: str = ""
    """A PEM file of authorities that count instead of the system's."""
    certificate_sha256: tuple[str, ...] = ()
    """SHA-256 of certificates (of their DER), in hex, colons allowed. One of exactly these must be shown; who
    signed it, its name and its dates do not matter then. The node prints that of its development certificate."""
    insecure: bool = False
    """Believe anybody. For experiments on one machine."""
    context: ssl.SSLContext | None = None
    """A context of the program's own, for TCP and WebSocket; QUIC takes its authorities and whether it verifies."""

    def __post_init__(self) -> None:
        for pin in self.certificate_sha256:
            if not re.fullmatch(r"[0-9a-f]{64}", _plain(pin)):
                raise ValueError(f"{pin!r} is not the SHA-256 of a certificate: 64 hexadecimal digits")

    @property
    def verified(self) -> bool:
        """Whether authorities decide; else a pin does, or nobody."""
        lax = self.context is not None and self.context.verify_mode is ssl.CERT_NONE
        return not self.insecure and not self.certificate_sha256 and not lax

    def check(self, certificate: bytes) -> None:
        """Compare a certificate (DER) with the pins, if there are any.

        Raises:
            Untrusted: it is none of them.
        """
        pins = {_plain(pin) for pin in self.certificate_sha256}
        if pins and (found := hashlib.sha256(certificate).hexdigest()) not in pins:
            raise Untrusted(f"certificate not trusted (its SHA-256 is {found})")

    def ssl_context(self) -> ssl.SSLContext:
        """What TLS over TCP needs. Reads files: make it once.

        Raises:
            OSError: `ca_file` cannot be read, or is no certificate.
        """
        if self.context is not None and not self.insecure and not self.certificate_sha256:
            return self.context
        context = ssl.create_default_context(cafile=self.ca_file or None)
        if not self.verified:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    def authorities(self) -> tuple[str | None, str | None, bytes | None]:
        """For QUIC: a file, a folder and PEM text of authorities, as far as each is there."""
        if self.ca_file:
            return self.ca_file, None, None
        if self.context is not None and (loaded := self.context.get_ca_certs(binary_form=True)):
            return None, None, "".join(map(ssl.DER_cert_to_PEM_cert, loaded)).encode()
        # A context that has loaded none reads the system's folder when it needs one of them: so do we.
        paths = ssl.get_default_verify_paths()
        file = paths.cafile if paths.cafile and os.path.exists(paths.cafile) else None
        folder = paths.capath if paths.capath and os.path.isdir(paths.capath) else None
        return file, folder, None

    @property
    def key(self) -> str:
        """Two trusts with the same key believe the same servers: a session resumed under one fits the other."""
        own = f"{id(self.context)}" if self.context is not None else ""
        pins = ",".join(sorted(map(_plain, self.certificate_sha256)))
        return f"{self.ca_file}|{pins}|{self.insecure}|{own}"


def _plain(pin: str) -> str:
    return pin.replace(":", "").strip().lower()
