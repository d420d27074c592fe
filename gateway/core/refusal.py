"""Turning a link away before it becomes a Connection: it is told why, within a second."""

from __future__ import annotations

import time

import trio

from gateway._framing import build_error, join_frames
from gateway.core.link import IncomingStream, Link, LinkClosed, StreamSink
from gateway.protocol.codes import Code

PATIENCE = 1.0
"""Seconds that one refused link may take."""


class _Deaf:
    """A Receiver, also of a link with lanes, that wants to know nothing."""

    def feed(self, lane: int, data: bytes) -> None:
        """Ignore."""

    def close(self, code: int, reason: str = "") -> None:
        """Ignore."""

    def lost(self, reason: str = "") -> None:
        """Ignore."""

    def lane_opened(self, lane: int) -> None:
        """Ignore."""

    def lane_closed(self, lane: int) -> None:
        """Ignore."""

    def writable(self, lane: int) -> None:
        """Ignore."""

    def datagram(self, data: bytes) -> None:
        """Ignore."""

    def confirmed(self) -> None:
        """Ignore."""

    def incoming(self, stream: IncomingStream) -> StreamSink | None:
        """Refuse."""
        return None


def refusal_frame(code: int) -> bytes:
    """The Error frame that tells `code` to whoever has no session."""
    return build_error(0, time.time_ns() // 1_000_000, code, Code(code).label)


async def turn_away(link: Link, code: Code) -> None:
    """Say `code` and abort the link. Raises nothing but trio.Cancelled."""
    try:
        link.attach(_Deaf())
        with trio.move_on_after(PATIENCE):
            await link.open()
            data, _ = join_frames([refusal_frame(code)], 0, link.prefix)
            if not link.send(data):
                await link.flush()
            await link.say_goodbye(code, code.label)
    except LinkClosed:
        pass
    finally:
        link.abort()
