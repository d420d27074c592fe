"""Threat 4: frames cut at every byte, merged, in random chunks give the identical result."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway._framing import DispatchTable, FrameDecoder
from tests.framing import writer
from tests.framing.schema import PAYLOADS
from tests.framing.strategies import packets

CHAT = writer.frame(10, writer.packet(10, {"msg_id": "m", "to_user": 1, "content": "héllo"}, seq=1))
STREAM = b"".join(
    [
        CHAT,
        writer.frame(0, b""),
        writer.frame(12, writer.packet(12, {"kind": "typing", "data": b"\0\1\2"}, seq=2)),
        writer.frame(99, b"whatever"),
        writer.frame(0, writer.packet(0, seq=3)),
        writer.frame(11, writer.packet(11, {"msg_id": "m", "status": 2}, seq=4)),
        writer.frame(20, writer.packet(20, {"cursor": 9}, seq=5)),
        writer.frame(10, b"bad"),
        CHAT,
    ]
)


def run(chunks: list[bytes]) -> tuple[bytes, list[Any], int, bool]:
    """All replies, all that was seen, the frames counted, and whether the decoder closed."""
    seen: list[Any] = []

    def handle(context: object, frame: Any) -> bytes:
        seen.append((frame.type, frame.body))
        return b"[%d]" % frame.seq

    def refuse(context: object, code: int, msg_type: int, seq: int) -> bytes:
        seen.append((code, msg_type, seq))
        return b"<%d>" % code

    table = DispatchTable(refuse)
    for msg_type in PAYLOADS:
        table.on(msg_type, handle)
    table.echo(0)
    decoder = FrameDecoder(table, 65536)
    replies = b"".join(decoder.feed(None, chunk, 42) for chunk in chunks)
    return replies, seen, decoder.frames, decoder.closed


WHOLE = run([STREAM])


def test_t04_the_whole_stream() -> None:
    replies, seen, frames, closed = WHOLE
    assert replies.startswith(b"[1]")
    assert [item[0] for item in seen] == [10, 12, 4002, 11, 20, 4000]
    assert (frames, closed) == (8, True)


def test_t04_cut_at_every_byte() -> None:
    for cut in range(len(STREAM) + 1):
        assert run([STREAM[:cut], STREAM[cut:]]) == WHOLE, cut


def test_t04_cut_twice_near_every_header() -> None:
    for cut in range(len(STREAM) + 1):
        for more in (1, 5, 6, 7):
            assert run([STREAM[:cut], STREAM[cut : cut + more], STREAM[cut + more :]]) == WHOLE, (cut, more)


def test_t04_byte_by_byte_and_merged() -> None:
    assert run([STREAM[i : i + 1] for i in range(len(STREAM))]) == WHOLE
    good = STREAM[: STREAM.index(writer.frame(10, b"bad"))]
    once = run([good])
    assert run([good * 30])[0] == once[0] * 30


def test_t04_random_chunks() -> None:
    rng = random.Random(4)
    for _ in range(300):
        chunks, at = [], 0
        while at < len(STREAM):
            size = rng.choice((0, 1, 2, 3, 6, 7, 50, 200))
            chunks.append(STREAM[at : at + size])
            at += size
        assert run(chunks) == WHOLE


@given(st.lists(packets(), max_size=5), st.data())
def test_t04_any_frames_in_any_chunks(drawn: list[tuple[int, bytes, object, object]], data: st.DataObject) -> None:
    stream = b"".join(writer.frame(msg_type, body) for msg_type, body, _, _ in drawn)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    chunks = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    result = run(chunks)
    assert result == run([stream])
    assert result[2:] == (len(drawn), False)


def test_t04_every_truncation_waits_and_is_completed() -> None:
    for cut in range(len(CHAT)):
        replies, seen, frames, closed = run([CHAT[:cut]])
        assert (replies, seen, frames, closed) == (b"", [], 0, False)
