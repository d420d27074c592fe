"""FileChunks written and read by hand are those that the general way writes and reads."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway._framing import HEADER, parse_frame
from gateway.protocol.chunks import chunk_frame, read_chunk
from gateway.protocol.messages import FileChunk, decode, encode
from gateway.protocol.types import MsgType

CHUNKS = st.builds(
    FileChunk,
    file_id=st.text(max_size=70),
    offset=st.integers(0, 2**64 - 1),
    data=st.binary(max_size=40),
    last=st.booleans(),
)


@given(CHUNKS, st.integers(0, 2**64 - 1))
def test_written_by_hand_it_is_valid_and_reads_the_same(chunk: FileChunk, seq: int) -> None:
    frame = parse_frame(MsgType.FILE_CHUNK, chunk_frame(chunk, seq=seq, timestamp=7)[HEADER:])
    assert (frame.seq, frame.timestamp) == (seq, 7)
    assert decode(frame) == read_chunk(frame) == chunk


@given(CHUNKS)
def test_what_others_write_reads_the_same(chunk: FileChunk) -> None:
    frame = parse_frame(MsgType.FILE_CHUNK, encode(chunk)[HEADER:])
    assert read_chunk(frame) == chunk


def test_a_full_one_and_one_that_cannot_be() -> None:
    chunk = FileChunk(file_id="f-1", offset=2**40, data=bytes(range(256)) * 64, last=True)
    assert read_chunk(parse_frame(MsgType.FILE_CHUNK, chunk_frame(chunk, seq=1, timestamp=2)[HEADER:])) == chunk
    with pytest.raises(struct.error):
        chunk_frame(FileChunk(offset=-1), seq=1, timestamp=2)
