"""A SyncResponse put together from whole ChatMessages, without the Python FlatBuffers builder.

Every offset inside a FlatBuffer is relative, so a finished ChatMessage may lie inside a larger buffer as it is, on
a multiple of 8; the vector of messages points at each one's root table. A page of a hundred costs a tenth of what
the builder takes for it, and a thousand users who come back at once ask for a thousand pages.
"""

from __future__ import annotations

import struct
from typing import Final

from gateway._framing import HEADER, build_chat, build_frame, parse_frame
from gateway.logic.store import Entry, Page
from gateway.protocol.types import MsgType

_HEAD: Final = struct.Struct("<I HHHHHH iiQIBxxx I")
"""The buffer up to the vector's elements: root offset; vtable; table; the vector's length."""
_VTABLE: Final = (12, 24, 4, 16, 8, 20)
"""Its size, the table's size, and where in the table code, messages, next_cursor and has_more are."""
_TABLE_AT: Final = 16
_VECTOR_AT: Final = 40
_ROOT: Final = struct.Struct("<I")


def sync_packet(page: Page, seq: int, timestamp: int) -> bytes:
    """The Packet of a SyncAck that carries `page`."""
    blobs = [_chat(entry) for entry in page.entries]
    at = _aligned(_HEAD.size + 4 * len(blobs))
    offsets = []
    for index, blob in enumerate(blobs):
        slot = _HEAD.size + 4 * index
        offsets.append(at + _ROOT.unpack_from(blob)[0] - slot)
        at += len(blob)
    head = _HEAD.pack(
        _TABLE_AT, *_VTABLE, _TABLE_AT - 4, 0, page.next_cursor, _VECTOR_AT - _TABLE_AT - 16, page.has_more, len(blobs)
    )
    vector = struct.pack(f"<{len(offsets)}I", *offsets)
    padding = bytes(-(len(head) + len(vector)) % 8)
    payload = b"".join((head, vector, padding, *blobs))
    return build_frame(MsgType.SYNC_ACK, seq, timestamp, payload)[HEADER:]


def _chat(entry: Entry) -> bytes:
    """A ChatMessage as a buffer of its own, a multiple of 8 long."""
    frame = build_chat(
        0, 0, entry.msg_id, entry.sender, entry.to_user, entry.content, entry.content_type, entry.sent_at,
        entry.group_id, entry.server_seq,
    )  # fmt: skip
    payload = parse_frame(MsgType.MESSAGE, frame[HEADER:]).payload
    return payload + bytes(-len(payload) % 8)


def _aligned(size: int) -> int:
    return (size + 7) & ~7
