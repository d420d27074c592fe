"""A UDP path that loses, delays, reorders and repeats datagrams, between any clients and one server."""

from __future__ import annotations

import math
import random

import msgspec
import trio


class Weather(msgspec.Struct, frozen=True):
    """What happens to each datagram, in either direction. Parts of one, and seconds."""

    loss: float = 0.05
    repeated: float = 0.02
    late: float = 0.05
    """Those that come `lateness` after their time, behind others."""
    lateness: float = 0.005
    delay: float = 0.025
    """One way: half of a round trip."""


class LossyPath:
    """Clients connect to `port`; each has a socket of its own towards the server, as behind a NAT."""

    def __init__(self, target: tuple[str, int], weather: Weather, seed: int = 1) -> None:
        self._target = target
        self._weather = weather
        self._random = random.Random(seed)
        self._paths: dict[tuple[str, int], trio.socket.SocketType] = {}
        self.port = 0
        self.carried = self.lost = self.repeated = self.late = 0

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Carry until cancelled."""
        front = trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM)
        try:
            async with trio.open_nursery() as nursery:
                await front.bind(("127.0.0.1", 0))
                self.port = front.getsockname()[1]
                task_status.started()
                while True:
                    data, client = await front.recvfrom(65_536)
                    path = self._paths.get(client)
                    if path is None:
                        path = self._paths[client] = trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM)
                        await path.connect(self._target)
                        nursery.start_soon(self._back, nursery, path, front, client)
                    self._carry(nursery, data, path, None)
        finally:
            for each in (front, *self._paths.values()):
                each.close()

    async def _back(
        self,
        nursery: trio.Nursery,
        path: trio.socket.SocketType,
        front: trio.socket.SocketType,
        client: tuple[str, int],
    ) -> None:
        while True:
            try:
                data = await path.recv(65_536)
            except ConnectionRefusedError:
                continue
            self._carry(nursery, data, front, client)

    def _carry(
        self, nursery: trio.Nursery, data: bytes, path: trio.socket.SocketType, to: tuple[str, int] | None
    ) -> None:
        weather, chance = self._weather, self._random.random
        if chance() < weather.loss:
            self.lost += 1
            return
        again = chance() < weather.repeated
        self.repeated += again
        for _ in range(1 + again):
            delay = weather.delay
            if chance() < weather.late:
                self.late += 1
                delay += weather.lateness
            nursery.start_soon(self._send, data, path, to, delay)

    async def _send(self, data: bytes, path: trio.socket.SocketType, to: tuple[str, int] | None, delay: float) -> None:
        # to the millisecond: as many tasks that wake together keep their order no better than a network does
        await trio.sleep_until(math.ceil((trio.current_time() + delay) * 1000) / 1000)
        self.carried += 1
        try:
            if to is None:
                await path.send(data)
            else:
                await path.sendto(data, to)
        except OSError:
            pass
