"""What is accepted and what is refused, and why: against the plain reference, and by hand for each reason."""

from __future__ import annotations

import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway._framing import parse_frame
from tests.framing import reference, writer
from tests.framing.broken import BAD_TEXTS, GOOD, REASONS, u32
from tests.framing.outcome import outcome
from tests.framing.schema import PAYLOADS
from tests.framing.strategies import mutate, packets


@given(packets())
def test_every_valid_packet_is_accepted(drawn: tuple[int, bytes, object, object]) -> None:
    msg_type, body, _, _ = drawn
    assert outcome(msg_type, body) == (0, "") == reference.verdict(msg_type, body)


@given(packets(), st.integers(0, 2**32))
def test_mutants_are_judged_as_the_reference_judges_them(drawn: tuple[int, bytes, object, object], seed: int) -> None:
    msg_type, body, _, _ = drawn
    rng = random.Random(seed)
    for _ in range(40):
        mutant = mutate(rng, body, [body])
        assert outcome(msg_type, mutant) == reference.verdict(msg_type, mutant), mutant.hex()


@given(packets())
def test_every_truncation_is_refused_or_still_whole(drawn: tuple[int, bytes, object, object]) -> None:
    msg_type, body, _, _ = drawn
    for size in range(len(body)):
        assert outcome(msg_type, body[:size]) == reference.verdict(msg_type, body[:size])


@given(st.sampled_from(sorted(PAYLOADS)), st.binary(max_size=64))
def test_noise_is_judged_as_the_reference_judges_it(msg_type: int, body: bytes) -> None:
    assert outcome(msg_type, body) == reference.verdict(msg_type, body)


@given(
    st.sampled_from(sorted(PAYLOADS)),
    st.lists(st.sampled_from([0, 2, 4, 6, 8, 10, 12, 16, 20, 24, 28, 32, 40, 0xFFFC, 0xFFF8]), min_size=4, max_size=32),
)
def test_small_offsets_that_point_anywhere(msg_type: int, words: list[int]) -> None:
    """Buffers made of plausible offsets only: overlaps, cycles, tables inside vtables."""
    payload = struct.pack(f"<{len(words)}H", *words)
    body = writer.table("Packet", {"msg_type": msg_type, "payload": payload})
    for candidate in (payload, body):
        assert outcome(msg_type, candidate) == reference.verdict(msg_type, candidate)


def chat(payload: bytes) -> bytes:
    """A Packet of type Message around a payload made by hand."""
    return writer.table("Packet", {"msg_type": 10, "payload": payload})


def sync_ack(payload: bytes) -> bytes:
    return writer.table("Packet", {"msg_type": 21, "payload": payload})


def test_the_hand_made_one_is_good() -> None:
    frame = parse_frame(10, chat(GOOD))
    assert getattr(frame, "msg_id") == "ok"  # noqa: B009


@pytest.mark.parametrize("name", REASONS)
def test_each_reason(name: str) -> None:
    payload, reason = REASONS[name]
    assert outcome(10, chat(payload)) == (4000, reason) == reference.verdict(10, chat(payload))


GOOD_TEXTS = [
    "",
    "\0",
    "a" * 17,
    "é",
    "߿",
    "ࠀ",
    "퟿",
    "\ue000",
    "￿",
    "𐀀",
    "\U0010ffff",
    "aaaaaaaaé",
    "éaaaaaaaaaaaaaaaa",
]


@pytest.mark.parametrize("text", BAD_TEXTS)
@pytest.mark.parametrize("before", [0, 1, 7, 8, 9])
def test_text_that_is_no_utf8(text: bytes, before: int) -> None:
    text = b"a" * before + text
    tail = u32(len(text)) + text + bytes(8 - len(text) % 4)
    body = chat(writer.raw_table([u32(12)], b"\0\0" + tail))
    assert outcome(10, body) == (4000, reference.UTF8)


