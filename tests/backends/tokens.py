"""Tokens by hand, good and forged, for the tests beside it. Nothing of the code under test is used to sign."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from gateway.core.ports import Authenticator, AuthRefused, Credentials, Identity

NOW = 1_800_000_000.0
SECRET = bytes(range(32))
RSA_KEY = rsa.generate_private_key(public_exponent=65_537, key_size=2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
ED_KEY = ed25519.Ed25519PrivateKey.generate()

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey


def pem(key: PublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def claims(**changes: Any) -> dict[str, Any]:
    """Good claims, with `changes`; a change to None leaves the claim out."""
    wanted = {"sub": "1001", "exp": int(NOW) + 60, "device_id": "phone", **changes}
    return {name: value for name, value in wanted.items() if value is not None}


def part(data: bytes | dict[str, Any]) -> bytes:
    raw = json.dumps(data).encode() if isinstance(data, dict) else data
    return base64.urlsafe_b64encode(raw).rstrip(b"=")


def sign(
    body: bytes | dict[str, Any],
    header: bytes | dict[str, Any] | None = None,
    secret: bytes = SECRET,
    **extra: Any,
) -> str:
    """A token with a valid HS256 signature over whatever header and claims are given."""
    signed = (
        part({"alg": "HS256", "typ": "JWT", "kid": "main", **extra} if header is None else header) + b"." + part(body)
    )
    return (signed + b"." + part(hmac.digest(secret, signed, hashlib.sha256))).decode()


def credentials(token: str, device_id: str = "phone") -> Credentials:
    return Credentials(token=token, device_id=device_id, platform="ios", address="192.0.2.7")


async def outcome(authenticator: Authenticator, token: str, device_id: str = "phone") -> Identity | tuple[int, str]:
    """The identity, or the code and words of the refusal."""
    try:
        return await authenticator.authenticate(credentials(token, device_id))
    except AuthRefused as refused:
        return refused.code, refused.message


GENERIC = (4100, "the token is not valid")
EXPIRED = (4101, "the token has expired")
