"""For a Logic of your own, in a process of its own: receive from clients, push to them, know who is where.

    async with open_backend(config) as backend, trio.open_nursery() as nursery:
        await nursery.start(backend.serve, on_message)

Beside a node: it speaks to nodes through the Bus and the LocationStore alone. docs/backend.md has the rest.
"""

from __future__ import annotations

from gateway.backend.backend import Backend as Backend
from gateway.backend.backend import open_backend as open_backend
from gateway.backend.presence import Presence as Presence
from gateway.core.ports import Location as Location
from gateway.core.ports import StoreUnavailable as StoreUnavailable
from gateway.logic.function import Arrival as Arrival
from gateway.logic.function import FunctionStatistics as FunctionStatistics
from gateway.logic.function import Incoming as Incoming
from gateway.logic.function import Rejected as Rejected
from gateway.logic.function import Stored as Stored
from gateway.protocol.envelopes import EventKind as EventKind
from gateway.protocol.envelopes import UserEvent as UserEvent
from gateway.protocol.messages import ChatMessage as ChatMessage
from gateway.protocol.messages import MessageAck as MessageAck
from gateway.protocol.messages import Signal as Signal
from gateway.protocol.messages import SyncRequest as SyncRequest
from gateway.protocol.messages import SyncResponse as SyncResponse

__all__ = [
    "Arrival",
    "Backend",
    "ChatMessage",
    "EventKind",
    "FunctionStatistics",
    "Incoming",
    "Location",
    "MessageAck",
    "Presence",
    "Rejected",
    "Signal",
    "StoreUnavailable",
    "Stored",
    "SyncRequest",
    "SyncResponse",
    "UserEvent",
    "open_backend",
]
