"""A wake-up for any number of waiting tasks, usable again and again."""

from __future__ import annotations

import trio


class Bell:
    """Whoever waits looks again at the state it waits for; a ring that nobody waits for is forgotten."""

    __slots__ = ("_lot",)

    def __init__(self) -> None:
        self._lot = trio.lowlevel.ParkingLot()

    def ring(self) -> None:
        """Wake all who wait."""
        self._lot.unpark_all()

    async def wait(self) -> None:
        """Return after the next ring."""
        await self._lot.park()
