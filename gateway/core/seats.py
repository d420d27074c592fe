"""What the stores know of this node's connections: their locations and sessions, entered, renewed, entered anew after
an outage, given back. Whose connection it is, is decided elsewhere.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import trio

from gateway.core.connection import Connection
from gateway.core.ports import (
    AuthRefused,
    Location,
    LocationStore,
    SessionRecord,
    SessionStore,
    StoreUnavailable,
)
from gateway.core.session import Session
from gateway.protocol.codes import Code

if TYPE_CHECKING:
    from gateway.core.hub import Hub

log = logging.getLogger("gateway.hub")

RENEWAL = 30.0
"""Seconds, or up to a fifth less, between two renewals of everything; its TTL is 120."""
BATCH = 2_000
"""Locations asked for together: few round trips, and yet done in time."""
RECORDS = 500
"""Session records written together."""
AGAIN = 1.0
"""Seconds until what could not be renewed is tried again; then twice as long each time, up to RENEWAL."""
RELEASE_TIMEOUT = 3.0


class Seats:
    """The locations and sessions of one hub's connections."""

    def __init__(self, hub: Hub, locations: LocationStore, sessions: SessionStore | None) -> None:
        self._hub = hub
        self._locations = locations
        self._sessions = sessions
        self._seats: dict[int, Location] = {}
        self._opened: dict[int, Connection] = {}
        """Whose session record has not been written yet."""
        self._news = trio.Event()

    def __len__(self) -> int:
        return len(self._seats)

    def reserve(self, location: Location) -> None:
        """Before a claim: from now on the connection's end releases it, whatever becomes of the claim."""
        self._seats[location.conn_id] = location

    def opened(self, connection: Connection) -> None:
        """A session has begun; its record is written behind the login's back, which does not wait for it."""
        if self._sessions is not None:
            self._opened[connection.id] = connection
            self._news.set()

    async def left(self, connection: Connection) -> None:
        """A connection has ended: give back what it had, also while being cancelled. Failing that it runs out."""
        self._opened.pop(connection.id, None)
        location = self._seats.pop(connection.id, None)
        if location is None:
            return
        await self.release(location)
        if connection.session is not None and self._sessions is not None:
            record = self._record(connection, connection.session, location)
            with trio.CancelScope(shield=True, deadline=trio.current_time() + RELEASE_TIMEOUT):
                try:
                    await self._sessions.remove([record])
                except Exception as error:
                    log.warning("session_not_removed", extra={"conn": connection.id, "error": repr(error)})

    async def claim(self, location: Location) -> None:
        """Enter a location and close whom it displaces, here and elsewhere.

        Raises:
            AuthRefused: a newer login of the same kind was faster.
            StoreUnavailable: the store could not be asked.
        """
        try:
            displaced = await self._locations.claim(location, self._hub.login.policy)
        except StoreUnavailable:
            if not self._hub.login.admit_without_store:
                raise
            displaced = self._rivals_here(location)
        self._displace(location, displaced)

    async def release(self, location: Location) -> None:
        """Give a location back, also while being cancelled; failing that it runs out by itself."""
        with trio.CancelScope(shield=True, deadline=trio.current_time() + RELEASE_TIMEOUT):
            try:
                await self._locations.release(location)
            except Exception as error:
                log.warning("release_failed", extra={"conn": location.conn_id, "error": repr(error)})

    async def run(self) -> None:
        """Renew, and write what is new, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep)
            if self._sessions is not None:
                nursery.start_soon(self._write_new, self._sessions)

    # -- claims --------------------------------------------------------------------------------------------

    def _displace(self, location: Location, displaced: Sequence[Location] | None) -> None:
        if displaced is None:
            raise AuthRefused(Code.REPLACED_BY_SAME_DEVICE, "a newer login has taken this place")
        for older in displaced:
            same = older.device_id == location.device_id
            code = Code.REPLACED_BY_SAME_DEVICE if same else Code.KICKED_BY_POLICY
            self._hub.delivery.displace(older, code)

    def _rivals_here(self, location: Location) -> list[Location] | None:
        """What a claim would answer if the store knew of this node only; it is made up for by the next renewal."""
        seats = (self._seats.get(each.id) for each in self._hub.registry.of_user(location.user_id))
        rivals = [
            seat
            for seat in seats
            if seat is not None and seat is not location and self._hub.login.policy.displaces(seat, location)
        ]
        return None if any(each.conn_id > location.conn_id for each in rivals) else rivals

    # -- upkeep --------------------------------------------------------------------------------------------

    async def _keep(self) -> None:
        failed: list[Location] = []
        due = self._hub.now()
        again = AGAIN
        while True:
            now = self._hub.now()
            if now >= due:
                due = now + RENEWAL * random.uniform(0.8, 1.0)  # nodes that started together drift apart
            recovered = False
            with trio.move_on_at(min(due, now + again) if failed else due):
                await self._locations.wait_recovered()
                recovered = True
            everything = recovered or self._hub.now() >= due
            again = AGAIN if everything else min(2 * again, RENEWAL)
            seats = self._seats.values() if everything else failed
            failed = await self._renew_all(self._present(seats), ask=not recovered and everything)
            if self._sessions is not None and everything:
                for batch in _batches(self._present(self._seats.values()), RECORDS):
                    await self._put(self._sessions, [self._seated(each.conn_id) for each in batch])

    async def _renew_all(self, seats: Sequence[Location], *, ask: bool) -> list[Location]:
        """Renew these; with `ask`, enter anew only those that turn out to be lost. Returns those that failed."""
        failed: list[Location] = []
        reason = ""
        for batch in _batches(seats, BATCH):
            try:
                with trio.fail_after(RENEWAL):
                    lost = await self._locations.renew(batch) if ask else batch
                    errors = await self._reclaim(self._present(lost))
            except Exception as error:
                errors = [(each, repr(error)) for each in batch]
            failed += [location for location, _ in errors]
            reason = errors[-1][1] if errors else reason
        if failed:
            log.warning("renewal_failed", extra={"locations": len(failed), "error": reason})
        return failed

    async def _reclaim(self, lost: Sequence[Location]) -> list[tuple[Location, str]]:
        """Locations of seated connections that are not ours any more: enter them again, or give way to newer ones."""
        if not lost:
            return []
        failed: list[tuple[Location, str]] = []
        outcomes = await self._locations.reclaim(lost, self._hub.login.policy)
        for location, outcome in zip(lost, outcomes, strict=True):
            connection = self._hub.registry.connection(location.conn_id)
            if isinstance(outcome, StoreUnavailable):
                failed.append((location, str(outcome)))
                continue
            try:
                self._displace(location, outcome)
            except AuthRefused as refused:
                if connection is not None:
                    connection.close(refused.code, refused.message)
            if location.conn_id not in self._seats:  # it ended meanwhile, maybe before the claim
                await self.release(location)
        return failed

    def _present(self, locations: Iterable[Location]) -> list[Location]:
        return [each for each in locations if self._seated(each.conn_id) is not None]

    def _seated(self, conn_id: int) -> Connection | None:
        """The connection, unless it is about to end."""
        connection = self._hub.registry.connection(conn_id)
        if connection is None or connection.session is None or connection.closing:
            return None
        return connection

    # -- sessions ------------------------------------------------------------------------------------------

    async def _write_new(self, sessions: SessionStore) -> None:
        while True:
            await self._news.wait()
            self._news = trio.Event()
            opened, self._opened = self._opened, {}
            await self._put(sessions, list(opened.values()))

    async def _put(self, sessions: SessionStore, connections: Sequence[Connection | None]) -> None:
        """Write records as they are now; what fails is made up for by the next renewal."""
        records = []
        for connection in connections:
            location = self._seats.get(connection.id) if connection is not None else None
            if connection is not None and connection.session is not None and location is not None:
                records.append(self._record(connection, connection.session, location))
        if not records:
            return
        try:
            with trio.fail_after(RENEWAL):
                await sessions.put(records)
        except Exception as error:
            log.warning("sessions_not_written", extra={"sessions": len(records), "error": repr(error)})

    def _record(self, connection: Connection, session: Session, location: Location) -> SessionRecord:
        now, wall = self._hub.now(), self._hub.wall_ms() / 1000
        return SessionRecord(
            session_id=session.id,
            user_id=session.user_id,
            device_id=session.device_id,
            platform=session.platform,
            access_node=location.access_node,
            conn_id=location.conn_id,
            boot_id=location.boot_id,
            login_time=session.login_time,
            last_active=int(wall - (now - connection.seen)),
            expires_at=int(wall + session.expires - now),
            address=location.address,
            transport=location.transport,
            region=location.region,
        )


def _batches(locations: Sequence[Location], size: int) -> Iterator[Sequence[Location]]:
    return (locations[start : start + size] for start in range(0, len(locations), size))
