"""What one WebSocket message costs the server in CPU: ours (Message to MessageAck, authenticated) beside bare echoes.

    python benchmarks/websocket.py [--json FILE] [--rounds 10] [--seconds 0.5] [--connections 100] [--only NAME,...]

Ours verifies the frame, asks the rate limit, wraps the packet for the bus, publishes, and acknowledges; the others
send back 64 bytes. `link` is our reactor and link alone, echoing, to tell the transport's part from the core's.
The same load (in C, on a core of its own) drives all of them: one message in flight per connection; sixteen, each by a
write of its own, as clients do whose messages know nothing of each other; sixteen that always travel together.
Rounds are interleaved; shown are medians of the half in which other programs disturbed least (`disturbed`: the part
of the time that server or load waited for their cores). Ratios within a run hold, absolutes do not.
"""

from __future__ import annotations

from benchmarks.beside import Comparison, main

COMPARISON = Comparison(
    script="websocket",
    names=["gateway", "link", "picows", "aiohttp", "websockets", "trio-websocket"],
    measure="picows",
    targets={"1 in flight": 1.2, "16 in flight": 1.0},
    packages=["trio", "picows", "uvloop", "aiohttp", "websockets", "trio-websocket", "cython"],
)

if __name__ == "__main__":
    main(COMPARISON, __doc__ or "")
