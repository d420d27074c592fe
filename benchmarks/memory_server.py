"""The server of `benchmarks/memory.py`: a whole node in a process of its own.

    python benchmarks/memory_server.py tcp|tcp+tls|websocket|websocket+tls CERTIFICATE

Prints its port; then answers each line on its standard input with one line of JSON about its memory.
"""

from __future__ import annotations

import ctypes
import gc
import json
import sys
import tempfile
import time
from pathlib import Path

import trio

from gateway import Config, Node, open_node
from gateway.console.settings import ConsoleSettings
from gateway.core.ports import Credentials, Identity
from gateway.core.settings import HeartbeatSettings, LimitSettings
from gateway.transports.settings import TcpSettings, TlsSettings
from gateway.transports.settings_quic import QuicSettings
from gateway.transports.settings_websocket import WebSocketSettings


class Anybody:
    """Takes tokens at their word."""

    async def authenticate(self, credentials: Credentials) -> Identity:
        return Identity(user_id=int(credentials.token), expires_at=time.time() + 86_400)


def private() -> int:
    """Bytes of memory that only this process holds."""
    rollup = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in rollup if line.startswith("Private_"))


def memory() -> dict[str, int]:
    """After a collection; then once more with the allocator's free pages given back."""
    gc.collect()
    found = private()
    ctypes.CDLL(None).malloc_trim(0)
    return {"private": found, "trimmed": private()}


def measure(node: Node) -> dict[str, int]:
    """Memory, and for how many."""
    return {"connections": len(node.hub.registry), "users": node.hub.registry.users()} | memory()


async def main(kind: str, certificate: str, data_dir: str) -> None:
    """Serve until the input ends."""
    transport, _, encrypted = kind.partition("+")
    tls = TlsSettings(certificate=certificate) if encrypted else None
    config = Config(
        data_dir=data_dir,
        tcp=TcpSettings(enabled=transport == "tcp", port=0, tls=tls),
        websocket=WebSocketSettings(enabled=transport == "websocket", port=0, tls=tls),
        quic=QuicSettings(enabled=False),
        console=ConsoleSettings(enabled=False),
        limits=LimitSettings(max_connections_per_address=1_000_000),
        heartbeat=HeartbeatSettings(interval=3_600, timeout=10_800),
    )
    async with open_node(config, authenticator=Anybody()) as node, trio.open_nursery() as nursery:
        await nursery.start(node.run)
        print(node.addresses[transport].rpartition(":")[2], flush=True)
        while await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
            print(json.dumps(measure(node)), flush=True)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as data_dir:
        trio.run(main, sys.argv[1], sys.argv[2], data_dir)
