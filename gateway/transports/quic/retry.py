"""Retry tokens: proof that a client is where it says, without keeping anything of it. No packet is built here.

A token is sealed: it opens for the address and port that it was issued to, within its age, and once. What was used is
remembered for as long as it could be used again, up to a bound; beyond the bound nothing is believed.
"""

from __future__ import annotations

import hashlib
import os
import struct
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

LIFETIME: Final = 10.0
"""Seconds that a token is good for: a round trip, and what a lossy path adds to it (RFC 9000 section 8.1.3: short)."""
REMEMBERED: Final = 65_536
"""Used tokens remembered for each half of that time; 5 MB at the worst."""
_NONCE: Final = 12
_HEAD: Final = struct.Struct("!d")


class RetryTokens:
    """Makes and takes tokens. `key`: 32 secret bytes; tokens of another key are nobody's."""

    def __init__(self, key: bytes, *, remembered: int = REMEMBERED) -> None:
        self._aead = AESGCM(hashlib.sha256(b"retry token" + key).digest())
        self._remembered = remembered
        self._used: tuple[set[bytes], set[bytes]] = (set(), set())
        self._turned = 0.0

    def issue(self, address: bytes, original: bytes, retried: bytes, now: float) -> bytes:
        """A token for a client at `address`, whose first packet was to `original`, and whose next is to `retried`.

        `now`: monotonic seconds; a token does not outlive the process by this.
        """
        nonce = os.urandom(_NONCE)
        return nonce + self._aead.encrypt(nonce, _HEAD.pack(now) + original, address + b"|" + retried)

    def redeem(self, token: bytes, address: bytes, retried: bytes, now: float) -> bytes | None:
        """The original destination of whoever shows a good token; None: made up, too old, used, or somebody else's."""
        nonce, sealed = token[:_NONCE], token[_NONCE:]
        try:
            opened = self._aead.decrypt(nonce, sealed, address + b"|" + retried)
        except (InvalidTag, ValueError):
            return None
        (issued,) = _HEAD.unpack_from(opened)
        if not 0.0 <= now - issued <= LIFETIME or not self._use(nonce, now):
            return None
        return opened[_HEAD.size :]

    def _use(self, nonce: bytes, now: float) -> bool:
        """Whether it is the first time."""
        recent, older = self._used
        if now - self._turned >= LIFETIME:
            older = recent if now - self._turned < 2 * LIFETIME else set()
            recent = set()
            self._used, self._turned = (recent, older), now
        if nonce in recent or nonce in older or len(recent) >= self._remembered:
            return False
        recent.add(nonce)
        return True
