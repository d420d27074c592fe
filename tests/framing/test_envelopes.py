"""Upstream and Downstream: read as written, verified with their packet, refused otherwise."""

from __future__ import annotations

import random
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway._framing import (
    FrameError,
    build_downstream,
    build_upstream,
    parse_downstream,
    parse_frame,
    parse_upstream,
    verify_envelope,
)
from tests.framing import reference, writer
from tests.framing.outcome import envelope_outcome
from tests.framing.schema import INTERNAL_TABLES
from tests.framing.strategies import fields, mutate, packets

CHAT = writer.packet(10, {"msg_id": "m", "to_user": 1}, seq=5)
EMPTY = {"node_id": "", "device_id": "", "platform": "", "conn_ids": ()}


@given(fields("Upstream"), packets())
def test_upstream_reads_as_written(drawn: dict[str, Any], inner: tuple[int, bytes, Any, Any]) -> None:
    msg_type, body, _, _ = inner
    envelope = parse_upstream(writer.table("Upstream", drawn | {"msg_type": msg_type, "packet": body}))
    for name in ("node_id", "conn_id", "user_id", "device_id", "platform", "received_at"):
        assert getattr(envelope, name) == drawn.get(name, EMPTY.get(name, 0)), name
    assert envelope.msg_type == msg_type
    assert (envelope.frame.type, envelope.frame.body) == (msg_type, body)


@given(fields("Downstream"), packets())
def test_downstream_reads_as_written(drawn: dict[str, Any], inner: tuple[int, bytes, Any, Any]) -> None:
    msg_type, body, _, _ = inner
    drawn = drawn | {"msg_type": msg_type, "packet": body}
    envelope = parse_downstream(writer.table("Downstream", drawn))
    for name in ("user_id", "device_id", "platform", "exclude_conn_id", "action", "code", "expires_at"):
        assert getattr(envelope, name) == drawn.get(name, EMPTY.get(name, 0)), name
    assert envelope.conn_ids == tuple(drawn.get("conn_ids", ()))
    assert (envelope.msg_type, envelope.packet) == (msg_type, body)
    assert (envelope.frame.type, envelope.frame.body) == (msg_type, body)
    assert envelope.frame is envelope.frame


def test_a_kick_needs_no_packet_and_delivering_does() -> None:
    kick = parse_downstream(build_downstream(7, [], "d", "", 0, 1, 4202, 4, b"", 0))
    assert (kick.action, kick.code, kick.packet) == (1, 4202, b"")
    with pytest.raises(FrameError):
        _ = kick.frame
    with pytest.raises(FrameError) as caught:
        parse_downstream(build_downstream(7, [], "d", "", 0, 0, 0, 10, b"", 0))
    assert caught.value.code == 4000


@pytest.mark.parametrize(
    ("msg_type", "packet", "code"), [(10, b"bad", 4000), (11, CHAT, 4003), (99, CHAT, 4002), (-1, CHAT, 4002)]
)
def test_a_bad_packet_makes_a_bad_envelope(msg_type: int, packet: bytes, code: int) -> None:
    for parse, data in (
        (parse_upstream, writer.table("Upstream", {"msg_type": msg_type, "packet": packet})),
        (parse_downstream, writer.table("Downstream", {"msg_type": msg_type, "packet": packet})),
    ):
        with pytest.raises(FrameError) as caught:
            parse(data)
        assert caught.value.code == code


def test_every_truncation_of_an_envelope_is_refused() -> None:
    up = build_upstream("n", 1, 2, "d", "p", 3, parse_frame(10, CHAT))
    down = build_downstream(1, [1, 2], "d", "p", 0, 0, 0, 10, CHAT, 0)
    padding = 8
    for size in range(len(up) - padding):
        with pytest.raises(FrameError):
            parse_upstream(up[:size])
    for size in range(len(down) - padding):
        with pytest.raises(FrameError):
            parse_downstream(down[:size])


@given(st.sampled_from(sorted(INTERNAL_TABLES)), st.data(), st.integers(0, 2**32))
def test_mutants_are_judged_as_the_reference_judges_them(name: str, data: st.DataObject, seed: int) -> None:
    body = writer.table(name, data.draw(fields(name)))
    assert envelope_outcome(name, body) == ""
    rng = random.Random(seed)
    for _ in range(40):
        mutant = mutate(rng, body, [body])
        assert envelope_outcome(name, mutant) == reference.envelope_verdict(name, mutant), mutant.hex()


@pytest.mark.parametrize("gap", [0, 4])
def test_numbers_of_8_bytes_are_aligned(gap: int) -> None:
    """conn_ids laid out by hand on both neighbouring multiples of 4: table 4, its field 8, vtable 12..20, vector 20."""
    ids = struct.pack("<I2q", 2, 1, -2)
    data = writer.raw_table([None, struct.pack("<I", 12 + gap)], bytes(gap) + ids)
    assert reference.envelope_verdict("Downstream", data) == envelope_outcome("Downstream", data)
    if gap:
        assert envelope_outcome("Downstream", data) == reference.ALIGNMENT
    else:
        assert envelope_outcome("Downstream", data) == ""


def test_verify_envelope_knows_only_envelopes() -> None:
    with pytest.raises(KeyError):
        verify_envelope("ChatMessage", b"")
    with pytest.raises(FrameError, match="malformed UserEvent"):
        verify_envelope("UserEvent", b"")
