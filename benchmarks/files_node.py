"""The node of `benchmarks.files`: `files_node.py DIRECTORY`; prints where it listens and two tokens."""

from __future__ import annotations

import json
import sys

import trio

from benchmarks.processes import on_core, until_told
from gateway.backends.dev_keys import development_key, issue_token
from gateway.config import Config
from gateway.console.settings import ConsoleSettings
from gateway.core.settings_files import FileSettings
from gateway.node import open_node
from gateway.transports.settings import TcpSettings
from gateway.transports.settings_quic import QuicSettings
from gateway.transports.settings_websocket import WebSocketSettings


async def main(directory: str) -> None:
    """Serve until told."""
    config = Config(
        data_dir=directory,
        tcp=TcpSettings(port=0),
        websocket=WebSocketSettings(port=0),
        quic=QuicSettings(port=0),
        console=ConsoleSettings(enabled=False),
        files=FileSettings(bytes_per_second=2**40),
    )
    async with open_node(config) as node, trio.open_nursery() as nursery:
        await nursery.start(node.run)
        key = development_key(directory)
        tokens = [issue_token(key, user) for user in (1001, 1002)]
        print(json.dumps({"addresses": node.addresses, "tokens": tokens}), flush=True)


if __name__ == "__main__":
    on_core(0)
    until_told()
    trio.run(main, sys.argv[1])
