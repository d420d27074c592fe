"""A delivery that came to a node its user had left: where else it belongs. Once, and only for messages.

Used by the reference Logic and by Logics made of functions. What goes nowhere here is left to the client's Sync.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from gateway._framing import parse_downstream
from gateway.core.ports import Location
from gateway.protocol.envelopes import Undelivered
from gateway.protocol.types import Action, MsgType


class Again(msgspec.Struct, frozen=True, gc=False):
    """To be sent to those connections of a user that are newer than `conn_id`, which it was for."""

    user_id: int
    conn_id: int
    packet: bytes
    size: int
    """Bytes of the report that it came in."""


def again(report: bytes) -> Again | None:
    """What an Undelivered asks for; None when it is about nothing that is sent twice.

    What is sent again names newer connections than before, so a report about that leads to newer ones still: with
    nobody logging in anew it ends.

    Raises:
        gateway._framing.FrameError: it is no Undelivered.
    """
    down = parse_downstream(Undelivered.decode(report).downstream)
    if down.action == Action.DELIVER and down.msg_type == MsgType.MESSAGE and down.user_id > 0 and down.conn_ids:
        return Again(down.user_id, max(down.conn_ids), down.packet, len(report))
    return None


def newer(each: Again, places: Iterable[Location]) -> list[Location]:
    """Those of a user's places that the delivery has not been to."""
    return [place for place in places if place.conn_id > each.conn_id]
