"""From configured keys to keys that verify. Whatever is wrong with a key is said here, at start; no token is seen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from gateway.backends.settings import Algorithm, KeySettings

SHORTEST_SECRET = 32
"""Bytes: RFC 7518 section 3.2 wants an HS256 secret at least as long as the hash."""
SHORTEST_RSA = 2048
"""Bits: RFC 7518 section 3.3."""
LARGEST_KEY_FILE = 65_536

_NOT_A_SECRET = (b"-----BEGIN", b"---- BEGIN", b"ssh-", b"ecdsa-sha2-", b"{")
"""Beginnings of what is public: keys in PEM, RFC 4716, OpenSSH and JWK form. Who knows it could sign with it."""


class KeyRefused(ValueError):
    """A configured key that cannot be used; the message never holds any of it."""


@dataclass(frozen=True, slots=True)
class VerifyingKey:
    """A key and the one algorithm that it is for."""

    algorithm: Algorithm
    material: Any

    def verifies(self, signed: bytes, signature: bytes) -> bool:
        """Whether `signature` was made over `signed` with this key (in constant time for HS256)."""
        return _VERIFIERS[self.algorithm].verify(signed, self.material, signature)

    def __repr__(self) -> str:
        return f"VerifyingKey({self.algorithm})"


_VERIFIERS = {name: jwt.get_algorithm_by_name(name) for name in ("HS256", "EdDSA", "ES256", "RS256")}


def load_key(settings: KeySettings) -> VerifyingKey:
    """Read and check one key.

    Raises:
        KeyRefused: it is missing, unreadable, too weak, of the wrong kind, or public where it must be secret.
    """
    if bool(settings.key) == bool(settings.file):
        raise KeyRefused("give either `key` or `file`")
    data = settings.key.encode() if settings.key else _read(settings.file)
    if settings.algorithm == "HS256":
        return VerifyingKey("HS256", _secret(data))
    return VerifyingKey(settings.algorithm, _public(settings.algorithm, data))


def _read(path: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            data = file.read(LARGEST_KEY_FILE + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise KeyRefused(f"cannot read {path!r}: {reason}") from None
    if len(data) > LARGEST_KEY_FILE:
        raise KeyRefused(f"{path!r} is too large for a key")
    return data.removesuffix(b"\n").removesuffix(b"\r")


def _secret(data: bytes) -> bytes:
    if data.lstrip().startswith(_NOT_A_SECRET):
        raise KeyRefused("this looks like a public key, not like an HS256 secret; say its algorithm")
    if len(data) < SHORTEST_SECRET:
        raise KeyRefused(f"an HS256 secret needs at least {SHORTEST_SECRET} bytes, this has {len(data)}")
    try:
        material: bytes = _VERIFIERS["HS256"].prepare_key(data)  # also refuses DER keys and certificates
    except jwt.InvalidKeyError:
        raise KeyRefused("this looks like a public key, not like an HS256 secret; say its algorithm") from None
    return material


def _public(algorithm: Algorithm, data: bytes) -> Ed25519PublicKey | EllipticCurvePublicKey | RSAPublicKey:
    if b"PRIVATE KEY-----" in data:
        raise KeyRefused("this is a private key; the node needs the public one, and nobody but the issuer the private")
    try:
        key = load_pem_public_key(data)
    except Exception:  # the library documents several, and its text may quote the key
        raise KeyRefused(f"this is no public key in PEM, as {algorithm} needs it") from None
    match algorithm, key:
        case "EdDSA", Ed25519PublicKey():
            return key
        case "ES256", EllipticCurvePublicKey(curve=SECP256R1()):
            return key
        case "RS256", RSAPublicKey():
            if key.key_size < SHORTEST_RSA:
                raise KeyRefused(f"an RSA key needs at least {SHORTEST_RSA} bits, this has {key.key_size}")
            return key
        case _:
            raise KeyRefused(f"this public key is not of the kind that {algorithm} needs")
