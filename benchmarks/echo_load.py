"""The load of `benchmarks/echo.py`: TCP clients on one epoll, in a process of their own.

    python benchmarks/echo_load.py PORT PID KIND CONNECTIONS WINDOW JOINED WARM SECONDS LIBRARY

Every connection keeps WINDOW Heartbeat frames in flight, each by a write of its own or, if JOINED is 1, together by
one. LIBRARY is `echo_load.c`, compiled. Prints one JSON line: answers while measuring, the nanoseconds of CPU that
process PID spent meanwhile, and the part of the time that it or the load wanted to run but found its core taken by
somebody else. KIND `gateway` logs in first.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import sys
import time

from benchmarks.processes import cpu, on_core
from gateway._framing import build_heartbeat
from gateway.protocol.messages import AuthRequest, encode

BEAT = build_heartbeat(7, 1_700_000_000_000)


def connected(port: int, kind: str, number: int) -> socket.socket:
    """One client that has been answered once."""
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if kind == "gateway":
        auth = AuthRequest(token=str(1000 + number), device_id="bench", platform="load")
        sock.sendall(encode(auth, seq=1))
        assert sock.recv(65_536)
    sock.sendall(BEAT)
    assert len(sock.recv(65_536)) == len(BEAT)
    return sock


def main(port: int, pid: int, kind: str, connections: int, window: int, joined: int, library: str) -> None:
    """Run the load and print what came of it."""
    warm, seconds = float(sys.argv[7]), float(sys.argv[8])
    socks = [connected(port, kind, number) for number in range(connections)]
    load = ctypes.CDLL(library)
    load.drive.restype = ctypes.c_long
    size = ctypes.c_size_t(len(BEAT))
    fds = (ctypes.c_int * connections)(*(sock.fileno() for sock in socks))
    loose = (ctypes.c_size_t * connections)()
    frames = BEAT * window

    def drive(length: float) -> int:
        answers = int(load.drive(fds, connections, frames, size, joined, ctypes.c_double(length), loose))
        if answers <= 0:
            raise SystemExit(f"{kind}: the load failed: {answers}, see echo_load.c")
        return answers

    assert load.fill(fds, connections, frames, size, window, joined)
    drive(warm)
    started, spent, waited = time.perf_counter(), *cpu(pid)
    waited += cpu(os.getpid())[1]
    answers = drive(seconds)
    elapsed, spent_now, waited_now = time.perf_counter() - started, *cpu(pid)
    waited_now += cpu(os.getpid())[1]
    found = {"messages": answers, "cpu_ns": spent_now - spent, "seconds": elapsed, "bytes": len(BEAT)}
    busy = (spent_now - spent) / elapsed / 1e9
    print(json.dumps(found | {"busy": busy, "disturbed": (waited_now - waited) / elapsed / 1e9}))


if __name__ == "__main__":
    on_core(-1)
    port, pid, connections, window, joined = (int(text) for text in (sys.argv[1], sys.argv[2], *sys.argv[4:7]))
    main(port, pid, sys.argv[3], connections, window, joined, sys.argv[9])
