"""What all connections of a node share, and the life of each from accept to release."""

from __future__ import annotations

import logging
import time

import msgspec
import trio

from gateway._framing import ChatFrame, Frame, Sender, SharedFrame
from gateway.core import dispatcher, early
from gateway.core.bindings import MOST, Bindings
from gateway.core.clock import run_clock
from gateway.core.connection import Connection
from gateway.core.delivery import Delivery
from gateway.core.events import Events
from gateway.core.file_store import FileStore
from gateway.core.files import Files
from gateway.core.flusher import Flusher
from gateway.core.ids import ConnectionIds, secret_id
from gateway.core.lanes import LanedConnection
from gateway.core.limits import Admission
from gateway.core.link import Link, has_lanes
from gateway.core.login import log_in
from gateway.core.metrics import Metrics
from gateway.core.ports import (
    Authenticator,
    Bus,
    Dedup,
    LocationStore,
    NodeRecord,
    SessionStore,
)
from gateway.core.refusal import turn_away
from gateway.core.registry import Registry
from gateway.core.seats import Seats
from gateway.core.session import Session
from gateway.core.settings import DrainSettings, HeartbeatSettings, LimitSettings, LoginSettings
from gateway.core.settings_files import FileSettings
from gateway.core.uplink import DurableUplink
from gateway.protocol.codes import Code
from gateway.protocol.messages import GoAway, encode
from gateway.protocol.subjects import Subjects

log = logging.getLogger("gateway.hub")

LEAVING = "this node is leaving"
LAST_CALL = 3.0
"""Seconds after the told reconnect time in which a draining node still waits for clients to leave by themselves."""


class HubSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The core's part of the configuration."""

    node_id: str
    region: str = ""
    prefix: str = "im"
    durable: bool = False
    """Whether Messages go up through a stream; the bus is a DurableBus then."""
    limits: LimitSettings = LimitSettings()
    heartbeat: HeartbeatSettings = HeartbeatSettings()
    login: LoginSettings = LoginSettings()
    drain: DrainSettings = DrainSettings()
    files: FileSettings = FileSettings()
    bindings: int = MOST
    """TLS tickets that may stand for a session at once; one that the TLS side has forgotten stands for nothing."""


