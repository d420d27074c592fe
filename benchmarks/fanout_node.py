"""The node of `benchmarks/fanout.py`, and the clients that it is measured with.

    python benchmarks/fanout_node.py node CONNECTIONS ROUNDS
    python benchmarks/fanout_node.py load PORT PORT_OF_THE_BARE_ROW CONNECTIONS

`node` starts `load` and prints one line of JSON: microseconds of CPU per delivery, by row and round.
"""

from __future__ import annotations

import json
import select
import socket
import subprocess
import sys
import tempfile
import time

import trio
import trio.testing

from benchmarks.processes import on_core
from benchmarks.websocket_load import connected
from gateway import Config, open_node
from gateway._framing import build_downstream
from gateway.backends.memory import MemoryBus
from gateway.console.settings import ConsoleSettings
from gateway.core.ports import Credentials, Identity
from gateway.protocol.messages import ChatMessage, encode, packet
from gateway.protocol.types import Action, MsgType
from gateway.protocol.websocket import server_header
from gateway.transports.settings import TcpSettings
from gateway.transports.settings_quic import QuicSettings
from gateway.transports.settings_websocket import WebSocketSettings

MESSAGE = ChatMessage(msg_id="fan-0001", from_user=1, to_user=2, content="sixteen letters!", timestamp=1)


class Anybody:
    """Takes every token at its word."""

    async def authenticate(self, credentials: Credentials) -> Identity:
        """The token is the user."""
        return Identity(user_id=int(credentials.token), expires_at=time.time() + 3600)


def load(port: int, bare_port: int, connections: int) -> None:
    """Hold the connections and drop what comes, until standard input ends."""
    epoll = select.epoll()
    clients = [connected(port, "login", number) for number in range(connections)]
    held = {client.fileno(): client for client in clients}
    for _ in range(connections):
        sock = socket.create_connection(("127.0.0.1", bare_port))
        sock.setblocking(False)
        held[sock.fileno()] = sock
    for fd in held:
        epoll.register(fd, select.EPOLLIN)
    epoll.register(sys.stdin.fileno(), select.EPOLLIN | select.EPOLLHUP)
    print("ready", flush=True)
    while True:
        for fd, _ in epoll.poll():
            if fd not in held:
                return
            held[fd].recv(1 << 16)


async def measure(connections: int, rounds: int, data_dir: str) -> dict[str, list[float]]:
    """Microseconds of CPU per delivery, by round."""
    config = Config(
        data_dir=data_dir,
        tcp=TcpSettings(enabled=False),
        websocket=WebSocketSettings(port=0),
        quic=QuicSettings(enabled=False),
        console=ConsoleSettings(enabled=False),
    )
    bus = MemoryBus()
    body = packet(MESSAGE)
    broadcast = build_downstream(0, (), "", "", 0, Action.DELIVER, 0, MsgType.MESSAGE, body, 0)
    frame = encode(MESSAGE, seq=7)
    bare = server_header(len(frame)) + frame
    found: dict[str, list[float]] = {"gateway": [], "bare": []}
    async with open_node(config, bus=bus, authenticator=Anybody()) as node, trio.open_nursery() as nursery:
        await nursery.start(node.run)
        with socket.create_server(("127.0.0.1", 0), backlog=4096) as listening:
            port = node.addresses["websocket"].rpartition(":")[2]
            words = ["load", port, str(listening.getsockname()[1]), str(connections)]
            held = await trio.lowlevel.open_process(
                [sys.executable, __file__, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            assert held.stdout is not None
            sockets: list[socket.socket] = []
            while len(sockets) < connections:
                await trio.lowlevel.wait_readable(listening)
                sockets.append(listening.accept()[0])
                sockets[-1].setblocking(False)
            await held.stdout.receive_some()
        for _ in range(rounds):
            await trio.sleep(0.2)
            before, sent = time.process_time_ns(), node.hub.metrics.messages_sent
            assert bus.publish(node.hub.subjects.broadcast, broadcast)
            await trio.testing.wait_all_tasks_blocked()
            found["gateway"].append((time.process_time_ns() - before) / connections / 1000)
            assert node.hub.metrics.messages_sent - sent == connections
            await trio.sleep(0.2)
            before = time.process_time_ns()
            for sock in sockets:
                sock.send(bare)
            found["bare"].append((time.process_time_ns() - before) / connections / 1000)
        held.kill()
        await held.wait()
        for sock in sockets:
            sock.close()
        nursery.cancel_scope.cancel()
    return found


def main() -> None:
    """Be one of the two."""
    if sys.argv[1] == "load":
        on_core(-1)
        load(*map(int, sys.argv[2:5]))
        return
    on_core(0)
    with tempfile.TemporaryDirectory() as data_dir:
        print(json.dumps(trio.run(measure, int(sys.argv[2]), int(sys.argv[3]), data_dir)))


if __name__ == "__main__":
    main()
