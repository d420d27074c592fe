"""Does a node grow? A hundred thousand connections come and go; what it keeps of them is the slope of its memory.

    python -m benchmarks.soak [--connections 100000] [--quic 4000] [--only tcp,websocket,quic] [--json FILE]

One node, as people run it, for each transport. Connections end in every way in turn: in order, by a reset, without
a login, with junk. After each tenth all have gone, and the node's private memory (/proc/PID/smaps_rollup) and its
descriptors are read. The slope is that of a line through the last five readings; what comes before is pools and
caches filling. QUIC connections are whole clients of ours and cost thirty times as much, so there are fewer.
`make soak` takes minutes. Exits with 1 when that line rises by more than a megabyte or a descriptor is left.
"""

from __future__ import annotations

import argparse
import json
import socket
import struct
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import trio

from benchmarks.one_node import Node
from benchmarks.websocket_load import masked
from benchmarks.wire import Wire
from examples.cluster import HOST
from gateway.client import ClientSettings, Refused, Trust, Unreachable, connect
from gateway.protocol.messages import AuthRequest, encode

TENTHS = 10
COUNTED = 5
"""Of the readings, those that the slope is of: the last ones."""
BOUND = 1_000_000
"""Bytes by which the line may rise over those readings: a heap moves by so much without keeping anything."""
AT_ONCE = {"tcp": 20, "websocket": 20, "quic": 4}
USERS = 500
UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
JUNK = b"\0\0\0\4\0\x0ajunk"
SETTLE = 1.5
"""Seconds after the last has gone until memory is read."""

SETTINGS = ["quic.tickets=100"]
"""What is kept for those who may resume is bounded (20,000), but filling it would take longer than all of this."""
BELIEVING = Trust(insecure=True)

One = Callable[[Node, int], Awaitable[None]]


async def tcp(node: Node, number: int) -> None:
    """One connection over TCP, from its first to its last byte."""
    stream = await trio.open_tcp_stream(HOST, node.port("tcp"))
    try:
        match number % 4:
            case 0 | 1:
                await Wire(stream).log_in(node.tokens[number % USERS], f"d{number % 3}")
                if number % 4 == 1:
                    reset(stream)
            case 2:
                await stream.send_all(JUNK)
                await stream.receive_some(100)
    finally:
        await trio.aclose_forcefully(stream)


async def websocket(node: Node, number: int) -> None:
    """One connection over WebSocket."""
    stream = await trio.open_tcp_stream(HOST, node.port("websocket"))
    try:
        if number % 4 == 3:
            await stream.send_all(UPGRADE[: number % len(UPGRADE)])
            return
        await stream.send_all(UPGRADE)
        await stream.receive_some(1000)
        if number % 4 == 2:
            await stream.send_all(JUNK)
            await stream.receive_some(100)
            return
        token, device = node.tokens[number % USERS], f"d{number % 3}"
        await stream.send_all(masked(encode(AuthRequest(token=token, device_id=device, platform="bench"), seq=1)))
        await stream.receive_some(1000)
        if number % 4 == 1:
            reset(stream)
        else:
            await stream.send_all(b"\x88\x82\x37\xfa\x21\x3d\x34\x12")  # Close 1000
            await stream.receive_some(100)
    finally:
        await trio.aclose_forcefully(stream)


async def quic(node: Node, number: int) -> None:
    """One connection over QUIC, by our client."""
    settings = ClientSettings(start_timeout=20.0)
    token = node.tokens[number % USERS] if number % 4 else "no token"
    with suppress(Refused, Unreachable):
        url = f"quic://{node.addresses['quic']}"
        async with connect(url, token=token, device_id=f"d{number % 3}", trust=BELIEVING, settings=settings) as client:
            if number % 4 == 1:  # a message would be kept, which is another question
                client.signal(to_user=USERS + 1, kind="typing")


def reset(stream: trio.SocketStream) -> None:
    """Let its end be a RST."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


TRANSPORTS: dict[str, One] = {"tcp": tcp, "websocket": websocket, "quic": quic}


async def tenth(node: Node, one: One, numbers: range, at_once: int) -> None:
    """So many connections, some at a time."""
    left = iter(numbers)

    async def some() -> None:
        for number in left:
            with suppress(OSError, trio.BrokenResourceError):
                await one(node, number)

    async with trio.open_nursery() as nursery:
        for _ in range(at_once):
            nursery.start_soon(some)


async def measure(transport: str, connections: int) -> dict[str, Any]:
    """One node under all of them."""
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        node = Node(Path(folder), [transport], users=USERS, settings=SETTINGS)
        try:
            await node.start()
            descriptors, began = node.descriptors(), time.monotonic()
            memory = [node.memory()]
            each = connections // TENTHS
            for number in range(TENTHS):
                await tenth(node, TRANSPORTS[transport], range(number * each, (number + 1) * each), AT_ONCE[transport])
                await trio.sleep(SETTLE)
                memory.append(node.memory())
                line = f"  {transport:<10}{(number + 1) * each:>8}  {memory[-1] / 1e6:7.2f} MB  {node.descriptors()} fd"
                print(line, file=sys.stderr, flush=True)
            if node.process.died:
                raise SystemExit(node.process.obituary())
            return {
                "connections": each * TENTHS,
                "seconds": round(time.monotonic() - began, 1),
                "memory": memory,
                "bytes_per_connection": round(slope(memory[-COUNTED:]) / each, 2),
                "rise": round(slope(memory[-COUNTED:]) * (COUNTED - 1)),
                "descriptors_left": node.descriptors() - descriptors,
            }
        finally:
            node.process.kill()


def slope(values: list[int]) -> float:
    """Of a line through values at 0, 1, 2, ... by least squares."""
    middle, mean = (len(values) - 1) / 2, sum(values) / len(values)
    above = sum((x - middle) * (value - mean) for x, value in enumerate(values))
    return above / sum((x - middle) ** 2 for x in range(len(values)))


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0], allow_abbrev=False)
    parser.add_argument("--connections", type=int, default=100_000, help="over TCP and WebSocket, half each (100000)")
    parser.add_argument("--quic", type=int, default=4_000, help="over QUIC (4000)")
    parser.add_argument("--only", default=",".join(TRANSPORTS))
    parser.add_argument("--json", type=Path, metavar="FILE")
    asked = parser.parse_args()
    counts = {"tcp": asked.connections // 2, "websocket": asked.connections // 2, "quic": asked.quic}
    found = {name: trio.run(measure, name, counts[name]) for name in asked.only.split(",")}
    print(f"{'':<12}{'connections':>12}{'seconds':>9}{'first MB':>10}{'last MB':>9}{'bytes each':>12}{'fd left':>9}")
    for name, row in found.items():
        first, last = row["memory"][0] / 1e6, row["memory"][-1] / 1e6
        print(
            f"{name:<12}{row['connections']:>12,}{row['seconds']:>9.0f}{first:>10.2f}{last:>9.2f}"
            f"{row['bytes_per_connection']:>12.1f}{row['descriptors_left']:>9}"
        )
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1))
    bad = [name for name, row in found.items() if row["rise"] > BOUND or row["descriptors_left"] > 0]
    print(f"rises by more than {BOUND / 1e6:g} MB, or descriptors are left: {', '.join(bad) or 'none'}")
    return int(bool(bad))


if __name__ == "__main__":
    raise SystemExit(main())
