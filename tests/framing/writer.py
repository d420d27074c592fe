"""Frames written with the PyPI flatbuffers builder, also in layouts that our own builders never make."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import flatbuffers
from flatbuffers import number_types

from tests.framing.schema import PAYLOADS, SCALARS, TABLES, Field

FLAGS = {
    "bool": number_types.BoolFlags,
    "byte": number_types.Int8Flags,
    "short": number_types.Int16Flags,
    "ushort": number_types.Uint16Flags,
    "int": number_types.Int32Flags,
    "uint": number_types.Uint32Flags,
    "int64": number_types.Int64Flags,
    "uint64": number_types.Uint64Flags,
}

Fields = Mapping[str, Any]


def write_table(builder: flatbuffers.Builder, name: str, fields: Fields, newer: int = 0) -> int:
    """Write the fields given, in the order given, and `newer` fields that the schema does not have yet."""
    known: dict[str, tuple[int, Field]] = {field.name: (i, field) for i, field in enumerate(TABLES[name])}
    prepared = {key: _prepare(builder, known[key][1], value) for key, value in fields.items()}
    builder.StartObject(len(known) + newer)
    for key, value in prepared.items():
        index, field = known[key]
        if field.kind in SCALARS:
            builder.PrependSlot(FLAGS[field.kind], index, value, None)
        else:
            builder.PrependUOffsetTRelativeSlot(index, value, 0)
    for index in range(newer):
        builder.PrependUint32Slot(len(known) + index, 0xDEADBEEF, 0)
    return int(builder.EndObject())


def _prepare(builder: flatbuffers.Builder, field: Field, value: Any) -> Any:
    if field.kind in SCALARS:
        return value
    if field.kind == "string":
        return builder.CreateString(value)
    if field.kind == "[ubyte]":
        return builder.CreateByteVector(value)
    if field.kind == "[int64]":
        builder.StartVector(8, len(value), 8)
        for number in reversed(value):
            builder.PrependInt64(number)
        return builder.EndVector()
    offsets = [
        write_table(builder, field.element, item) if field.element else builder.CreateString(item) for item in value
    ]
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return builder.EndVector()


def table(name: str, fields: Fields, newer: int = 0) -> bytes:
    """A whole buffer with this table as its root."""
    builder = flatbuffers.Builder(64)
    builder.Finish(write_table(builder, name, fields, newer))
    return bytes(builder.Output())


def packet(msg_type: int, fields: Fields | None = None, newer: int = 0, **head: int) -> bytes:
    """A Packet of this type around its payload; `head` is seq and timestamp. Without `fields`, no payload."""
    outer: dict[str, Any] = {"msg_type": msg_type, **head}
    if fields is not None:
        outer["payload"] = table(PAYLOADS[msg_type], fields, newer)
    return table("Packet", outer, newer)


def frame(msg_type: int, body: bytes) -> bytes:
    """Header and body."""
    return struct.pack(">IH", len(body), msg_type) + body


def raw_table(values: Sequence[bytes | None], tail: bytes = b"") -> bytes:
    """A buffer laid out by hand: vtable, then the fields' bytes as they are, each aligned to its size, then `tail`.

    Position 0 has the root offset; the table comes first after it and the vtable behind the fields.
    """
    inline = b""
    entries = []
    for value in values:
        if value is None:
            entries.append(0)
            continue
        inline += b"\0" * (-(8 + len(inline)) % len(value))
        entries.append(4 + len(inline))
        inline += value
    inline += b"\0" * (-len(inline) % 4)
    vtable = struct.pack(f"<{2 + len(entries)}H", 4 + 2 * len(entries), 4 + len(inline), *entries)
    return struct.pack("<Ii", 4, -(4 + len(inline))) + inline + vtable + tail
