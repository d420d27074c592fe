"""Numbers, varints, frames and header fields of HTTP/3, at every cut."""

from __future__ import annotations

import pytest

from gateway.protocol.http3 import (
    Capsule,
    FrameType,
    H3Code,
    H3Failure,
    Manner,
    Reader,
    close_capsule,
    frame,
    from_h3,
    parse_close,
    parse_settings,
    settings_frame,
    to_h3,
)
from gateway.protocol.qpack import DecoderStream, check_encoder_stream, decode_headers, encode_headers
from gateway.protocol.varints import read_varint, varint

VALUES = (0, 1, 0x3F, 0x40, 0x3FFF, 0x4000, 0x3FFF_FFFF, 0x4000_0000, (1 << 62) - 1)


def failing(code: H3Code) -> pytest.RaisesExc[H3Failure]:
    return pytest.raises(H3Failure, check=lambda error: error.code is code)


@pytest.mark.parametrize("value", VALUES)
def test_varints_there_and_back_and_none_when_cut(value: int) -> None:
    written = varint(value)
    assert read_varint(b"x" + written + b"rest", 1) == (value, 1 + len(written))
    for cut in range(len(written)):
        assert read_varint(written[:cut]) is None


def test_application_codes_map_as_the_draft_says_and_reserved_ones_mean_nothing() -> None:
    assert to_h3(0) == 0x52E4A40FA8DB
    assert to_h3(0xFFFF_FFFF) == 0x52E5AC983162
    for code in (0, 1, 0x1D, 0x1E, 0x1F, 4000, 4303, 0xFFFF_FFFF):
        assert from_h3(to_h3(code)) == code
    assert from_h3(H3Code.REQUEST_CANCELLED) is None
    assert from_h3(to_h3(0x1D) + 1) is None, "reserved: 0x1f * n + 0x21"


def judge(kind: int, length: int) -> Manner:
    if kind == 9:
        raise H3Failure(H3Code.FRAME_UNEXPECTED, "nine")
    if length > 1000:
        raise H3Failure(H3Code.EXCESSIVE_LOAD, "long")
    return {0: Manner.FLOW, 1: Manner.GATHER}.get(kind, Manner.SKIP)


def test_frames_cut_anywhere_give_the_same() -> None:
    stream = frame(1, b"headers") + frame(0, b"some data") + frame(0x4242, b"skipped") + frame(1, b"") + frame(0, b"")
    stream += frame(1, b"x" * 300) + frame(0, b"end")
    for step in (1, 2, 3, 7, len(stream)):
        reader = Reader(judge)
        told: list[tuple[int, bytes]] = []
        for at in range(0, len(stream), step):
            told += reader.feed(stream[at : at + step])
        assert not reader.partial
        gathered = [value for kind, value in told if kind == 1]
        assert gathered == [b"headers", b"", b"x" * 300]
        assert b"".join(value for kind, value in told if kind == 0) == b"some dataend"
        assert {kind for kind, _ in told} == {0, 1}


def test_a_frame_is_refused_on_its_header_and_never_gathered_by_its_length() -> None:
    with failing(H3Code.EXCESSIVE_LOAD):
        list(Reader(judge).feed(varint(1) + varint((1 << 62) - 1)))
    with failing(H3Code.FRAME_UNEXPECTED):
        list(Reader(judge).feed(frame(9, b"")))
    reader = Reader(judge)
    assert list(reader.feed(varint(1) + varint(100) + b"half")) == []
    assert reader.partial


def test_settings_there_and_back_and_what_may_not_be_said() -> None:
    settings = {0x1: 0, 0x33: 1, 0x21: 99}
    assert dict(Reader(lambda kind, length: Manner.GATHER).feed(settings_frame(settings))) == {
        FrameType.SETTINGS: b"".join(varint(key) + varint(value) for key, value in settings.items())
    }
    for wrong in (b"\x02\x00", b"\x04\x01", b"\x33\x01\x33\x01", b"\x33\x02", b"\x08\x02"):
        with failing(H3Code.SETTINGS_ERROR):
            parse_settings(wrong)
    for cut in (b"\x33", b"\x40", b"\x33\x40"):
        with failing(H3Code.FRAME_ERROR):
            parse_settings(cut)


def test_the_close_capsule_carries_code_and_reason_and_cuts_between_characters() -> None:
    reader = Reader(lambda kind, length: Manner.GATHER)
    ((kind, value),) = reader.feed(close_capsule(4200, "replaced"))
    assert (kind, parse_close(value)) == (Capsule.CLOSE_SESSION, (4200, "replaced"))
    ((_, long),) = reader.feed(close_capsule(1, "é" * 600 + "!"))
    assert parse_close(long) == (1, "é" * 512)
    ((_, odd),) = reader.feed(close_capsule(1, "x" + "é" * 600))
    assert parse_close(odd) == (1, "x" + "é" * 511)
    assert parse_close(b"\0\0\0\1\xff") == (1, "\ufffd")
    with failing(H3Code.MESSAGE_ERROR):
        parse_close(b"\0\0\0")


def test_header_fields_there_and_back_within_their_limit() -> None:
    fields = [(b":method", b"CONNECT"), (b":protocol", b"webtransport"), (b"origin", b"https://a.example")]
    block = encode_headers(fields)
    assert decode_headers(block, 1000) == fields
    size = sum(len(name) + len(value) + 32 for name, value in fields)
    assert decode_headers(block, size) == fields
    with failing(H3Code.EXCESSIVE_LOAD):
        decode_headers(block, size - 1)


def test_small_blocks_that_mean_much_are_refused() -> None:
    with failing(H3Code.EXCESSIVE_LOAD):  # each byte is a field of the static table
        decode_headers(b"\0\0" + b"\xd1" * 16_000, 16_384)


@pytest.mark.parametrize(
    "block", [b"", b"\0", b"\0\0\x80", b"\x02\0\x80", b"\0\0\x10", b"\0\0\x50", b"\0\0\x23abc", b"\xff" * 32]
)
def test_header_fields_that_need_a_dynamic_table_or_are_cut(block: bytes) -> None:
    with failing(H3Code.QPACK_DECOMPRESSION_FAILED):
        decode_headers(block, 1000)


def test_an_encoder_may_only_say_that_its_table_has_no_capacity() -> None:
    check_encoder_stream(b"\x20\x20")
    for instruction in (b"\x21", b"\x3f\xe1\x1f", b"\xc0\x01x", b"\x41x\x01y", b"\x00"):
        with failing(H3Code.QPACK_ENCODER_STREAM_ERROR):
            check_encoder_stream(instruction)


def test_a_decoder_may_only_cancel_streams() -> None:
    stream = DecoderStream()
    for byte in b"\x40\x44\x7f\x85\x01\x7f\x00":
        stream.feed(bytes((byte,)))
    for wrong in (b"\x80", b"\x01", b"\x00", b"\x7f" + b"\xff" * 10):
        with failing(H3Code.QPACK_DECODER_STREAM_ERROR):
            DecoderStream().feed(wrong)
