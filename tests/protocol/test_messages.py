"""Structs and frames: there and back, the schema's fields and defaults, and what cannot be written."""

from __future__ import annotations

import struct
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway._framing import HEADER, FrameError, parse_frame
from gateway.protocol import messages
from gateway.protocol.messages import (
    AuthRequest,
    ChatMessage,
    ErrorMessage,
    GoAway,
    Heartbeat,
    Message,
    MessageAck,
    SyncRequest,
    SyncResponse,
    decode,
    encode,
    packet,
    type_of,
)
from gateway.protocol.types import AckStatus, MsgType
from tests.framing import writer
from tests.framing.schema import PAYLOADS, SCALARS, TABLES
from tests.framing.strategies import fields, uint64

STRUCTS: dict[str, type[Message]] = {table.name: table.struct for table in messages.TABLES.values()}


def made(table: str, values: dict[str, Any]) -> Message:
    """The Struct of drawn fields."""
    struct = STRUCTS[table]
    ready = {}
    for field in TABLES[table]:
        if field.name in values:
            value = values[field.name]
            if field.element:
                value = tuple(made(field.element, item) for item in value)
            elif isinstance(value, list):
                value = tuple(value)
            ready[field.name] = bool(value) if field.kind == "bool" else value
    return struct(**ready)


@pytest.mark.parametrize("msg_type", sorted(PAYLOADS))
def test_a_struct_has_the_tables_fields_in_order_with_its_defaults(msg_type: int) -> None:
    struct = STRUCTS[PAYLOADS[msg_type]]
    table = TABLES[PAYLOADS[msg_type]]
    assert struct.__struct_fields__ == tuple(field.name for field in table)
    default = struct()
    for field in table:
        value = getattr(default, field.name)
        expected: dict[str, Any] = {"string": "", "[ubyte]": b"", "bool": False}
        if field.kind in SCALARS and field.kind != "bool":
            assert value == field.default
        else:
            assert value == expected.get(field.kind, ())
    assert type_of(default) == msg_type


@pytest.mark.parametrize("table", sorted(STRUCTS))
@given(st.data(), uint64, uint64)
@settings(deadline=None, max_examples=60, derandomize=True, database=None)
def test_there_and_back(table: str, data: st.DataObject, seq: int, timestamp: int) -> None:
    values = data.draw(fields(table))
    message = made(table, values)
    frame = encode(message, seq=seq, timestamp=timestamp)
    length, msg_type = struct.unpack_from(">IH", frame)
    assert length == len(frame) - HEADER
    parsed = parse_frame(msg_type, frame[HEADER:])
    assert (parsed.seq, parsed.timestamp) == (seq, timestamp)
    assert decode(parsed) == message
    assert packet(message, seq=seq, timestamp=timestamp) == frame[HEADER:]
    # and what the plain writer writes is read the same
    assert decode(parse_frame(msg_type, writer.packet(msg_type, values, newer=1))) == message


def test_heartbeat() -> None:
    frame = parse_frame(0, encode(Heartbeat(), seq=3, timestamp=4)[HEADER:])
    assert (decode(frame), frame.seq, frame.timestamp) == (Heartbeat(), 3, 4)
    assert decode(parse_frame(0, b"")) == Heartbeat()


def test_defaults_are_left_out() -> None:
    small = encode(ChatMessage(msg_id="m"))
    full = encode(ChatMessage(msg_id="m", from_user=1, to_user=2, timestamp=3, group_id=4, server_seq=5))
    assert len(small) + 40 <= len(full)
    assert decode(parse_frame(MsgType.SYNC, packet(SyncRequest()))) == SyncRequest(limit=100)
    assert decode(parse_frame(MsgType.SYNC, packet(SyncRequest(limit=0)))) == SyncRequest(limit=0)


def test_unknown_numbers_of_an_enumeration_pass() -> None:
    ack = MessageAck(msg_id="m", status=77)
    assert decode(parse_frame(MsgType.MESSAGE_ACK, packet(ack))) == ack
    assert MessageAck().status is AckStatus.ACCEPTED


@pytest.mark.parametrize(
    "message",
    [
        MessageAck(status=128),
        MessageAck(code=2**31),
        ChatMessage(to_user=2**63),
        ChatMessage(timestamp=-1),
        SyncRequest(limit=65536),
        GoAway(jitter_ms=2**32),
        SyncResponse(messages=(ChatMessage(from_user=2**63),)),
        ErrorMessage(message="\ud800"),
    ],
)
def test_what_the_schema_cannot_hold_is_a_value_error(message: Message) -> None:
    with pytest.raises(ValueError, match=r"bad number|surrogates not allowed"):
        encode(message)


@pytest.mark.parametrize(("seq", "timestamp"), [(-1, 0), (2**64, 0), (0, -1), (0, 2**64)])
def test_a_seq_that_does_not_fit_is_an_overflow(seq: int, timestamp: int) -> None:
    for message in (Heartbeat(), ChatMessage()):
        with pytest.raises(OverflowError):
            encode(message, seq=seq, timestamp=timestamp)


def test_a_body_over_the_ceiling_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="over 16777216"):
        encode(ChatMessage(content="x" * 2**24))


def test_structs_are_frozen_and_take_keywords_only() -> None:
    message: Any = ChatMessage(msg_id="m")
    with pytest.raises(AttributeError):
        message.msg_id = "n"
    loose: Any = ChatMessage
    with pytest.raises(TypeError):
        loose("m")
    with pytest.raises(TypeError):
        loose(msgid="m")
    assert issubclass(ChatMessage, msgspec.Struct)


def test_a_token_is_never_shown() -> None:
    secret = "eyJhbGciOi.secret"
    request = AuthRequest(token=secret, resume_ticket=secret, device_id="phone", platform="ios", client="c")
    assert secret not in repr(request)
    assert secret not in f"{request}"
    assert "phone" in repr(request)
    response = messages.AuthResponse(resume_ticket=secret, session_id=secret, node_id="n")
    assert secret not in repr(response)


def test_decoding_needs_a_known_frame() -> None:
    with pytest.raises(FrameError):
        parse_frame(99, b"")
