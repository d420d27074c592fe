"""The load of `benchmarks/echo.py`: TCP clients on one epoll, in a process of their own.

    python benchmarks/echo_load.py PORT PID KIND CONNECTIONS WINDOW WARM SECONDS

Every connection keeps WINDOW Heartbeat frames in flight. Prints one JSON line: answers while measuring, and the
nanoseconds of CPU that process PID spent meanwhile. KIND `gateway` logs in first.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time

from processes import cpu, on_core

from gateway._framing import build_heartbeat
from gateway.protocol.messages import AuthRequest, encode

CHUNK = 1 << 18
BEAT = build_heartbeat(7, 1_700_000_000_000)


class Client:
    """One connection: counts bytes in, writes as many frames as were answered."""

    def __init__(self, port: int, kind: str, number: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if kind == "gateway":
            auth = AuthRequest(token=str(1000 + number), device_id="bench", platform="load")
            self.socket.sendall(encode(auth, seq=1))
            assert self.socket.recv(CHUNK)
        self.socket.sendall(BEAT)
        assert len(self.socket.recv(CHUNK)) == len(BEAT)
        self.socket.setblocking(False)
        self._loose = 0

    def send(self, count: int) -> None:
        """Each frame is a write of its own, as clients that do not know of each other's messages do it."""
        send = self.socket.send
        for _ in range(count):
            send(BEAT)

    def answered(self) -> int:
        """Read, and count the answers that came whole."""
        data = self.socket.recv(CHUNK)
        assert data, "the server closed"
        count, self._loose = divmod(self._loose + len(data), len(BEAT))
        return count


def main(port: int, pid: int, kind: str, connections: int, window: int, warm: float, seconds: float) -> None:
    """Run the load and print what came of it."""
    clients = [Client(port, kind, number) for number in range(connections)]
    epoll = select.epoll()
    by_fd = {}
    for client in clients:
        epoll.register(client.socket, select.EPOLLIN)
        by_fd[client.socket.fileno()] = client
        client.send(window)
    begin = time.perf_counter() + warm
    end = begin + seconds
    measuring = False
    count = spent = 0
    started = 0.0
    while True:
        now = time.perf_counter()
        if not measuring and now >= begin:
            measuring, count, spent, started = True, 0, cpu(pid), now
        elif now >= end:
            break
        for fd, _ in epoll.poll(1.0):
            client = by_fd[fd]
            answered = client.answered()
            if answered:
                count += answered
                client.send(answered)
    spent = cpu(pid) - spent
    elapsed = time.perf_counter() - started
    print(json.dumps({"messages": count, "cpu_ns": spent, "seconds": elapsed, "bytes": len(BEAT)}))


if __name__ == "__main__":
    on_core(-1)
    port, pid, connections, window = (int(text) for text in (sys.argv[1], sys.argv[2], *sys.argv[4:6]))
    main(port, pid, sys.argv[3], connections, window, float(sys.argv[6]), float(sys.argv[7]))
