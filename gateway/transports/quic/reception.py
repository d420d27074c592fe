"""What becomes of a datagram that belongs to no connection: an answer, silence, or a connection begins.

Nothing is spent on a stranger before it must be. An unknown version, an unknown connection, too many unfinished
handshakes and a full node are answered without keeping anything, or not at all. No connection lives here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from aioquic.quic.packet import QuicErrorCode, encode_quic_retry

from gateway.core.limits import TokenBucket, address_block
from gateway.protocol.codes import Code
from gateway.transports.quic.addresses import address_text
from gateway.transports.quic.connection_ids import ConnectionIds
from gateway.transports.quic.retry import RetryTokens
from gateway.transports.quic.stateless import (
    INITIAL_LEAST,
    VERSIONS,
    LongHeader,
    read_long_header,
    refusal,
    stateless_reset,
    version_negotiation,
)
from gateway.transports.quic.statistics import Counts, Drop
from gateway.transports.settings_quic import QuicSettings

ANSWERS: Final = 200.0
"""Stateless resets, refusals and versions told per second, to all strangers together; the rest meet silence."""
CHOSEN_LEAST: Final = 8
"""Bytes of the connection id that a client chooses for us (RFC 9000 section 7.2)."""


@dataclass(frozen=True, slots=True)
class Newcomer:
    """An Initial with which a connection may begin."""

    address: str
    destination: bytes
    """The connection id that the client uses until it hears ours."""
    original: bytes
    """The one of its very first packet; the same, unless it came back from a Retry."""
    retried: bytes | None
    """The one that our Retry gave it; None: its address is not proven yet."""


class Reception:
    """Decides, counts unfinished handshakes, and answers."""

    def __init__(
        self,
        settings: QuicSettings,
        secret: bytes,
        ids: ConnectionIds,
        *,
        workers: int,
        admit: Callable[[str], Code],
        send: Callable[[bytes, bytes], None],
        counts: Counts,
    ) -> None:
        self.closed = False
        """Whether nobody more is let in."""
        self._settings = settings
        self._ids = ids
        self._workers = workers
        self._admit = admit
        self._send = send
        self._counts = counts
        self._tokens = RetryTokens(secret)
        self._half_open = 0
        self._per_address: Counter[str] = Counter()
        self._answers: TokenBucket | None = None

    # -- unfinished handshakes -------------------------------------------------------------------------------

    @property
    def half_open(self) -> int:
        """Unfinished handshakes."""
        return self._half_open

    def enter(self, address: str) -> None:
        """One more has begun."""
        self._half_open += 1
        self._per_address[address_block(address)] += 1

    def leave(self, address: str) -> None:
        """One has finished, or ended."""
        block = address_block(address)
        self._half_open -= 1
        self._per_address[block] -= 1
        if not self._per_address[block]:
            del self._per_address[block]

    # -- strangers -------------------------------------------------------------------------------------------

    def judge(self, data: bytes, address: bytes, now: float) -> Newcomer | None:
        """A datagram of no connection: answer it, or say who it is that a connection may begin with."""
        outcome = self._long(data, address, now) if data and data[0] & 0x80 else self._short(data, address, now)
        if isinstance(outcome, Drop):
            self._counts.dropped[outcome] += 1
            return None
        return outcome

    def _may_answer(self, now: float) -> bool:
        if self._answers is None:
            self._answers = TokenBucket(ANSWERS, ANSWERS, now)
        if self._answers.wait(now) > 0:
            return False
        self._answers.spend(now)
        return True

    def _short(self, data: bytes, address: bytes, now: float) -> Drop:
        """Of a connection that a restart has forgotten, that never was, or that somebody else has."""
        cid = data[1 : 1 + self._ids.length]
        if not data or not data[0] & 0x40 or len(cid) < self._ids.length:
            return Drop.MALFORMED
        if not self._ids.is_ours(cid, self._workers):
            return Drop.OTHER_WORKER
        reset = stateless_reset(len(data), self._ids.reset_token(cid))
        if reset is not None and self._may_answer(now):
            self._counts.resets += 1
            self._send(reset, address)
        return Drop.UNKNOWN_CONNECTION

    def _long(self, data: bytes, address: bytes, now: float) -> Drop | Newcomer | None:
        header = read_long_header(data)
        if header is None:
            return Drop.MALFORMED
        if len(data) < INITIAL_LEAST:  # an answer to less could be made to amplify; first packets have as much
            return Drop.TOO_SMALL
        if header.version not in VERSIONS:
            return self._negotiate(header, address, now)
        if not header.initial:
            return Drop.NOT_INITIAL
        if len(header.destination) < CHOSEN_LEAST:
            return Drop.MALFORMED
        return self._initial(header, address, now)

    def _negotiate(self, header: LongHeader, address: bytes, now: float) -> Drop | None:
        if header.version == 0:  # one of these in answer to one of these would go on for ever
            return Drop.MALFORMED
        if self._may_answer(now):
            self._counts.version_negotiations += 1
            self._send(version_negotiation(header), address)
        return None

    def _initial(self, header: LongHeader, address: bytes, now: float) -> Drop | Newcomer | None:
        host = address_text(address)
        if self.closed or self._admit(host) is not Code.OK:
            self._refuse(header, address, QuicErrorCode.CONNECTION_REFUSED, now)
            return Drop.REFUSED
        original, retried = header.destination, None
        if header.token and self._ids.is_ours(header.destination):
            # Only a Retry of ours makes a client use an id of ours in an Initial. Any other token is of a time or a
            # server that handed them out for later: it proves nothing, and is no offence (RFC 9000 section 8.1.3).
            redeemed = self._tokens.redeem(header.token, address, header.destination, now)
            if redeemed is None:
                self._refuse(header, address, QuicErrorCode.INVALID_TOKEN, now)
                return Drop.INVALID_TOKEN
            original, retried = redeemed, header.destination
        settings = self._settings
        if self._half_open >= settings.max_half_open:
            return Drop.TOO_MANY_HALF_OPEN
        if retried is None and self._half_open >= settings.retry_threshold:
            self._retry(header, address, now)
            return None
        if self._per_address[address_block(host)] >= settings.max_half_open_per_address:
            return Drop.TOO_MANY_HALF_OPEN
        return Newcomer(host, header.destination, original, retried)

    def _refuse(self, header: LongHeader, address: bytes, error: QuicErrorCode, now: float) -> None:
        if self._may_answer(now):
            self._counts.refusals += 1
            self._send(refusal(header, error), address)

    def _retry(self, header: LongHeader, address: bytes, now: float) -> None:
        retried = self._ids.issue()
        token = self._tokens.issue(address, header.destination, retried, now)
        packet = encode_quic_retry(header.version, retried, header.source, header.destination, token)
        self._counts.retries += 1
        self._send(packet, address)
