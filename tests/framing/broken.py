"""Buffers that are broken in one way each, and text that is no UTF-8."""

from __future__ import annotations

import struct

from tests.framing import reference, writer


def u32(value: int) -> bytes:
    return struct.pack("<I", value)


TEXT = u32(2) + b"ok\0\0"
# A ChatMessage with msg_id only: root, table at 4 with the string's offset at 8, vtable 12..18, string at 20.
GOOD = writer.raw_table([u32(12)], b"\0\0" + TEXT)

REASONS = {
    "root beyond the end": (u32(400) + GOOD[4:], reference.BOUNDS),
    "root null": (u32(0) + GOOD[4:], reference.OFFSET),
    "root negative": (u32(2**31 + 4) + GOOD[4:], reference.OFFSET),
    "root not aligned": (u32(6) + GOOD[4:], reference.ALIGNMENT),
    "vtable before the start": (GOOD[:4] + u32(400) + GOOD[8:], reference.BOUNDS),
    "vtable beyond the end": (GOOD[:4] + u32(2**32 - 400) + GOOD[8:], reference.BOUNDS),
    "vtable not aligned": (GOOD[:4] + u32(2**32 - 9) + GOOD[8:], reference.ALIGNMENT),
    "vtable of no size": (GOOD[:12] + b"\0\0" + GOOD[14:], reference.VTABLE),
    "vtable of odd size": (GOOD[:12] + b"\5\0" + GOOD[14:], reference.VTABLE),
    "vtable longer than the buffer": (GOOD[:12] + b"\xf0\0" + GOOD[14:], reference.BOUNDS),
    "field beyond the end": (GOOD[:16] + b"\xf0\0" + GOOD[18:], reference.BOUNDS),
    "field not aligned": (GOOD[:16] + b"\6\0" + GOOD[18:], reference.ALIGNMENT),
    "string null": (GOOD[:8] + u32(0) + GOOD[12:], reference.OFFSET),
    "string beyond the end": (GOOD[:8] + u32(4000) + GOOD[12:], reference.BOUNDS),
    "string not aligned": (GOOD[:8] + u32(13) + GOOD[12:], reference.ALIGNMENT),
    "string longer than the buffer": (GOOD[:20] + u32(5) + GOOD[24:], reference.BOUNDS),
    "string of 2^32-1": (GOOD[:20] + u32(2**32 - 1) + GOOD[24:], reference.BOUNDS),
    "string not terminated": (GOOD[:26] + b"x" + GOOD[27:], reference.TERMINATOR),
    "string ends with the buffer": (GOOD[:26], reference.BOUNDS),
    "shorter than any table": (b"\4\0\0\0\4\0\0\0", reference.BOUNDS),
    "empty": (b"", reference.BOUNDS),
}
"""By name: a ChatMessage buffer and the reason it is refused for."""

BAD_TEXTS = [
    b"\x80", b"\xbf", b"\xc0\x80", b"\xc1\xbf", b"\xe0\x9f\xbf", b"\xf0\x8f\xbf\xbf", b"\xed\xa0\x80", b"\xed\xbf\xbf",
    b"\xf4\x90\x80\x80", b"\xf5\x80\x80\x80", b"\xff", b"\xfe", b"\xc3", b"\xe2\x82", b"\xf0\x9f\x98", b"\xc3\x28",
    b"\xe2\x28\xa1", b"\xe2\x82\x28", b"\xf0\x28\x8c\xbc", b"\xf0\x90\x28\xbc", b"\xf0\x28\x8c\x28",
]  # fmt: skip
