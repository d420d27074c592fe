"""Nothing over 16 MiB passes, wherever it enters."""

from __future__ import annotations

import pytest

from gateway._framing import (
    CEILING,
    HEADER,
    DispatchTable,
    FrameDecoder,
    FrameError,
    SharedFrame,
    build_downstream,
    build_frame,
    encode_frame,
    parse_downstream,
    parse_frame,
)
from tests.framing import writer

LARGEST = writer.table("Packet", {"msg_type": 0, "seq": 1, "payload": bytes(CEILING - 64)})


def test_the_largest_body_passes_everywhere() -> None:
    body = LARGEST + bytes(CEILING - len(LARGEST))
    frame = parse_frame(0, body)
    assert frame.seq == 1
    assert len(SharedFrame(frame.encode())) == HEADER + CEILING
    table = DispatchTable(lambda *_: None)
    table.echo(0)
    decoder = FrameDecoder(table, CEILING)
    assert decoder.table is table
    assert decoder.feed(None, frame.encode(), 5)[:HEADER] == b"\0\0\0\x28\0\0"
    assert parse_downstream(build_downstream(1, [], "", "", 0, 0, 0, 0, body, 0)).frame.seq == 1


def test_one_byte_more_does_not() -> None:
    body = LARGEST + bytes(CEILING + 1 - len(LARGEST))
    for use in (
        lambda: parse_frame(0, body),
        lambda: SharedFrame((CEILING + 1).to_bytes(4) + b"\0\0" + body),
        lambda: parse_downstream(build_downstream(1, [], "", "", 0, 0, 0, 0, body, 0)),
    ):
        with pytest.raises(FrameError, match="is over 16777216") as caught:
            use()
        assert caught.value.code == 4001
    with pytest.raises(ValueError, match="is over 16777216"):
        encode_frame(0, body)
    with pytest.raises(ValueError, match="is over 16777216"):
        build_frame(0, 0, 0, body)
