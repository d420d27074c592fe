"""SharedFrame and join_frames: one write out of many frames, each shared one with its own seq."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway._framing import (
    HEADER,
    Frame,
    FrameError,
    SharedFrame,
    build_chat,
    encode_frame,
    join_frames,
    parse_frame,
)
from tests.framing import bombs, writer
from tests.framing.strategies import packets, uint64


def split(data: bytes) -> list[Frame]:
    """The frames of a stream."""
    frames = []
    while data:
        length, msg_type = struct.unpack_from(">IH", data)
        frames.append(parse_frame(msg_type, data[HEADER : HEADER + length]))
        data = data[HEADER + length :]
    return frames


@given(st.lists(packets(), min_size=1, max_size=5), uint64, st.booleans())
def test_shared_frames_are_stamped_and_otherwise_unchanged(
    drawn: list[tuple[int, bytes, Any, Any]], first: int, prefixed: bool
) -> None:
    first %= 2**63
    originals = [parse_frame(msg_type, body) for msg_type, body, _, _ in drawn]
    shared = [SharedFrame(frame.encode()) for frame in originals]
    total = sum(map(len, shared))
    data, following = join_frames(shared, first, (lambda size: b"<%d>" % size) if prefixed else None)
    front = b"<%d>" % total if prefixed else b""
    assert data.startswith(front)
    assert following == first + len(drawn)
    assert len(data) == len(front) + total
    for number, (before, after) in enumerate(zip(originals, split(data[len(front) :]), strict=True)):
        assert after.seq == first + number
        assert (after.type, after.timestamp, after.payload) == (before.type, before.timestamp, before.payload)


def test_bytes_travel_as_they_are_and_do_not_count() -> None:
    plain = build_chat(9, 1, "m", 1, 2, "x", 0, 0, 0, 0)
    shared = SharedFrame(build_chat(0, 1, "n", 1, 2, "y", 0, 0, 0, 0))
    data, following = join_frames([plain, shared, plain, shared], 5)
    assert [frame.seq for frame in split(data)] == [9, 5, 9, 6]
    assert following == 7
    assert shared.data == build_chat(0, 1, "n", 1, 2, "y", 0, 0, 0, 0)
    assert (shared.type, len(shared)) == (10, len(shared.data))


def test_one_plain_item_without_prefix_is_not_copied() -> None:
    plain = b"frame"
    data, following = join_frames([plain], 3)
    assert data is plain
    assert following == 3
    assert join_frames([plain], 3, lambda _: b"") == (plain, 3)
    assert join_frames(iter([plain, plain]), 3, lambda size: b"%d:" % size) == (b"10:frameframe", 3)


def test_nothing_to_join_is_nothing() -> None:
    def prefix(_: int) -> bytes:
        raise AssertionError("nothing needs no prefix")

    assert join_frames([], 3, prefix) == (b"", 3)
    assert join_frames([b"", b""], 3, prefix) == (b"", 3)


def test_a_frame_without_a_place_for_seq_gets_one() -> None:
    bare = writer.packet(10, {"msg_id": "m"}, timestamp=7)
    assert parse_frame(10, bare).seq == 0
    shared = SharedFrame(encode_frame(10, bare))
    assert len(shared) > HEADER + len(bare)
    [frame] = split(join_frames([shared], 42)[0])
    assert (frame.seq, frame.timestamp, frame.payload) == (42, 7, parse_frame(10, bare).payload)
    [empty] = split(join_frames([SharedFrame(encode_frame(0, b""))], 43)[0])
    assert (empty.seq, empty.type) == (43, 0)


PAYLOAD = writer.table("ChatMessage", {"msg_id": "m"})
# A Packet with its vtable behind it: seq at 8, msg_type 16, timestamp 24, payload's offset 32, vtable 36, payload 48.
LAID_OUT = writer.raw_table(
    [bytes(8), struct.pack("<H", 10), struct.pack("<Q", 7), struct.pack("<I", 16)],
    struct.pack("<I", len(PAYLOAD)) + PAYLOAD,
)


@pytest.mark.parametrize(
    ("over", "place"),
    [("msg_type", 16), ("timestamp", 24), ("payload's offset", 32), ("vtable", 40), ("payload", 48), ("inside", 56)],
)
def test_a_seq_that_overlaps_something_is_moved(over: str, place: int) -> None:
    """No builder lays it out so, but it verifies, and stamping it in place would change something else."""
    body = LAID_OUT[:40] + struct.pack("<H", place - 4) + LAID_OUT[42:]
    before = parse_frame(10, body)
    [after] = split(join_frames([SharedFrame(encode_frame(10, body))], 2**64 - 2)[0])
    assert after.seq == 2**64 - 2
    assert (after.timestamp, after.payload) == (before.timestamp, before.payload)


def test_a_seq_beside_everything_stays() -> None:
    shared = SharedFrame(encode_frame(10, LAID_OUT))
    assert len(shared) == HEADER + len(LAID_OUT)
    [after] = split(join_frames([shared], 9)[0])
    assert after.body == LAID_OUT[:8] + struct.pack("<Q", 9) + LAID_OUT[16:]


@pytest.mark.parametrize(
    "data", [b"", b"\0\0\0\1\0", b"\0\0\0\5\0\x0abody", encode_frame(10, b"body"), encode_frame(99, b"")]
)
def test_only_one_whole_valid_frame_can_be_shared(data: bytes) -> None:
    with pytest.raises(FrameError):
        SharedFrame(data)


def test_wrong_items_are_a_type_error() -> None:
    wrong: Any
    for wrong in ("text", None, bytearray(b"x"), 5):
        with pytest.raises(TypeError):
            join_frames([wrong, b"x"], 1)
        with pytest.raises(TypeError):
            SharedFrame(wrong)
    with pytest.raises(TypeError):
        join_frames([b"x"], 1, lambda _: "text")  # type: ignore[arg-type, return-value]


def test_a_prefix_that_changes_the_list_changes_nothing() -> None:
    items: list[bytes | SharedFrame] = [b"one", b"two"]

    def prefix(_: int) -> bytes:
        items.append(b"x" * 1000)
        return b"p"

    assert join_frames(items, 1, prefix) == (b"ponetwo", 1)


def test_a_frame_that_is_within_its_budget_only_by_its_padding_cannot_be_rebuilt() -> None:
    """Found by fuzzing: without the bytes that nothing points at, its readers would refuse it."""
    msg_type, body = bombs.shared_table(100, b"")
    padded = body + bytes(len(body))
    assert parse_frame(msg_type, padded).seq == 0
    with pytest.raises(FrameError, match="budget"):
        SharedFrame(encode_frame(msg_type, padded))