@pytest.mark.parametrize("text", GOOD_TEXTS)
def test_text_that_is_utf8(text: str) -> None:
    body = writer.packet(10, {"content": text})
    assert getattr(parse_frame(10, body), "content") == text  # noqa: B009


def test_every_sequence_of_up_to_three_bytes_is_judged_as_python_judges_it() -> None:
    """Lead bytes with every second byte, and the third at the edges of its range."""
    edges = (0x00, 0x28, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xFF)
    candidates = [bytes((a, b)) for a in range(0x7F, 0x100) for b in range(0x100)]
    candidates += [bytes((a, b, c)) for a in range(0xE0, 0x100) for b in edges for c in edges]
    candidates += [bytes((a, b, c, d)) for a in range(0xEF, 0xF6) for b in edges for c in edges for d in edges]
    for text in candidates:
        body = chat(writer.raw_table([u32(12)], b"\0\0" + u32(len(text)) + text + bytes(8 - len(text) % 4)))
        try:
            text.decode()
            expected = (0, "")
        except UnicodeDecodeError:
            expected = (4000, reference.UTF8)
        assert outcome(10, body) == expected, text.hex()


def test_a_nested_buffer_is_aligned_by_its_own_start() -> None:
    """PyPI's builder puts a payload on a multiple of 4; what counts is the distance from its own first byte."""
    payload = writer.table("ChatMessage", {"msg_id": "a", "from_user": 5})
    starts = set()
    for newer in range(3):
        body = writer.table("Packet", {"msg_type": 10, "payload": payload}, newer)
        starts.add(body.index(payload) % 8)
        assert outcome(10, body) == (0, "")
    assert starts == {0, 4}


def test_heads() -> None:
    assert outcome(0, b"") == (0, "")
    assert outcome(10, b"") == (4000, reference.NO_BODY)
    assert outcome(10, writer.packet(10)) == (4000, reference.NO_PAYLOAD)
    assert outcome(10, writer.packet(11, {"msg_id": "a"})) == (4003, "")
    assert outcome(0, writer.packet(10, {"msg_id": "a"})) == (4003, "")
    for unknown in (6, 9, 13, 43, 63, 64, 65, 0x7FFF, 0xFFFF):
        assert outcome(unknown, b"") == (4002, "")
        assert outcome(unknown, b"garbage") == (4002, "")
        assert outcome(unknown, writer.table("Packet", {"msg_type": unknown & 0x7FFF})) == (4002, "")


def test_a_heartbeat_may_carry_anything() -> None:
    """Its payload has no table; it is bounded and never read."""
    body = writer.table("Packet", {"msg_type": 0, "seq": 9, "payload": b"\xff\xff\xff"})
    frame = parse_frame(0, body)
    assert frame.seq == 9
    assert frame.payload == b"\xff\xff\xff"


def test_a_vector_of_tables_looks_at_each() -> None:
    good = writer.table("SyncResponse", {"messages": [{"msg_id": "a"}, {"content": "bee"}]})
    assert outcome(21, sync_ack(good)) == (0, "")
    assert outcome(21, sync_ack(good.replace(b"bee", b"\xffee"))) == (4000, reference.UTF8)


@pytest.mark.parametrize(
    ("start", "count", "reason"),
    [(4, 2, ""), (4, 5, reference.BOUNDS), (4, 2**32 - 1, reference.BOUNDS), (5, 1, reference.ALIGNMENT)],
)
def test_a_vector_of_texts_lies_within_the_buffer(start: int, count: int, reason: str) -> None:
    """A GoAway by hand: endpoints, its fifth field, at 8, a vtable at 12..26, and the vector at 28 (or one beside)."""
    tail = b"\0\0" + u32(count) + u32(8) + u32(4) + u32(0) + u32(0)  # the two last are one empty text
    payload = writer.raw_table([None] * 4 + [u32(16 + start)], tail)
    body = writer.table("Packet", {"msg_type": 5, "payload": payload})
    assert outcome(5, body) == reference.verdict(5, body)
    if reason:
        assert outcome(5, body) == (4000, reason)
