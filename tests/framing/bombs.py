"""Frames that cost a verifier as much as can be for their size. Used by the tests of threat 6 and the benchmark."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Final

from tests.framing import writer

Body = tuple[int, bytes]
"""A frame's type and body."""
LARGEST: Final = 65_536


def _text(content: bytes) -> bytes:
    return struct.pack("<I", len(content)) + content + bytes(4 - len(content) % 4)


def _table(index: int, tail: bytes) -> bytes:
    """A vtable and, behind it, a table whose one field, at `index`, is an offset to `tail`, which follows."""
    vtable = struct.pack("<HH", 6 + 2 * index, 8) + bytes(2 * index) + struct.pack("<H", 4)
    vtable += bytes(-len(vtable) % 4)
    return vtable + struct.pack("<iI", len(vtable), 4) + tail


def _buffer(index: int, tail: bytes) -> bytes:
    """A whole buffer whose root is such a table."""
    table = _table(index, tail)
    return struct.pack("<I", 4 + len(table) - len(tail) - 8) + table


def _references(count: int, target: bytes, entry: int = 0) -> bytes:
    """A vector of `count` offsets that all lead to byte `entry` of `target`, which follows it."""
    offsets = (4 * (count - i) + entry for i in range(count))
    return struct.pack("<I", count) + struct.pack(f"<{count}I", *offsets) + target


def _wrap(msg_type: int, payload: bytes) -> Body:
    body = writer.table("Packet", {"msg_type": msg_type, "payload": payload})
    return msg_type, body


EMPTY_TABLE: Final = struct.pack("<HHi", 4, 4, 4)
"""A vtable without fields, and a table on it at 4: 12 visited bytes for each reference of 4."""


def shared_empty_table(count: int) -> Body:
    """A SyncResponse with `count` references to one ChatMessage without fields."""
    return _wrap(21, _buffer(1, _references(count, EMPTY_TABLE, 4)))


def shared_table(count: int, text: bytes, index: int = 0) -> Body:
    """A SyncResponse with `count` references to one ChatMessage, whose msg_id (or content, 3) is `text`."""
    table = _table(index, _text(text))
    return _wrap(21, _buffer(1, _references(count, table, len(table) - len(_text(text)) - 8)))


def shared_scalar(count: int) -> Body:
    """A SyncResponse with `count` references to one ChatMessage, which has a content_type and nothing else."""
    vtable = struct.pack("<7H2x", 14, 8, 0, 0, 0, 0, 4)
    return _wrap(21, _buffer(1, _references(count, vtable + struct.pack("<ii", len(vtable), 7), len(vtable))))


def shared_text(count: int, text: bytes) -> Body:
    """A GoAway with `count` references to one endpoint."""
    return _wrap(5, _buffer(4, _references(count, _text(text))))


def long_text(text: bytes) -> Body:
    """A Message with one long content."""
    return _wrap(10, _buffer(3, _text(text)))


REFUSED: Final[Mapping[str, Callable[[], Body]]] = {
    "8000 references to one table of 32 KB": lambda: shared_table(8000, b"x" * 32000, 3),
    "8000 references to one text of 32 KB": lambda: shared_text(8000, b"x" * 32000),
    "16000 references to one table with a text": lambda: shared_table(16000, b""),
    "five references to one text that is the frame": lambda: shared_text(5, b"x" * 65000),
    "16000 references to one short text": lambda: shared_text(16000, "€€".encode() * 2),
}
ACCEPTED: Final[Mapping[str, Callable[[], Body]]] = {
    "16000 references to one empty table": lambda: shared_empty_table(16000),
    "16000 references to one empty text": lambda: shared_text(16000, b""),
    "16000 references to one letter": lambda: shared_text(16000, "é".encode()),
    "three references to one text of €": lambda: shared_text(3, "€".encode() * 21000),
    "one text of 𐀀": lambda: long_text("𐀀".encode() * 16000),
    "one text of a€": lambda: long_text("a€".encode() * 16000),
}
