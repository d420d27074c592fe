"""The load of `benchmarks/websocket.py`: WebSocket clients on one epoll, in a process of their own.

    python benchmarks/websocket_load.py PORT PID KIND CONNECTIONS WINDOW WARM SECONDS

Every connection keeps WINDOW messages in flight. Prints one JSON line: messages answered while measuring, and the
nanoseconds of CPU that process PID spent meanwhile. KIND `gateway` logs in, sends
chat messages and counts their acknowledgements; any other sends 64 bytes and gets them back.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time

from processes import cpu, on_core

from gateway.protocol.messages import AuthRequest, ChatMessage, encode

KEY = b"\x37\xfa\x21\x3d"
ECHO = bytes(range(64))
CHUNK = 1 << 18


def masked(payload: bytes) -> bytes:
    """One binary frame."""
    size = len(payload)
    head = bytes([0x82, 0x80 | size]) if size < 126 else bytes([0x82, 0xFE]) + size.to_bytes(2, "big")
    return head + KEY + bytes(byte ^ KEY[i & 3] for i, byte in enumerate(payload))


def chat(user: int) -> bytes:
    """A small chat message: 16 characters."""
    return encode(ChatMessage(msg_id="bench-0001", to_user=user + 1, content="sixteen letters!"), seq=7, timestamp=1)


class Client:
    """One connection: counts payload bytes in, writes as many messages as were answered."""

    def __init__(self, port: int, kind: str, number: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(
            b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        head = b""
        while b"\r\n\r\n" not in head:
            more = self.socket.recv(CHUNK)
            assert more, head
            head += more
        assert head.startswith(b"HTTP/1.1 101"), head
        self.one = masked(ECHO)
        self.answer = len(ECHO)
        self._left = 0  # payload bytes of the current frame
        self._head = b""
        self._loose = 0  # payload bytes of an answer that is not whole yet
        if kind in ("gateway", "login"):
            user = 1000 + number
            self.socket.sendall(masked(encode(AuthRequest(token=str(user), device_id="bench", platform="load"), seq=1)))
            self.socket.recv(CHUNK)
        if kind == "gateway":
            self.one = masked(chat(1000 + number))
            self.socket.sendall(self.one)
            first = self.socket.recv(CHUNK)
            self.answer = len(first) - (4 if first[1] == 126 else 2)
        self.socket.setblocking(False)

    def send(self, count: int) -> None:
        """Write so many messages."""
        data = self.one * count
        assert self.socket.send(data) == len(data)

    def answered(self) -> int:
        """Read, and count the answers that came whole."""
        data = self._head + self.socket.recv(CHUNK)
        assert data, "the server closed"
        payload, at, size = self._loose, 0, len(data)
        while True:
            take = min(self._left, size - at)
            payload += take
            at += take
            self._left -= take
            if size - at < 2 or (data[at + 1] == 126 and size - at < 4):
                break
            if data[at + 1] == 126:
                self._left = data[at + 2] << 8 | data[at + 3]
                at += 4
            else:
                self._left = data[at + 1]
                at += 2
        self._head = data[at:]
        count, self._loose = divmod(payload, self.answer)
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
    print(json.dumps({"messages": count, "cpu_ns": spent, "seconds": elapsed, "bytes": len(clients[0].one)}))


if __name__ == "__main__":
    on_core(-1)
    numbers = [int(text) for text in (sys.argv[1], sys.argv[2], sys.argv[4], sys.argv[5])]
    main(numbers[0], numbers[1], sys.argv[3], numbers[2], numbers[3], float(sys.argv[6]), float(sys.argv[7]))
