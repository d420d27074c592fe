"""Threat 3: declared lengths. The limit is exact, and nothing is allocated by what a header claims."""

from __future__ import annotations

import struct
import tracemalloc

import pytest

from gateway._framing import CEILING, HEADER, DispatchTable, FrameDecoder
from tests.framing import writer

LIMIT = 4096


def decoder(limit: int = LIMIT) -> tuple[FrameDecoder, list[tuple[int, int]]]:
    seen: list[tuple[int, int]] = []
    table = DispatchTable(lambda _, code, msg_type, seq: seen.append((code, msg_type)))
    table.on(10, lambda _, frame: seen.append((0, frame.type)))
    table.echo(0)
    return FrameDecoder(table, limit), seen


def chat_of(size: int) -> bytes:
    """A Message whose body is exactly `size` bytes."""
    body = writer.packet(10, {"msg_id": "m"}, seq=1)
    payload = writer.table("ChatMessage", {"msg_id": "m", "content": "x" * (size - len(body) - 40)})
    room = size - len(writer.table("Packet", {"msg_type": 10, "seq": 1, "payload": payload}))
    body = writer.table("Packet", {"msg_type": 10, "seq": 1, "payload": payload + bytes(room & ~7)})
    return writer.frame(10, body + bytes(size - len(body)))


@pytest.mark.parametrize("length", [LIMIT + 1, 2**24, 2**24 + 1, 2**31 - 1, 2**31, 2**32 - 1])
def test_t03_too_long_is_refused_on_the_header_alone(length: int) -> None:
    decode, seen = decoder()
    header = struct.pack(">IH", length, 10)
    assert decode.feed(None, header[:-1]) == b""
    assert seen == []
    decode.feed(None, header[-1:])
    assert seen == [(4001, 10)]
    assert decode.closed


@pytest.mark.parametrize("size", [LIMIT - 1, LIMIT])
def test_t03_up_to_the_limit_is_taken(size: int) -> None:
    frame = chat_of(size)
    assert len(frame) == HEADER + size
    decode, seen = decoder()
    decode.feed(None, frame)
    decode.feed(None, frame[:-1])
    decode.feed(None, frame[-1:])
    assert seen == [(0, 10), (0, 10)]


def test_t03_one_more_than_the_limit_is_not() -> None:
    decode, seen = decoder()
    decode.feed(None, chat_of(LIMIT + 1))
    assert seen == [(4001, 10)]


def test_t03_zero_is_a_heartbeat_or_malformed() -> None:
    decode, seen = decoder(0)
    assert decode.feed(None, bytes(HEADER)) == bytes(HEADER)
    decode.feed(None, struct.pack(">IH", 0, 10))
    assert seen == [(4000, 10)]


def test_t03_what_is_retained_is_what_was_received() -> None:
    """A header that claims the most allowed costs its own bytes, not what it claims."""
    decode, _ = decoder(CEILING)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        decode.feed(None, struct.pack(">IH", CEILING, 10) + bytes(100))
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert decode.pending == HEADER + 100
    assert after - before < 1000
    assert peak - before < 10000


def test_t03_a_frame_that_trickles_in_costs_little_more_than_itself() -> None:
    decode, _ = decoder(65536)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        decode.feed(None, struct.pack(">IH", 65536, 10))
        for received in range(7, 65000):
            decode.feed(None, b"\0")
            if received % 500 == 0:
                held = tracemalloc.get_traced_memory()[0] - before
                assert held <= received * 9 / 8 + 200
    finally:
        tracemalloc.stop()
    assert decode.pending == 64999
