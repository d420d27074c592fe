"""What every peer does, over whatever stack it stands on. Nothing of the gateway is imported here.

On standard input is one JSON object: where to connect, and the frames to send, as hexadecimal. On standard output is
one too: what came on each lane. A frame is four bytes of length, two of type and so many bytes.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

PATIENCE = 20.0
AUTH_ACK, FILE_ACK = 2, 41


class Stream(Protocol):
    """One stream of the stack under test."""

    async def write(self, data: bytes, *, end: bool = False) -> None: ...

    async def read(self) -> bytes: ...


class Stack(Protocol):
    """The stack under test, connected."""

    async def open(self, *, bidirectional: bool) -> Stream: ...

    async def send_datagram(self, data: bytes) -> None: ...

    async def receive_datagram(self) -> bytes: ...

    async def closed(self) -> int:
        """Wait for the end; the code that the server gave."""
        ...


class Lane:
    """Frames of one stream."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.received = b""

    def types(self) -> list[int]:
        found, at = [], 0
        while len(self.received) - at >= 6:
            length = int.from_bytes(self.received[at : at + 4], "big")
            if len(self.received) - at - 6 < length:
                break
            found.append(int.from_bytes(self.received[at + 4 : at + 6], "big"))
            at += 6 + length
        return found

    async def until(self, done: Callable[[list[int]], bool]) -> None:
        while not done(self.types()):
            data = await self.stream.read()
            if not data:
                raise EOFError(f"the lane ended after the frames {self.types()}")
            self.received += data


async def converse(stack: Stack, order: dict[str, Any]) -> dict[str, Any]:
    """Log in, talk on both lanes, by datagram and by a file, and be closed by the server."""
    control = Lane(await stack.open(bidirectional=True))
    await control.stream.write(b"\x01" + bytes.fromhex(order["auth"]))
    await control.until(lambda types: AUTH_ACK in types)
    messages = Lane(await stack.open(bidirectional=True))
    frames = bytes.fromhex(order["messages"])
    await messages.stream.write(b"\x02" + frames[:7])
    await messages.stream.write(frames[7:])
    await messages.until(lambda types: len(types) >= order["answers"])
    await stack.send_datagram(bytes.fromhex(order["datagram"]))
    datagram = await stack.receive_datagram()
    files = await stack.open(bidirectional=False)
    await files.write(b"\x03" + bytes.fromhex(order["offer"]))
    await files.write(bytes.fromhex(order["file"]), end=True)
    await control.until(lambda types: types.count(FILE_ACK) == 2)  # where to begin, and that all of it is there
    await control.stream.write(bytes.fromhex(order["last"]))
    code = await stack.closed()
    return {
        "control": control.received.hex(),
        "messages": messages.received.hex(),
        "datagram": datagram.hex(),
        "closed": code,
    }


def run(connected: Callable[[dict[str, Any], Callable[[Stack], Awaitable[None]]], Awaitable[None]]) -> None:
    """Run one peer: `connected(order, talk)` brings its stack up and awaits `talk(stack)`."""
    order = json.load(sys.stdin)
    found: dict[str, Any] = {}

    async def talk(stack: Stack) -> None:
        found.update(await converse(stack, order))

    async def main() -> None:
        async with asyncio.timeout(PATIENCE):
            await connected(order, talk)

    asyncio.run(main())
    print(json.dumps(found), flush=True)
    os._exit(0)  # quinn's threads sometimes abort an interpreter that ends under them, when all has been said
