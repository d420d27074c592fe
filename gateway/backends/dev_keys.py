"""Development mode: a key that the node makes for itself, and tokens signed with it. Not for a network.

`config` refuses to start with this key on any address that is not loopback.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import jwt

from gateway.backends.jwt import LARGEST_USER_ID, JwtAuthenticator
from gateway.backends.keys import KeyRefused, VerifyingKey
from gateway.backends.settings import JwtSettings

FILE_NAME = "development.key"
KEY_ID = "development"
KEY_BYTES = 32
DEFAULT_TTL = 86_400.0
"""Seconds: a working day's tokens outlive the working day."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A secret that tokens are signed with (HS256)."""

    kid: str
    secret: bytes = field(repr=False)

    def verifying(self) -> dict[str, VerifyingKey]:
        """The same key, as an authenticator takes it."""
        return {self.kid: VerifyingKey("HS256", self.secret)}


def issue_token(
    key: SigningKey,
    user_id: int,
    *,
    device_id: str = "",
    ttl: float = DEFAULT_TTL,
    issuer: str = "",
    audience: str = "",
    now: float | None = None,
) -> str:
    """A token for `user_id`, valid for `ttl` seconds from `now` (Unix seconds); bound to `device_id` if given.

    A negative `ttl` makes an expired token: tests want those.

    Raises:
        ValueError: a user id outside 1 to 2^63 - 1.
    """
    if not 0 < user_id <= LARGEST_USER_ID:
        raise ValueError(f"a user id is a number from 1 to {LARGEST_USER_ID}, not {user_id}")
    issued = time.time() if now is None else now
    claims: dict[str, object] = {"sub": str(user_id), "iat": int(issued), "exp": issued + ttl}
    optional = {"device_id": device_id, "iss": issuer, "aud": audience}
    claims.update((name, value) for name, value in optional.items() if value)
    return jwt.encode(claims, key.secret, algorithm="HS256", headers={"kid": key.kid})


def development_key(data_dir: str | Path) -> SigningKey:
    """The key in `data_dir`; made, with the directory, when there is none yet.

    Two processes that start at once end up with the same key: it is written aside and then linked to its
    name, which happens whole or not at all, and for one of them only.

    Raises:
        KeyRefused: the file is not ours to trust (others may read it, or it holds no key), or cannot be made.
    """
    path = Path(data_dir) / FILE_NAME
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.path.lexists(path):
            _make(path)
        return SigningKey(KEY_ID, _read(path))
    except OSError as error:
        raise KeyRefused(f"cannot keep a development key in {str(path)!r}: {error.strerror}") from None


def open_authenticator(
    settings: JwtSettings, data_dir: str | Path, *, clock: Callable[[], float] = time.time
) -> JwtAuthenticator:
    """By the configured keys or, without any, by the development key in `data_dir`.

    Raises:
        KeyRefused: a key cannot be used; the message says which and why.
    """
    if settings.keys:
        return JwtAuthenticator.configured(settings, clock=clock)
    return JwtAuthenticator(
        development_key(data_dir).verifying(), issuer=settings.issuer, audience=settings.audience, clock=clock
    )


def _make(path: Path) -> None:
    aside = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(8)}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(secrets.token_bytes(KEY_BYTES).hex().encode() + b"\n")
            file.flush()
            os.fsync(descriptor)
        with contextlib.suppress(FileExistsError):  # another process was first: its key is the key
            os.link(aside, path, follow_symlinks=False)
    finally:
        aside.unlink(missing_ok=True)


def _read(path: Path) -> bytes:
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
        about = os.fstat(file.fileno())
        if about.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise KeyRefused(
                f"{str(path)!r} can be read by others (mode {about.st_mode & 0o777:04o}); chmod 600, or delete it"
            )
        text = file.read(KEY_BYTES * 2 + 2)
    try:
        secret = bytes.fromhex(text.decode("ascii"))
    except ValueError:
        secret = b""
    if len(secret) != KEY_BYTES:
        raise KeyRefused(f"{str(path)!r} holds no development key; delete it to get a new one")
    return secret
