"""What an operator may turn in the backends. Settings only; the backends themselves live beside this file."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from gateway.core.settings import Count, Secret, Settings

Algorithm = Literal["HS256", "EdDSA", "ES256", "RS256"]
KeyId = Annotated[str, Meta(pattern=r"^[!-~]{1,128}\Z")]
"""What a token's `kid` may be: 1 to 128 printable ASCII characters without spaces."""


class KeySettings(Settings, frozen=True):
    """One key that tokens may be signed with; its name in `auth.keys` is the tokens' `kid`."""

    algorithm: Algorithm
    """HS256 (a shared secret), EdDSA (Ed25519), ES256 (P-256) or RS256 (RSA, 2048 bits or more). Tokens of this `kid`
    that name another are refused."""
    key: Secret = ""
    """The secret itself (HS256, 32 bytes or more) or the public key in PEM; give this or `file`."""
    file: str = ""
    """A file that holds it; a newline at its end does not count."""


class JwtSettings(Settings, frozen=True):
    """Whose tokens are accepted (protocol section 7). Without keys the node makes a development key of its own."""

    keys: dict[KeyId, KeySettings] = msgspec.field(default_factory=dict)
    """Keys by `kid`. To rotate: add the new key, let the issuer change over, remove the old one when its last token has
    expired. With one key, tokens need no `kid`."""
    issuer: str = ""
    """If set, tokens must carry exactly this `iss`."""
    audience: str = ""
    """If set, tokens must carry this `aud`, alone or in their list. If not, tokens made for some other audience are
    refused."""
    clock_skew: Annotated[float, Meta(ge=0, le=300)] = 0.0
    """Seconds that an issuer's clock may be ahead of ours, for `nbf` only: `exp` is kept to the second."""


class BusSettings(Settings, frozen=True):
    """Bounds of the bus inside the process; over them publishing says no and clients are told 4402."""

    max_messages: Count = 65_536
    """Payloads that may wait."""
    max_bytes: Count = 67_108_864
    """Bytes of payloads that may wait together."""
    max_payload: Count = 1_048_576
    """Largest single payload in bytes; a NATS server takes the same by default."""
