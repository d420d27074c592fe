"""What all connections of a node share, and the life of each from accept to release."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Sequence

import msgspec
import trio

from gateway._framing import ChatFrame, Frame, Sender, SharedFrame
from gateway.core import dispatcher, early
from gateway.core.bindings import Bindings
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
    AuthRefused,
    Bus,
    Dedup,
    Location,
    LocationStore,
    NodeRecord,
    StoreUnavailable,
)
from gateway.core.refusal import turn_away
from gateway.core.registry import Registry
from gateway.core.session import Session
from gateway.core.settings import DrainSettings, HeartbeatSettings, LimitSettings, LoginSettings
from gateway.core.settings_files import FileSettings
from gateway.core.uplink import DurableUplink
from gateway.protocol.codes import Code
from gateway.protocol.messages import GoAway, encode
from gateway.protocol.subjects import Subjects

log = logging.getLogger("gateway.hub")

LEAVING = "this node is leaving"
RENEWAL = 30.0
"""Seconds, or up to a fifth less, between two renewals of every location; their TTL is 120."""
RENEWAL_BATCH = 500
RELEASE_TIMEOUT = 3.0
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


class Hub:
    """Ports, settings, tables, registry and counts of one node. `serve` runs one connection, `run` the rest."""

    def __init__(
        self,
        settings: HubSettings,
        *,
        bus: Bus,
        locations: LocationStore,
        authenticator: Authenticator,
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
        self.authenticator = authenticator
        self.subjects = Subjects(settings.prefix)
        self.upstream = self.subjects.upstream
        self.registry = Registry()
        self.metrics = Metrics()
        self.admission = Admission(settings.limits)
        self.flusher = Flusher()
        self.greeting = dispatcher.greeting_table()
        self.uplink = DurableUplink(self, bus) if settings.durable else None
        self.seated = dispatcher.seated_table(self)
        self.datagrams = dispatcher.datagram_table()
        self.early_bound = early.bound_table()
        self.early_unbound = early.unbound_table()
        self.bindings = Bindings()
        self.dedup = dedup
        """Without one, a Message that comes early is answered with 4402."""
        self.files: Files | None = None
        """What clients send and fetch; without a store for them, streams are refused and their frames are unknown."""
        if file_store is not None:
            self.files = Files(self, file_store, settings.files)
            self.files.register(self.seated)
        self.delivery = Delivery(self)
        self.events = Events(self)
        self.now = run_clock()
        """Monotonic seconds, as trio.current_time gives them."""
        self._drain = settings.drain
        self._ids = ConnectionIds()
        self._seats: dict[int, Location] = {}
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
        conn_id, now = self._ids.issue(), trio.current_time()
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
            location = self._seats.pop(connection.id, None)
            if location is not None:
                await self.release(location)

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

    def reserve(self, location: Location) -> None:
        """Before a claim: from now on the connection's end releases it, whatever becomes of the claim."""
        self._seats[location.conn_id] = location

    def seat(self, connection: Connection, session: Session) -> None:
        """Bind an authenticated session to its connection."""
        connection.session = session
        connection.sender = Sender(connection.id, session.user_id, session.device_id, session.platform, session.bucket)
        self.registry.seat(connection, session.user_id)
        self.metrics.sessions += 1
        connection.rearm()
        self.events.online(connection, session)

    # -- locations -----------------------------------------------------------------------------------------

    async def claim(self, location: Location) -> None:
        """Enter a location and close whom it displaces, here and elsewhere.

        Raises:
            AuthRefused: a newer login of the same kind was faster.
            StoreUnavailable: the store could not be asked.
        """
        try:
            displaced = await self.locations.claim(location, self.login.policy)
        except StoreUnavailable:
            if not self.login.admit_without_store:
                raise
            displaced = self._rivals_here(location)
        if displaced is None:
            raise AuthRefused(Code.REPLACED_BY_SAME_DEVICE, "a newer login has taken this place")
        for older in displaced:
            same = older.device_id == location.device_id
            code = Code.REPLACED_BY_SAME_DEVICE if same else Code.KICKED_BY_POLICY
            self.delivery.displace(older, code)

    def _rivals_here(self, location: Location) -> list[Location] | None:
        """What a claim would answer if the store knew of this node only; it is made up for by the next renewal."""
        seats = (self._seats.get(each.id) for each in self.registry.of_user(location.user_id))
        rivals = [
            seat
            for seat in seats
            if seat is not None and seat is not location and self.login.policy.displaces(seat, location)
        ]
        return None if any(each.conn_id > location.conn_id for each in rivals) else rivals

    async def release(self, location: Location) -> None:
        """Give a location back, also while being cancelled; failing that it runs out by itself."""
        with trio.CancelScope(shield=True, deadline=trio.current_time() + RELEASE_TIMEOUT):
            try:
                await self.locations.release(location)
            except Exception as error:
                log.warning("release_failed", extra={"conn": location.conn_id, "error": repr(error)})

    async def _renew(self) -> None:
        while True:
            with trio.move_on_after(RENEWAL * random.uniform(0.8, 1.0)):  # nodes that started together drift apart
                await self.locations.wait_recovered()
            seats = [seat for conn_id, seat in self._seats.items() if self._is_seated(conn_id)]
            for start in range(0, len(seats), RENEWAL_BATCH):
                await self._renew_batch(seats[start : start + RENEWAL_BATCH])

    def _is_seated(self, conn_id: int) -> bool:
        connection = self.registry.connection(conn_id)
        return connection is not None and connection.session is not None

    async def _renew_batch(self, batch: Sequence[Location]) -> None:
        try:
            with trio.fail_after(RENEWAL):
                lost = await self.locations.renew(batch)
                async with trio.open_nursery() as nursery:  # at once: after an outage it is all of them
                    for each in lost:
                        nursery.start_soon(self._reclaim, each)
        except Exception as error:
            log.warning("renewal_failed", extra={"locations": len(batch), "error": repr(error)})

    async def _reclaim(self, location: Location) -> None:
        """A seated connection's location is not ours any more: enter it again, or give way to a newer one."""
        connection = self.registry.connection(location.conn_id)
        if connection is None or connection.closing:
            return
        try:
            await self.claim(location)
        except AuthRefused as refused:
            connection.close(refused.code, refused.message)
        except StoreUnavailable as error:
            log.warning("reclaim_failed", extra={"conn": location.conn_id, "error": repr(error)})
        if location.conn_id not in self._seats:  # it ended meanwhile, and its release may have come before the claim
            await self.release(location)

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
                nursery.start_soon(self._renew)
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
            "seats": len(self._seats),
            **self.admission.statistics(),
        }
