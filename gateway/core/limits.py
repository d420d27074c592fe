"""Bounds on clients: rates, connections, errors. Sans-I/O: the caller brings the time."""

from __future__ import annotations

import ipaddress
from collections import Counter
from functools import lru_cache

from gateway._framing import TokenBucket
from gateway.core.settings import LimitSettings
from gateway.protocol.codes import Code

__all__ = ["Admission", "ErrorBudget", "TokenBucket", "address_block"]


class ErrorBudget:
    """So many errors a minute, then no more."""

    __slots__ = ("_count", "_since")

    def __init__(self) -> None:
        self._since = 0.0
        self._count = 0

    def spend(self, now: float, per_minute: int) -> bool:
        """Count one error; False when it is one too many within its minute."""
        if now - self._since >= 60.0:
            self._since, self._count = now, 0
        self._count += 1
        return self._count <= per_minute


@lru_cache(maxsize=4096)
def address_block(address: str) -> str:
    """What counts as one address: an IPv4 address, an IPv6 /64 (one subscriber has all of it)."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if parsed.version == 4:
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, 64), strict=False))


class Admission:
    """Whether one more connection may come in. Counts from accept until the connection's end."""

    def __init__(self, limits: LimitSettings) -> None:
        self._limits = limits
        self._per_address: Counter[str] = Counter()
        self.open = 0
        self.closed = False

    def admit(self, address: str) -> Code:
        """Ask before anything is spent on the connection; nothing is counted yet."""
        if self.closed:
            return Code.GOING_AWAY
        if self.open >= self._limits.max_connections:
            return Code.NODE_FULL
        if self._per_address.get(address_block(address), 0) >= self._limits.max_connections_per_address:
            return Code.TOO_MANY_CONNECTIONS
        return Code.OK

    def enter(self, address: str) -> None:
        """Count one in."""
        self.open += 1
        self._per_address[address_block(address)] += 1

    def leave(self, address: str) -> None:
        """Count one out."""
        block = address_block(address)
        self.open -= 1
        self._per_address[block] -= 1
        if not self._per_address[block]:
            del self._per_address[block]

    def statistics(self) -> dict[str, int]:
        """Sizes of what is kept."""
        return {"open": self.open, "addresses": len(self._per_address)}
