"""The load of `benchmarks/memory.py`: idle clients, in a process of their own.

    python benchmarks/memory_load.py KIND PORT FIRST

Each line on its standard input is a number: so many more clients connect, from addresses of their own, and log in;
then it answers with one line. The users are numbered from FIRST on.
"""

from __future__ import annotations

import socket
import ssl
import sys

from gateway.protocol.messages import AuthRequest, encode

KEY = b"\x37\xfa\x21\x3d"
UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
PER_ADDRESS = 5_000


def masked(payload: bytes) -> bytes:
    """One binary WebSocket frame of fewer than 64 KiB."""
    size = len(payload)
    head = bytes([0x82, 0x80 | size]) if size < 126 else bytes([0x82, 0xFE]) + size.to_bytes(2)
    return head + KEY + bytes(byte ^ KEY[i & 3] for i, byte in enumerate(payload))


class Clients:
    """All of them, connected one after another."""

    def __init__(self, kind: str, port: int, first: int) -> None:
        self.websocket, self.tls = kind.startswith("websocket"), kind.endswith("+tls")
        self.port, self.user = port, first
        self.context = ssl.create_default_context()
        self.context.check_hostname = False
        self.context.verify_mode = ssl.CERT_NONE
        self.open: list[socket.socket] = []

    def add(self) -> None:
        """One more, logged in."""
        source = f"127.0.{1 + self.user // PER_ADDRESS % 250}.1"
        sock = socket.create_connection(("127.0.0.1", self.port), source_address=(source, 0))
        if self.tls:
            sock = self.context.wrap_socket(sock, server_hostname="localhost")
        if self.websocket:
            sock.sendall(UPGRADE)
            assert sock.recv(4096).startswith(b"HTTP/1.1 101")
        auth = encode(AuthRequest(token=str(self.user), device_id=f"device-{self.user}", platform="load"), seq=1)
        sock.sendall(masked(auth) if self.websocket else auth)
        assert sock.recv(4096)
        self.user += 1
        self.open.append(sock)


if __name__ == "__main__":
    clients = Clients(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
    print("ready", flush=True)
    for line in sys.stdin:
        for _ in range(int(line)):
            clients.add()
        print(len(clients.open), flush=True)
