"""The servers of `benchmarks/quic.py`, each a process of its own.

    python benchmarks/quic_servers.py gateway|aioquic CERTIFICATE

`gateway` is a whole node, its Logic embedded. `aioquic` is that library's own asyncio server, which echoes what comes
on a stream and knows no frames, with the garbage collector as Python sets it. Prints its port; then answers each line
on its standard input with one line of JSON about its memory.
"""

from __future__ import annotations

import asyncio
import gc
import json
import ssl
import sys
import tempfile
from typing import Any

import trio
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.asyncio.server import serve
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import StreamDataReceived

from benchmarks.memory_server import Anybody, memory
from benchmarks.processes import on_core
from gateway import Config, open_node
from gateway.console.settings import ConsoleSettings
from gateway.core.settings import LimitSettings
from gateway.transports.settings import TcpSettings
from gateway.transports.settings_quic import QuicSettings
from gateway.transports.settings_websocket import WebSocketSettings


class Echo(QuicConnectionProtocol):
    """Gives every stream its bytes back."""

    def quic_event_received(self, event: Any) -> None:
        if isinstance(event, StreamDataReceived):
            self._quic.send_stream_data(event.stream_id, event.data, event.end_stream)


async def aioquic(certificate: str) -> None:
    """The library's own server."""
    configuration = QuicConfiguration(is_client=False, alpn_protocols=["im-access"], idle_timeout=95.0)
    configuration.load_cert_chain(certificate, certificate)
    configuration.verify_mode = ssl.CERT_NONE
    server = await serve("127.0.0.1", 0, configuration=configuration, create_protocol=Echo)
    assert server._transport is not None
    print(server._transport.get_extra_info("sockname")[1], flush=True)
    while await asyncio.to_thread(sys.stdin.readline):
        print(json.dumps(memory() | {"connections": len(set(server._protocols.values()))}), flush=True)


async def gateway(certificate: str, data_dir: str) -> None:
    """A whole node, QUIC its only way in."""
    gc.set_threshold(50_000, 20, 50)  # as `python -m gateway` does
    config = Config(
        data_dir=data_dir,
        tcp=TcpSettings(enabled=False),
        websocket=WebSocketSettings(enabled=False),
        console=ConsoleSettings(enabled=False),
        quic=QuicSettings(port=0, certificate=certificate, retry_threshold=1_000_000, max_half_open=1_000_000),
        limits=LimitSettings(max_connections_per_address=1_000_000),
    )
    async with open_node(config, authenticator=Anybody()) as node, trio.open_nursery() as nursery:
        await nursery.start(node.run)
        print(node.addresses["quic"].rpartition(":")[2], flush=True)
        while await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
            print(json.dumps(memory() | {"connections": len(node.hub.registry)}), flush=True)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    on_core(0)
    if sys.argv[1] == "aioquic":
        asyncio.run(aioquic(sys.argv[2]))
    else:
        with tempfile.TemporaryDirectory() as data_dir:
            trio.run(gateway, sys.argv[2], data_dir)
