"""The certificate of the QUIC port: PEM files, or one that the node signs for itself in development. No TLS here.

Browsers take a self-signed certificate by its hash (`serverCertificateHashes`) only if its key is ECDSA P-256 and it is
valid for 14 days at most. So ours is: 13 days, kept in `data_dir` so that its hash outlives a restart, and replaced two
days before it runs out, also while the node runs. A change concerns new handshakes alone.
"""

from __future__ import annotations

import datetime
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

import trio
from aioquic.quic.configuration import QuicConfiguration
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.x509.oid import NameOID

from gateway.transports.quic.keeping import kept

log = logging.getLogger("gateway.quic")

FILE_NAME: Final = "quic.pem"
VALID: Final = 13 * 86_400.0
"""Seconds from the making of a self-signed certificate until it runs out."""
BACKDATED: Final = 3_600.0
"""Seconds of its validity that lie before: for a browser in another machine or container whose clock is behind."""
RENEWED: Final = 2 * 86_400.0
"""Seconds before it runs out when the next one is made."""
LOOK: Final = 3_600.0
"""Seconds between two looks at the wall clock, which may jump."""
SOONEST: Final = 60.0
"""Seconds until the next try, when one did not succeed."""
NAMES: Final = ("localhost", "127.0.0.1", "::1")
_KEYS: Final = (rsa.RSAPrivateKey, ec.EllipticCurvePrivateKey, ed25519.Ed25519PrivateKey, ed448.Ed448PrivateKey)


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate chain, the server's own first, and its key."""

    chain: tuple[x509.Certificate, ...]
    key: Any = field(repr=False)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the server's certificate, in hex: what `serverCertificateHashes` takes."""
        return self.chain[0].fingerprint(hashes.SHA256()).hex()

    @property
    def expires(self) -> float:
        """When it runs out, Unix seconds."""
        return self.chain[0].not_valid_after_utc.timestamp()


class Certificates:
    """What new handshakes are made with. One for each listener; `reload` and `run` replace it in place."""

    def __init__(
        self, load: Callable[[], Identity], *, renews: bool = False, clock: Callable[[], float] = time.time
    ) -> None:
        """
        Args:
            load: reads it, or makes it; raises ValueError with one line for people.
            renews: whether `load` makes a new one when the old one is about to run out.
            clock: Unix seconds.

        Raises:
            ValueError: of `load`.
        """
        self.renews = renews
        """Whether it is the self-signed one of development."""
        self.current = load()
        self._load = load
        self._clock = clock
        self._users: list[QuicConfiguration] = []

    @property
    def fingerprint(self) -> str:
        """Of the certificate that new handshakes get now."""
        return self.current.fingerprint

    def install(self, configuration: QuicConfiguration) -> None:
        """Put it into a configuration, now and after each change. aioquic reads it when a connection is made."""
        self._users.append(configuration)
        self._fill(configuration)

    def reload(self) -> bool:
        """Read it anew; whether it changed. What cannot be used is not: the old one stays, and the log says why."""
        try:
            identity = self._load()
        except ValueError as error:
            log.error("certificate_not_reloaded", extra={"reason": str(error)})
            return False
        if identity.fingerprint == self.fingerprint:
            return False
        self.current = identity
        for configuration in self._users:
            self._fill(configuration)
        log.info("certificate_reloaded", extra={"sha256": self.fingerprint, "expires": int(identity.expires)})
        return True

    async def run(self) -> None:
        """Renew what has to be renewed, until cancelled; returns when there is nothing of the kind."""
        while self.renews:
            left = self.current.expires - RENEWED - self._clock()
            await trio.sleep(min(max(left, SOONEST), LOOK))
            if self.current.expires - RENEWED <= self._clock():
                self.reload()

    def _fill(self, configuration: QuicConfiguration) -> None:
        first, *others = self.current.chain
        configuration.certificate, configuration.certificate_chain = first, others
        configuration.private_key = self.current.key


def open_certificates(
    certificate: str, key: str, data_dir: str | Path, *, clock: Callable[[], float] = time.time
) -> Certificates:
    """By PEM files or, without any, the self-signed one in `data_dir`.

    Raises:
        ValueError: one line that names the file and says what would be right; it begins with `certificate: ` or
            `key: `, the setting concerned.
    """
    if certificate:
        return Certificates(partial(load_identity, certificate, key), clock=clock)
    return Certificates(partial(development_identity, data_dir, clock=clock), renews=True, clock=clock)


def load_identity(certificate: str | Path, key: str | Path = "") -> Identity:
    """Read a chain and its key, which may stand in one file.

    Raises:
        ValueError: as of `open_certificates`.
    """
    key = key or certificate
    texts = []
    for name, path in (("certificate", certificate), ("key", key)):
        try:
            texts.append(Path(path).read_bytes())
        except OSError as error:
            raise ValueError(f"{name}: {path} cannot be read ({error.strerror}); name a PEM file") from None
    return _identity(texts[0], texts[1], certificate, key)


def _identity(chain_text: bytes, key_text: bytes, certificate: str | Path, key: str | Path) -> Identity:
    try:
        chain = tuple(x509.load_pem_x509_certificates(chain_text))
    except ValueError:
        raise ValueError(f"certificate: {certificate} is no PEM certificate chain") from None
    return Identity(chain, _private_key(key_text, key, certificate, chain[0]))


def _private_key(text: bytes, path: str | Path, certificate: str | Path, first: x509.Certificate) -> Any:
    try:
        private = serialization.load_pem_private_key(text, password=None)
    except TypeError:
        raise ValueError(f"key: {path} is encrypted; store the key without a password") from None
    except Exception:  # ValueError, UnsupportedAlgorithm: all of them mean the same to whoever named the file
        raise ValueError(f"key: {path} holds no PEM private key") from None
    if not isinstance(private, _KEYS):
        raise ValueError(f"key: {path} is of no kind that TLS 1.3 knows; use ECDSA P-256, Ed25519 or RSA")
    if private.public_key() != first.public_key():
        raise ValueError(f"key: {path} is not the key of the certificate in {certificate}")
    return private


def development_identity(data_dir: str | Path, *, clock: Callable[[], float] = time.time) -> Identity:
    """The self-signed one in `data_dir`; made anew, with the directory, when there is none that lasts.

    Processes that start at once end up with the same one: whoever makes it holds a lock.

    Raises:
        ValueError: it cannot be kept there.
    """
    path, now = Path(data_dir) / FILE_NAME, clock()
    try:
        text = kept(path, partial(_self_signed, now), partial(_lasts, now=now))
    except OSError as error:
        raise ValueError(f"certificate: cannot keep one in {str(path)!r}: {error.strerror}") from None
    return _identity(text, text, path, path)


def _lasts(text: bytes, now: float) -> bool:
    """Whether it can be used for a while."""
    try:
        identity = _identity(text, text, FILE_NAME, FILE_NAME)
    except ValueError:
        return False
    begun = identity.chain[0].not_valid_before_utc.timestamp() <= now
    return begun and now < identity.expires - RENEWED


def _self_signed(now: float) -> bytes:
    """A new key and its certificate, PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "trio-gateway, development")])
    at = partial(datetime.datetime.fromtimestamp, tz=datetime.UTC)
    names = [x509.DNSName(each) if each[0].isalpha() else x509.IPAddress(ip_address(each)) for each in NAMES]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(at(now - BACKDATED))
        .not_valid_after(at(now - BACKDATED + VALID))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate.public_bytes(serialization.Encoding.PEM) + private
