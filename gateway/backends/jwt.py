"""The Authenticator for JWT (protocol section 7). Verifies; where tokens come from is not its business.

What a client may learn from a refusal is one bit: expired or not. What the operator may learn is in the log, and
never holds a token.
"""

from __future__ import annotations

import logging
import re
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping

import msgspec
from msgspec import UNSET, Raw, UnsetType

from gateway.backends.keys import KeyRefused, VerifyingKey, load_key
from gateway.backends.settings import JwtSettings
from gateway.core.ports import AuthRefused, Credentials, Identity
from gateway.protocol.codes import Code

log = logging.getLogger("gateway.auth")

LARGEST_TOKEN = 4096
"""Bytes; looked at before anything is parsed (protocol section 7)."""
LATEST_EXPIRY = 253_402_300_799
"""The end of the year 9999: a number that every clock and timer can still hold."""
LARGEST_USER_ID = 2**63 - 1

_SHAPE = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_USER_ID = re.compile(r"[1-9][0-9]{0,18}")


class _Header(msgspec.Struct):
    """What is read of a token's header; the members below `typ` ask us to trust what the token itself brings."""

    alg: str
    kid: str | UnsetType = UNSET
    typ: str | UnsetType = UNSET
    crit: Raw | UnsetType = UNSET
    jwk: Raw | UnsetType = UNSET
    jku: Raw | UnsetType = UNSET
    x5u: Raw | UnsetType = UNSET
    x5c: Raw | UnsetType = UNSET
    b64: Raw | UnsetType = UNSET
    zip: Raw | UnsetType = UNSET
    enc: Raw | UnsetType = UNSET


_UNTRUSTED = ("crit", "jwk", "jku", "x5u", "x5c", "b64", "zip", "enc")


class _Claims(msgspec.Struct):
    sub: str
    exp: int | float
    nbf: int | float | UnsetType = UNSET
    iss: str | UnsetType = UNSET
    aud: str | list[str] | UnsetType = UNSET
    device_id: str | UnsetType = UNSET


_decode_header = msgspec.json.Decoder(_Header).decode
_decode_claims = msgspec.json.Decoder(_Claims).decode


class _Refused(Exception):
    """Why, for the log: a constant, nothing of the token."""


class JwtAuthenticator:
    """Verifies tokens against a fixed set of keys, each for one algorithm. Several are valid at once (rotation)."""

    def __init__(
        self,
        keys: Mapping[str, VerifyingKey],
        *,
        issuer: str = "",
        audience: str = "",
        clock_skew: float = 0.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`keys` by `kid`; `clock` tells Unix seconds.

        Raises:
            ValueError: there is no key.
        """
        if not keys:
            raise ValueError("an authenticator needs a key")
        self._keys = dict(keys)
        self._only_key = next(iter(self._keys.values())) if len(self._keys) == 1 else None
        self._issuer = issuer
        self._audience = audience
        self._clock_skew = clock_skew
        self._clock = clock

    @classmethod
    def configured(cls, settings: JwtSettings, *, clock: Callable[[], float] = time.time) -> JwtAuthenticator:
        """With the keys of the configuration.

        Raises:
            KeyRefused: naming the key by its `kid`.
        """
        keys = {}
        for kid, key in settings.keys.items():
            try:
                keys[kid] = load_key(key)
            except KeyRefused as refused:
                raise KeyRefused(f"auth.keys.{kid}: {refused}") from None
        return cls(
            keys,
            issuer=settings.issuer,
            audience=settings.audience,
            clock_skew=settings.clock_skew,
            clock=clock,
        )

    async def authenticate(self, credentials: Credentials) -> Identity:
        """Takes tens of microseconds of computing and never waits.

        Raises:
            AuthRefused: 4101 for a token that was good once; 4100 for everything else, in the same words.
        """
        try:
            claims = self._claims(credentials.token)
            user_id = self._check(claims, credentials.device_id)
        except _Refused as refused:
            log.info("token_refused", extra={"reason": str(refused), "address": credentials.address})
            raise AuthRefused(Code.TOKEN_INVALID, "the token is not valid") from None
        if claims.exp <= self._clock():
            log.info("token_refused", extra={"reason": "expired", "address": credentials.address})
            raise AuthRefused(Code.TOKEN_EXPIRED, "the token has expired")
        return Identity(user_id=user_id, expires_at=float(claims.exp))

    def _claims(self, token: str) -> _Claims:
        """The claims of a token whose signature holds."""
        if len(token) > LARGEST_TOKEN:
            raise _Refused("too large")
        if _SHAPE.fullmatch(token) is None:
            raise _Refused("malformed")
        signed, _, signature = token.rpartition(".")
        header_part, _, claims_part = signed.partition(".")
        try:
            header = _decode_header(_base64url(header_part))
        except (ValueError, RecursionError):
            raise _Refused("malformed") from None
        if not self._key(header).verifies(signed.encode(), _signature(signature)):
            raise _Refused("signature")
        try:
            return _decode_claims(_base64url(claims_part))
        except (ValueError, RecursionError):
            raise _Refused("claims") from None

    def _key(self, header: _Header) -> VerifyingKey:
        if any(getattr(header, name) is not UNSET for name in _UNTRUSTED):
            raise _Refused("header")
        key = self._only_key if header.kid is UNSET else self._keys.get(header.kid)
        if key is None:
            raise _Refused("unknown key")
        if header.alg != key.algorithm:
            raise _Refused("algorithm")
        return key

    def _check(self, claims: _Claims, device_id: str) -> int:
        """The user id, if every claim but the expiry is as it must be."""
        if not 0 < claims.exp <= LATEST_EXPIRY:
            raise _Refused("expiry")
        if claims.nbf is not UNSET and not claims.nbf <= self._clock() + self._clock_skew:
            raise _Refused("not yet valid")
        if self._issuer and claims.iss != self._issuer:
            raise _Refused("issuer")
        audiences = [] if claims.aud is UNSET else [claims.aud] if isinstance(claims.aud, str) else claims.aud
        if self._audience not in audiences if self._audience else audiences:
            raise _Refused("audience")
        if claims.device_id is not UNSET and claims.device_id != device_id:
            raise _Refused("device")
        if _USER_ID.fullmatch(claims.sub) is None or int(claims.sub) > LARGEST_USER_ID:
            raise _Refused("user id")
        return int(claims.sub)


def _signature(part: str) -> bytes:
    try:
        return _base64url(part)
    except ValueError:
        raise _Refused("malformed") from None


def _base64url(part: str) -> bytes:
    """Decode strictly: the one text that encodes these bytes, without padding.

    Raises:
        ValueError: it is not that.
    """
    data = urlsafe_b64decode(part + "=" * (-len(part) % 4))
    if urlsafe_b64encode(data).rstrip(b"=") != part.encode():
        raise ValueError("not canonical")
    return data
