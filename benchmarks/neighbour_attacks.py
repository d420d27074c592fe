"""The attacks of `benchmarks/neighbour.py`, each by a process of its own.

    python -m benchmarks.neighbour_attacks NAME SECONDS JSON

JSON is an object with `tcp`, `websocket` and `quic` (ports) and `tokens`. Prints how often the attack did what it does.
"""

from __future__ import annotations

import json
import os
import ssl
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import trio
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection

from benchmarks.soak import UPGRADE
from benchmarks.websocket_load import masked
from benchmarks.wire import Wire
from examples.cluster import HOST
from gateway._framing import build_chat, encode_frame
from gateway.protocol.messages import AuthRequest, encode
from tests.framing.bombs import REFUSED

Broken = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)
PING = b"\x89\x80\x37\xfa\x21\x3d"


class Attack:
    """Where the node is, whose tokens are known, and how much has been done."""

    def __init__(self, told: dict[str, Any]) -> None:
        self.told = told
        self.tokens: list[str] = told["tokens"]
        self.done = 0

    async def open(self, name: str = "tcp") -> trio.SocketStream:
        return await trio.open_tcp_stream(HOST, self.told[name])

    async def many(self, count: int, one: Callable[[int], Awaitable[None]]) -> None:
        """So many side by side, each over and over."""

        async def again(number: int) -> None:
            while True:
                with suppress(*Broken):
                    await one(number)
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            for number in range(count):
                nursery.start_soon(again, number)

    # -- the attacks ---------------------------------------------------------------------------------------

    async def connects(self) -> None:
        """Connections that are opened and dropped."""

        async def one(number: int) -> None:
            async with await self.open():
                self.done += 1

        await self.many(10, one)

    async def silent(self) -> None:
        """A thousand connections that say nothing, opened anew when they are closed."""

        async def one(number: int) -> None:
            async with await self.open() as stream:
                self.done += 1
                await stream.receive_some(1)
                await stream.receive_some(1000)

        await self.many(1000, one)

    async def slow_upgrades(self) -> None:
        """Five hundred WebSocket upgrades at a byte every tenth of a second."""

        async def one(number: int) -> None:
            async with await self.open("websocket") as stream:
                for byte in UPGRADE:
                    await stream.send_all(bytes([byte]))
                    self.done += 1
                    await trio.sleep(0.1)

        await self.many(500, one)

    async def logins(self) -> None:
        """Logins of one device, each displacing the one before."""

        async def one(number: int) -> None:
            async with await self.open() as stream:
                await Wire(stream).log_in(self.tokens[1])
                self.done += 1

        await self.many(10, one)

    async def bombs(self) -> None:
        """Frames of 64 KB that cost a verifier as much as can be; each ends its connection."""
        frames = [encode_frame(*make()) for make in REFUSED.values()]

        async def one(number: int) -> None:
            async with await self.open() as stream:
                await Wire(stream).log_in(self.tokens[2 + number])
                await stream.send_all(frames[self.done % len(frames)])
                self.done += 1
                await stream.receive_some(1000)

        await self.many(4, one)

    async def messages(self) -> None:
        """One user who sends 10,000 messages a second."""
        frame = build_chat(1, 1, "same", 0, 1, "x" * 50, 0, 1, 0, 0)

        async def one(number: int) -> None:
            async with await self.open() as stream:
                wire = Wire(stream)
                await wire.log_in(self.tokens[1])
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(wire.drop_all)
                    while True:
                        await stream.send_all(frame * 100)
                        self.done += 100
                        await trio.sleep(0.01)

        await self.many(1, one)

    async def pings(self) -> None:
        """WebSocket pings without end."""

        async def one(number: int) -> None:
            async with await self.open("websocket") as stream:
                await stream.send_all(UPGRADE)
                await stream.receive_some(1000)
                token = self.tokens[1 + number]
                auth = AuthRequest(token=token, device_id="phone", platform="bench")
                await stream.send_all(masked(encode(auth, seq=1)))
                while True:
                    await stream.send_all(PING * 200)
                    self.done += 200
                    await trio.lowlevel.checkpoint()

        await self.many(2, one)

    async def never_read(self) -> None:
        """A hundred devices of a user who is sent 8 KB fifty times a second, and read nothing."""

        async def deaf(number: int) -> None:
            async with await self.open() as stream:
                await Wire(stream).log_in(self.tokens[1], f"d{number}")
                await trio.sleep(5)

        async def one(number: int) -> None:
            if number:
                await deaf(number)
                return
            async with await self.open() as stream:
                wire = Wire(stream)
                await wire.log_in(self.tokens[2])
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(wire.drop_all)
                    while True:
                        name = f"n{time.monotonic_ns()}"
                        await stream.send_all(build_chat(1, 1, name, 0, 2, "x" * 8000, 0, 1, 0, 0))
                        self.done += 1
                        await trio.sleep(0.02)

        await self.many(101, one)

    async def junk_datagrams(self) -> None:
        """Datagrams to the UDP port that are no QUIC, five thousand a second."""
        sock = trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM)
        junk = [os.urandom(1200) for _ in range(50)]
        while True:
            for each in junk:
                await sock.sendto(each, (HOST, self.told["quic"]))
            self.done += len(junk)
            await trio.sleep(0.01)

    async def handshakes(self) -> None:
        """First packets of QUIC connections that never go on."""
        configuration = QuicConfiguration(is_client=True, alpn_protocols=["im-access"], verify_mode=ssl.CERT_NONE)
        configuration.server_name = "localhost"
        sock = trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM)
        while True:
            connection = QuicConnection(configuration=configuration)
            connection.connect((HOST, self.told["quic"]), now=time.time())
            for data, _ in connection.datagrams_to_send(now=time.time()):
                await sock.sendto(data, (HOST, self.told["quic"]))
            self.done += 1
            await trio.lowlevel.checkpoint()


NAMES = (
    "connects", "silent", "slow_upgrades", "logins", "bombs", "messages", "pings", "never_read", "junk_datagrams",
    "handshakes",
)  # fmt: skip


async def run(attack: Attack, name: str, seconds: float) -> None:
    """For so long."""
    with trio.move_on_after(seconds):
        await getattr(attack, name)()


def main(name: str, seconds: str, told: str) -> None:
    """One attack."""
    os.setpriority(os.PRIO_PROCESS, 0, 5)
    attack = Attack(json.loads(told))
    trio.run(run, attack, name, float(seconds))
    print(json.dumps({"done": attack.done}))


if __name__ == "__main__":
    main(*sys.argv[1:])
