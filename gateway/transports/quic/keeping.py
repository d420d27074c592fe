"""Small secrets that a node makes for itself and keeps in its `data_dir`. What they are for is not known here."""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final

SECRET_FILE: Final = "quic.secret"
LONGEST: Final = 65_536


def kept(path: Path, make: Callable[[], bytes], is_good: Callable[[bytes], bool]) -> bytes:
    """What the file at `path` holds; made, with its directory, when there is none that is good and closed to others.

    Processes that start at once end up with the same: whoever makes it holds a lock on the directory.

    Raises:
        OSError: it cannot be kept there.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        text = _read(path)
        if text is None or not is_good(text):
            text = make()
            _write(path, text)
    finally:
        os.close(lock)
    return text


def quic_secret(configured: str, data_dir: str | Path) -> bytes:
    """32 bytes of which the keys of stateless resets and Retry tokens are made: the same after a restart.

    Raises:
        ValueError: they cannot be kept in `data_dir`; one line that begins with the setting concerned.
    """
    if configured:
        return hashlib.sha256(configured.encode()).digest()
    path = Path(data_dir) / SECRET_FILE
    try:
        return kept(path, lambda: secrets.token_bytes(32), lambda text: len(text) == 32)
    except OSError as error:
        raise ValueError(f"secret: cannot keep one in {str(path)!r}: {error.strerror}") from None


def _read(path: Path) -> bytes | None:
    """None for what somebody else may have read or put there."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return None
    with open(descriptor, "rb") as file:
        mode = os.fstat(file.fileno()).st_mode
        if not stat.S_ISREG(mode) or mode & (stat.S_IRWXG | stat.S_IRWXO):
            return None
        return file.read(LONGEST)


def _write(path: Path, text: bytes) -> None:
    aside = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(8)}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(text)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
