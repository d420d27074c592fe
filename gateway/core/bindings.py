"""Which session a TLS ticket stands for: what gives early data its right (protocol section 4). Sans-I/O."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from gateway.core.ids import secret_id
from gateway.core.session import Session

MOST = 100_000
"""Bindings kept; past it the oldest is forgotten, and its client is merely not heard early."""


class Binding(msgspec.Struct, frozen=True):
    """A session as a later connection may speak for it. `expires` is monotonic seconds: the token's end."""

    user_id: int
    device_id: str
    platform: str
    resume_ticket: str
    expires: float


class Bindings:
    """TLS tickets by name. Each is redeemed once."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._bindings: dict[str, Binding] = {}

    def __len__(self) -> int:
        return len(self._bindings)

    def bind(self, tickets: Iterable[str], session: Session) -> str:
        """Let these tickets stand for the session; the resume ticket that its client is told, empty without tickets."""
        names = tuple(tickets)
        if not names:
            return ""
        binding = Binding(session.user_id, session.device_id, session.platform, secret_id(), session.expires)
        for name in names:
            self._bindings[name] = binding
            if len(self._bindings) > self._most:
                del self._bindings[next(iter(self._bindings))]
        return binding.resume_ticket

    def redeem(self, ticket: str, now: float) -> Binding | None:
        """What a ticket stands for, once; None for one that is unknown, used or past its session's token."""
        binding = self._bindings.pop(ticket, None)
        return binding if binding is not None and now < binding.expires else None

    def forget(self, tickets: Iterable[str]) -> None:
        """These stand for nothing any more: their session was ended."""
        for name in tickets:
            self._bindings.pop(name, None)
