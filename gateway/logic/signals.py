"""Signals: to a user's connections or a group's, now or never. Nothing is stored and nothing is waited for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from gateway.logic.intake import Job
from gateway.logic.routing import Router
from gateway.logic.store import Store, StoreFailed
from gateway.protocol.messages import Signal, packet
from gateway.protocol.types import MsgType

LIFE: Final = 10_000
"""Milliseconds after which a node drops a Signal that is still on its way."""

Members = Mapping[int, frozenset[int]]


async def pass_signals(store: Store, router: Router, jobs: Sequence[Job[Signal]], now: int) -> None:
    """Send each to whom it is for; a group's only from its members."""
    groups = {job.work.group_id for job in jobs if job.work.group_id}
    try:
        members = await store.members(list(groups)) if groups else {}
    except StoreFailed:
        members = {}
    places = await router.locate(user for job in jobs for user in _targets(job, members))
    for job in jobs:
        targets = [user for user in _targets(job, members) if user in places]
        if targets:
            body = packet(job.work, timestamp=now)
            for user in targets:
                router.send_or_drop(user, MsgType.SIGNAL, body, places, job.origin.conn_id, now + LIFE)


def _targets(job: Job[Signal], members: Members) -> Sequence[int]:
    signal = job.work
    if not signal.group_id:
        return (signal.to_user,)
    group = members.get(signal.group_id, frozenset())
    return [user for user in group if user != signal.from_user] if signal.from_user in group else ()
