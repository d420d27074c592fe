"""The connection ids that we issue: whose they are can be read from them, and what they will be cannot be guessed.

Layout, 10 bytes:

    0      1         2..9
    | 0xE9 | worker  | nonce

and with a server id for load balancers, 18 bytes:

    0      1..8         9         10..17
    | 0x11 | server id  | worker  | nonce

The first byte is that of QUIC-LB (draft-ietf-quic-load-balancers): three bits say which configuration of the balancer
applies, five bits the length of what follows. Configuration 7 is the draft's word for "route by address": a balancer
that speaks QUIC-LB leaves the short layout alone. Configuration 0 is the long one, in plain text: 8 bytes of server
id (what most balancers take for an address and a port or a hash of a name), then the nonce, to which the worker's
number belongs as far as a balancer is concerned. Plain text because a balancer needs no key for it; who watches a
client migrate can link its paths to this server, which its address tells anyway.

The worker's number stands at a fixed offset, so that eight instructions of classic BPF in the kernel find it
(`steering`). The nonce is random: 64 bits, 8 of which an attacker off the path would have to guess right 2^61 times.
"""

from __future__ import annotations

import hashlib
import os
from typing import Final

SERVER_ID_LENGTH: Final = 8
NONCE_LENGTH: Final = 8
TOKEN_LENGTH: Final = 16
"""Bytes of a stateless reset token (RFC 9000 section 10.3)."""


class ConnectionIds:
    """Issues connection ids and the reset tokens that go with them; both follow from the key, none is remembered.

    Args:
        key: 32 secret bytes that outlive a restart, or nobody understands our resets after it.
        worker: number of this process among those that share the port, 0 to 255.
        server_id: 8 bytes that a load balancer routes by, or none.
    """

    def __init__(self, key: bytes, *, worker: int = 0, server_id: bytes = b"") -> None:
        if not 0 <= worker <= 255:
            raise ValueError(f"the worker's number must be 0 to 255, not {worker}")
        if len(server_id) not in {0, SERVER_ID_LENGTH}:
            raise ValueError(f"the server id must have {SERVER_ID_LENGTH} bytes or none, not {len(server_id)}")
        following = len(server_id) + 1 + NONCE_LENGTH
        configuration = 0 if server_id else 7
        self.length = 1 + following
        """Bytes of every connection id that this server issues: a short header does not say it."""
        self.worker = worker
        self.worker_offset = 1 + len(server_id)
        """Where the worker's number stands in a connection id."""
        self._front = bytes([configuration << 5 | following]) + server_id + bytes([worker])
        self._tokens = hashlib.blake2s(key=hashlib.sha256(b"stateless reset" + key).digest(), digest_size=TOKEN_LENGTH)

    def issue(self) -> bytes:
        """A connection id that was never issued before."""
        return self._front + os.urandom(NONCE_LENGTH)

    def is_ours(self, cid: bytes, workers: int = 0) -> bool:
        """Whether this server may have issued it; with `workers`, also whether the port's process would be this one."""
        at = self.worker_offset
        if len(cid) != self.length or cid[:at] != self._front[:at]:
            return False
        return not workers or cid[at] % workers == self.worker

    def reset_token(self, cid: bytes) -> bytes:
        """The stateless reset token of a connection id: the same after every restart."""
        token = self._tokens.copy()
        token.update(cid)
        return token.digest()
