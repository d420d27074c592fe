"""FileChunk by hand: a file is thousands of them, and the general way costs each several hundred microseconds.

Reads only what `_framing` has verified; what is written is what flatc's own builder would, in a fixed order of fields.
"""

from __future__ import annotations

import struct
from typing import Final

from gateway._framing import Frame, build_frame
from gateway.protocol.messages import FileChunk
from gateway.protocol.types import MsgType

# root, vtable (its size, the table's, four fields), padding, table: way back to the vtable, file_id, data, offset, last
_FRONT: Final = struct.Struct("<I6H4x i I I Q B3x")
_TABLE: Final = 20
_FIELDS: Final = (4, 12, 8, 20)
"""Where file_id, offset, data and last stand in the table."""
_U16: Final = struct.Struct("<H").unpack_from
_U32: Final = struct.Struct("<I").unpack_from
_I32: Final = struct.Struct("<i").unpack_from
_U64: Final = struct.Struct("<Q").unpack_from
_SIZE: Final = struct.Struct("<I").pack


def chunk_frame(chunk: FileChunk, *, seq: int, timestamp: int) -> bytes:
    """A whole frame, as `messages.encode` builds it.

    Raises:
        struct.error, OverflowError: an offset, seq or timestamp that is no uint64.
    """
    name = chunk.file_id.encode()
    text = _SIZE(len(name)) + name + b"\0" * (4 - len(name) % 4)
    texts_at = _FRONT.size
    data_at = texts_at + len(text)
    front = _FRONT.pack(
        _TABLE, 12, 21, *_FIELDS, _TABLE - 4,
        texts_at - (_TABLE + _FIELDS[0]), data_at - (_TABLE + _FIELDS[2]), chunk.offset, chunk.last,
    )  # fmt: skip
    payload = b"".join((front, text, _SIZE(len(chunk.data)), chunk.data))
    return build_frame(MsgType.FILE_CHUNK, seq, timestamp, payload)


def read_chunk(frame: Frame) -> FileChunk:
    """What a verified FileChunk frame says."""
    payload = frame.payload
    table = _U32(payload)[0]
    vtable = table - _I32(payload, table)[0]
    known = _U16(payload, vtable)[0]

    def at(field: int) -> int:
        slot = 4 + 2 * field
        offset = _U16(payload, vtable + slot)[0] if slot < known else 0
        return table + offset if offset else 0

    name, offset, data, last = map(at, range(4))
    return FileChunk(
        file_id=_vector(payload, name).decode() if name else "",
        offset=_U64(payload, offset)[0] if offset else 0,
        data=_vector(payload, data) if data else b"",
        last=bool(payload[last]) if last else False,
    )


def _vector(payload: bytes, field: int) -> bytes:
    start = field + _U32(payload, field)[0]
    return payload[start + 4 : start + 4 + _U32(payload, start)[0]]
