"""What outlives a connection: deliveries, own messages, acknowledgements, notices and counts. Nothing waits here."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Final

from gateway._framing import build_heartbeat
from gateway.client.bell import Bell
from gateway.client.files import Files
from gateway.client.messages import State, StateChange
from gateway.client.notices import Notices
from gateway.client.outgoing import Acknowledgements, Outgoing
from gateway.client.settings import ClientSettings
from gateway.client.tickets import Early
from gateway.client.timeline import Timeline
from gateway.client.transport import IncomingStream

EARLY_BYTES: Final = 8_192
"""Bytes of messages that go out early: well within what a server takes from a stranger in its first round trip."""


def wall_ms() -> int:
    """Unix milliseconds: for what is told to people, never for a deadline."""
    return time.time_ns() // 1_000_000


class Journal:
    """Shared by the client's face and the connection of the moment."""

    def __init__(self, settings: ClientSettings, cursor: int, random: Callable[[], float]) -> None:
        self.settings = settings
        self.random = random
        self.timeline = Timeline(cursor, settings.buffered_deliveries)
        self.outgoing = Outgoing(settings.unacknowledged, settings.unacknowledged_bytes)
        self.acknowledgements = Acknowledgements()
        self.notices = Notices(settings.buffered_notices)
        self.delivered = Bell()
        """Rings when a delivery is ready."""
        self.settled = Bell()
        """Rings when an own message was answered for."""
        self.changed = Bell()
        """Rings when the state changes."""
        self.state = State.CONNECTING
        self.url = ""
        self.user_id = 0
        self.session_id = ""
        self.node_id = ""
        self.max_frame = 65_536
        """Largest body that the server takes, as it said at the last login."""
        self.logins = 0
        self.attempts = 0
        self.syncs = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.round_trip = 0.0
        self.files = Files()
        self.take_stream: Callable[[IncomingStream], Awaitable[None]] | None = self.files.take_stream
        """Who takes the ephemeral streams that the server opens, each in a task of its own; None: they are refused."""

    def early(self, user_id: int) -> Early:
        """What may go out before the handshake of the next link is complete, by a session of `user_id`: a heartbeat
        and the oldest messages that wait for the server. They are written again after login if it does not answer."""
        now_ms = wall_ms()
        heartbeat = build_heartbeat(1, now_ms)
        if not self.user_id or user_id != self.user_id:
            return Early(heartbeat, b"", 1)
        messages = self.outgoing.early(2, now_ms, EARLY_BYTES)
        return Early(heartbeat, b"".join(messages), 1 + len(messages))

    def enter(self, state: State, *, code: int = 0, reason: str = "", delay: float = 0.0) -> None:
        """Change the state and say so."""
        self.state = state
        self.notices.put(StateChange(state=state, url=self.url, code=code, reason=reason, delay=delay))
        self.changed.ring()
        self.files.ring()