class Hub:
    """Ports, settings, tables, registry and counts of one node. `serve` runs one connection, `run` the rest."""

    def __init__(
        self,
        settings: HubSettings,
        *,
        bus: Bus,
        locations: LocationStore,
        authenticator: Authenticator,
        sessions: SessionStore | None = None,
        dedup: Dedup | None = None,
        file_store: FileStore | None = None,
    ) -> None:
        self.node_id = settings.node_id
        self.region = settings.region
        self.boot_id = secret_id()
        self.limits = settings.limits
        self.heartbeat = settings.heartbeat
        self.login = settings.login
        self.bus = bus
        self.locations = locations
        self.sessions = sessions
        self.seats = Seats(self, locations, sessions)
        self.authenticator = authenticator
        self.questions = trio.CapacityLimiter(settings.login.max_questions)
        """Who asks the authenticator: so many at a time."""
        self.subjects = Subjects(settings.prefix)
        self.upstream = self.subjects.upstream
        self.registry = Registry()
        self.metrics = Metrics()
        self.admission = Admission(settings.limits)
        self.now = run_clock()
        """Monotonic seconds, as trio.current_time gives them."""
        self.flusher = Flusher(self.now, self.metrics.latency)
        self.greeting = dispatcher.greeting_table()
        self.uplink = DurableUplink(self, bus) if settings.durable else None
        self.seated = dispatcher.seated_table(self)
        self.datagrams = dispatcher.datagram_table()
        self.early_bound = early.bound_table()
        self.early_unbound = early.unbound_table()
        self.bindings = Bindings(settings.bindings)
        self.dedup = dedup
        """Without one, a Message that comes early is answered with 4402."""
        self.files: Files | None = None
        """What clients send and fetch; without a store for them, streams are refused and their frames are unknown."""
        if file_store is not None:
            self.files = Files(self, file_store, settings.files)
            self.files.register(self.seated)
        self.delivery = Delivery(self)
        self.events = Events(self)
        self._drain = settings.drain
        self._ids = ConnectionIds()
        self._emptied = trio.Event()

    @staticmethod
    def wall_ms() -> int:
        """Unix milliseconds, for what is told to people; never for a deadline."""
        return time.time_ns() // 1_000_000

    @property
    def draining(self) -> bool:
        """Whether the node takes no new connections because it is leaving."""
        return self.admission.closed

    # -- one connection ------------------------------------------------------------------------------------

    async def serve(self, link: Link) -> None:
        """Run one connection's whole life. Never raises but trio.Cancelled; the link is aborted after it."""
        refusal = self.admission.admit(link.address)
        if refusal is not Code.OK:
            await turn_away(link, refusal)
            return
        self.admission.enter(link.address)
        # what a link has used up before (a proxy's header) counts against its time to come up
        conn_id, now = self._ids.issue(), trio.current_time() - getattr(link, "spent", 0.0)
        connection = (
            LanedConnection(self, link, conn_id, now) if has_lanes(link) else Connection(self, link, conn_id, now)
        )
        self.registry.enter(connection)
        self.metrics.accepted += 1
        self.metrics.connections += 1
        try:
            await connection.run()
        finally:
            self.registry.leave(connection)
            if self.files is not None:
                self.files.gone(connection)
            self.metrics.connections -= 1
            self.metrics.frames += connection.frames
            self.metrics.closed[connection.code] += 1
            self.admission.leave(connection.address)
            if not self.admission.open:
                self._emptied.set()
            if connection.session is not None:
                self.metrics.sessions -= 1
                self.events.ended(connection, connection.session)
            await self.seats.left(connection)

    def arrived(self, connection: Connection) -> None:
        """A link is up: what a proxy said of the client's address counts from now on."""
        address = connection.link.address
        if address == connection.address:
            return
        self.admission.leave(connection.address)
        refusal = self.admission.admit(address)
        self.admission.enter(address)
        connection.address = address
        if refusal is not Code.OK:
            connection.close(refusal, refusal.label)

    async def handle_waiting(self, connection: Connection, frame: Frame) -> None:
        """What the reader task does with a held frame: an Auth, or a Message that came early."""
        if isinstance(connection, LanedConnection) and isinstance(frame, ChatFrame):
            await early.relay(self, connection, frame)
        else:
            await log_in(self, connection, frame)

    def seat(self, connection: Connection, session: Session) -> None:
        """Bind an authenticated session to its connection."""
        connection.session = session
        connection.sender = Sender(connection.id, session.user_id, session.device_id, session.platform, session.bucket)
        self.registry.seat(connection, session.user_id)
        self.metrics.sessions += 1
        connection.rearm()
        self.seats.opened(connection)
        self.events.online(connection, session)

    # -- the node's life -----------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Subscribe, deliver, flush and renew until cancelled."""
        subscriptions = [
            self.bus.subscribe(self.subjects.downstream(self.node_id), self.delivery.receive),
            self.bus.subscribe(self.subjects.broadcast, self.delivery.receive),
            self.bus.subscribe(self.subjects.user_events, self.events.receive),
        ]
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.flusher.run)
                nursery.start_soon(self.seats.run)
                if self.files is not None:
                    await nursery.start(self.files.run)
                task_status.started()
        finally:
            for subscription in subscriptions:
                subscription.close()

    def record(self) -> NodeRecord:
        """What this node says of itself to the others."""
        return NodeRecord(
            node_id=self.node_id,
            boot_id=self.boot_id,
            region=self.region,
            connections=self.metrics.connections,
            capacity=self.limits.max_connections,
            state="draining" if self.draining else "serving",
        )

    async def part(self) -> None:
        """Admit nobody, tell everybody to reconnect elsewhere, and wait for them as long as they were told to take."""
        self.admission.closed = True
        drain = self._drain
        notice = GoAway(
            code=Code.GOING_AWAY,
            message=LEAVING,
            reconnect_after_ms=int(drain.reconnect_after * 1000),
            jitter_ms=int(drain.jitter * 1000),
        )
        frame = encode(notice, timestamp=self.wall_ms())
        for connection in self.registry:
            if connection.session is not None:
                self.delivery.push([connection], SharedFrame(frame))
            else:
                connection.close(Code.GOING_AWAY, LEAVING)
        with trio.move_on_after(min(drain.timeout, drain.reconnect_after + drain.jitter + LAST_CALL)):
            await self._gone()

    async def close_rest(self) -> None:
        """Close whoever did not leave by themselves; each is told why."""
        for connection in self.registry:
            connection.close(Code.GOING_AWAY, LEAVING)
        with trio.move_on_after(LAST_CALL):
            await self._gone()

    async def _gone(self) -> None:
        while self.admission.open:
            self._emptied = trio.Event()
            await self._emptied.wait()

    def statistics(self) -> dict[str, int]:
        """Sizes of what is kept; all of them return to where they were when clients leave."""
        return {
            "connections": len(self.registry),
            "users": self.registry.users(),
            "seats": len(self.seats),
            **self.admission.statistics(),
        }
