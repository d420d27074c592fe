"""What answering one Heartbeat over TCP costs the server in CPU: ours (a whole node, authenticated) beside others.

    python benchmarks/echo.py [--json FILE] [--rounds 10] [--seconds 0.5] [--connections 100] [--only NAME,...]

`gateway` is the node that people run: session, limits, framing. `link` is our reactor and link alone, echoing raw
bytes. `trio` is `trio.serve_tcp` with our framing. `uvloop` echoes raw bytes and knows no frames. The same load (in C,
on a core of its own) drives all of them: one frame in flight per connection; sixteen, each by a write of its own, as
clients do whose messages know nothing of each other; sixteen that always travel together in one write.
Rounds are interleaved; shown are medians of the half in which other programs disturbed least (`disturbed`: the part
of the time that server or load waited for their cores). Ratios within a run hold, absolutes do not.
"""

from __future__ import annotations

from benchmarks.beside import Comparison, main

COMPARISON = Comparison(
    script="echo",
    names=["gateway", "link", "trio", "uvloop"],
    measure="uvloop",
    targets={"1 in flight": 1.5, "16 in flight": 1.0},
    packages=["trio", "uvloop", "cython"],
)

if __name__ == "__main__":
    main(COMPARISON, __doc__ or "")
