"""The load of `benchmarks/websocket.py`: WebSocket clients on one epoll, in a process of their own.

    python benchmarks/websocket_load.py PORT PID KIND CONNECTIONS WINDOW JOINED WARM SECONDS LIBRARY

Every connection keeps WINDOW messages in flight, each by a write of its own or, if JOINED is 1, together by one.
LIBRARY is `websocket_load.c`, compiled. Prints one JSON line: answers while measuring, the nanoseconds of CPU that
process PID spent meanwhile, and the part of the time that it or the load wanted to run but found its core taken by
somebody else. KIND `gateway` logs in, sends chat messages and counts their acknowledgements; any other sends 64 bytes
and gets them back.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import sys
import time

from benchmarks.processes import cpu, on_core
from gateway.protocol.messages import AuthRequest, ChatMessage, encode

KEY = b"\x37\xfa\x21\x3d"
ECHO = bytes(range(64))
CHUNK = 1 << 18


def masked(payload: bytes) -> bytes:
    """One binary frame."""
    size = len(payload)
    head = bytes([0x82, 0x80 | size]) if size < 126 else bytes([0x82, 0xFE]) + size.to_bytes(2, "big")
    return head + KEY + bytes(byte ^ KEY[i & 3] for i, byte in enumerate(payload))


def connected(port: int, kind: str, number: int) -> socket.socket:
    """One client, upgraded, and logged in where there is a login."""
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.sendall(
        b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    head = b""
    while b"\r\n\r\n" not in head:
        more = sock.recv(CHUNK)
        assert more, head
        head += more
    assert head.startswith(b"HTTP/1.1 101"), head
    if kind in {"gateway", "login"}:
        auth = AuthRequest(token=str(1000 + number), device_id="bench", platform="load")
        sock.sendall(masked(encode(auth, seq=1)))
        assert sock.recv(CHUNK)
    return sock


def request(kind: str) -> bytes:
    """What is sent: for the gateway a small chat message of 16 characters."""
    if kind != "gateway":
        return masked(ECHO)
    return masked(encode(ChatMessage(msg_id="bench-0001", to_user=999, content="sixteen letters!"), seq=7, timestamp=1))


def payload_size(frame: bytes) -> int:
    """Bytes of payload in one whole frame of the server's."""
    return len(frame) - (4 if frame[1] == 126 else 2)


def main(port: int, pid: int, kind: str, connections: int, window: int, joined: int, library: str) -> None:
    """Run the load and print what came of it."""
    warm, seconds = float(sys.argv[7]), float(sys.argv[8])
    socks = [connected(port, kind, number) for number in range(connections)]
    one = request(kind)
    socks[0].sendall(one)
    answer = ctypes.c_size_t(payload_size(socks[0].recv(CHUNK)))
    load = ctypes.CDLL(library)
    load.drive.restype = ctypes.c_long
    load.place_size.restype = ctypes.c_size_t
    size = ctypes.c_size_t(len(one))
    fds = (ctypes.c_int * connections)(*(sock.fileno() for sock in socks))
    places = ctypes.create_string_buffer(load.place_size() * connections)
    messages = one * window

    def drive(length: float) -> int:
        answers = int(load.drive(fds, connections, messages, size, answer, joined, ctypes.c_double(length), places))
        assert answers > 0
        return answers

    assert load.fill(fds, connections, messages, size, window, joined)
    drive(warm)
    started, spent, waited = time.perf_counter(), *cpu(pid)
    waited += cpu(os.getpid())[1]
    answers = drive(seconds)
    elapsed, spent_now, waited_now = time.perf_counter() - started, *cpu(pid)
    waited_now += cpu(os.getpid())[1]
    found = {"messages": answers, "cpu_ns": spent_now - spent, "seconds": elapsed, "bytes": len(one)}
    busy = (spent_now - spent) / elapsed / 1e9
    print(json.dumps(found | {"busy": busy, "disturbed": (waited_now - waited) / elapsed / 1e9}))


if __name__ == "__main__":
    on_core(-1)
    port, pid, connections, window, joined = (int(text) for text in (sys.argv[1], sys.argv[2], *sys.argv[4:7]))
    main(port, pid, sys.argv[3], connections, window, joined, sys.argv[9])
