"""Who comes and goes, as told on the event subjects. Bounded: a slow reader loses events and is told how many."""

from __future__ import annotations

import logging

import trio

from gateway._framing import FrameError
from gateway.core.ports import Bus
from gateway.protocol.envelopes import UserEvent
from gateway.protocol.subjects import Subjects

log = logging.getLogger("gateway.backend")


class Presence:
    """User events of one user, or of all: `async for event in presence`. Made by `Backend.presence`.

    A hint and no ledger: an event may be lost with a node or an outage. Who is there now, `Backend.lookup` says.
    """

    def __init__(self, bus: Bus, subjects: Subjects, user_id: int | None, bound: int) -> None:
        self._subjects = subjects
        self._send, self._receive = trio.open_memory_channel[UserEvent](bound)
        subject = subjects.user_events if user_id is None else subjects.user_event(user_id)
        self._subscription = bus.subscribe(subject, self._heard)
        self.lost = 0
        """Events that found no room."""
        self.malformed = 0

    def __aiter__(self) -> Presence:
        return self

    async def __anext__(self) -> UserEvent:
        """The next event. Ends once closed and read."""
        try:
            return await self._receive.receive()
        except trio.EndOfChannel:
            raise StopAsyncIteration from None

    def close(self) -> None:
        """Hear no more; what was heard can still be read. Idempotent."""
        self._subscription.close()
        self._send.close()

    def _heard(self, subject: str, payload: bytes) -> None:
        try:
            user_id = self._subjects.user_of(subject)
            event = UserEvent.decode(payload)
            if event.user_id != user_id:
                raise ValueError("an event on the subject of another user")
            self._send.send_nowait(event)
        except trio.WouldBlock:
            self.lost += 1
        except (FrameError, ValueError) as error:
            self.malformed += 1
            log.warning("malformed_event", extra={"subject": subject[:80], "error": str(error)})
