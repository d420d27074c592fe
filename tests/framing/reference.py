"""The verifier of protocol section 2 once more, in plain Python and written for reading: what ours must agree with.

Visited bytes, which the budget of 4 per received byte counts: for each table its offset to the vtable, the vtable's
head and the entries of fields we know, and each present field's own bytes; for each string its length, text and NUL;
for each vector its length, and the elements if they are numbers or offsets. A [ubyte] is not looked into.
"""

from __future__ import annotations

import struct
from typing import Final

from tests.framing.schema import PAYLOADS, SCALARS, TABLES

BOUNDS: Final = "a value lies outside the buffer"
ALIGNMENT: Final = "a value is not aligned"
OFFSET: Final = "an offset is null or negative"
VTABLE: Final = "a vtable has no valid size"
TERMINATOR: Final = "a string has no terminating NUL"
UTF8: Final = "a string is not UTF-8"
BUDGET: Final = "the work budget is spent"
NO_PAYLOAD: Final = "the payload is missing"
NO_BODY: Final = "the body is missing"


class Refused(Exception):
    """Why a buffer is refused; the text is one of the constants above."""


class Work:
    """What may be visited still."""

    def __init__(self, received: int) -> None:
        self.left = 4 * received

    def visit(self, count: int) -> None:
        self.left -= count

    def check(self) -> None:
        if self.left < 0:
            raise Refused(BUDGET)


class Reference:
    """One FlatBuffer under verification; positions count from its first byte."""

    def __init__(self, data: bytes, work: Work) -> None:
        self.data = data
        self.work = work

    def number(self, where: int, code: str) -> int:
        """A little-endian number, aligned to its size and within the buffer."""
        size = struct.calcsize(code)
        if where % size:
            raise Refused(ALIGNMENT)
        if where < 0 or where + size > len(self.data):
            raise Refused(BOUNDS)
        value: int = struct.unpack_from("<" + code, self.data, where)[0]
        return value

    def follow(self, where: int) -> int:
        offset = self.number(where, "I")
        if not 0 < offset < 2**31:
            raise Refused(OFFSET)
        return where + offset

    def root(self, table: str) -> dict[str, int]:
        if len(self.data) < 12:
            raise Refused(BOUNDS)
        return self.table(self.follow(0), table)

    def table(self, where: int, name: str) -> dict[str, int]:
        """Where each present field of the table is."""
        vtable = where - self.number(where, "i")
        if vtable < 0 or vtable + 4 > len(self.data):
            raise Refused(BOUNDS)
        size = self.number(vtable, "H")
        if size < 4 or size % 2:
            raise Refused(VTABLE)
        if vtable + size > len(self.data):
            raise Refused(BOUNDS)
        fields = TABLES[name][: (size - 4) // 2]
        self.work.visit(8 + 2 * len(fields))
        self.work.check()
        present = {}
        for index, field in enumerate(fields):
            offset = self.number(vtable + 4 + 2 * index, "H")
            if offset:
                present[field.name] = where + offset
                self.field(where + offset, field.kind, field.element)
        self.work.check()
        return present

    def field(self, where: int, kind: str, element: str) -> None:
        if kind in SCALARS:
            self.work.visit(SCALARS[kind][0])
            self.number(where, {1: "B", 2: "H", 4: "I", 8: "Q"}[SCALARS[kind][0]])
            return
        self.work.visit(4)
        target = self.follow(where)
        if kind == "string":
            self.string(target)
        elif kind == "[ubyte]":
            self.vector(target, 1)
        elif kind == "[int64]":
            self.work.visit(8 * self.vector(target, 8))
        else:
            for index in range(self.vector(target, 4)):
                place = target + 4 + 4 * index
                self.work.visit(4)
                inner = place + struct.unpack_from("<I", self.data, place)[0]
                self.table(inner, element) if element else self.string(inner)

    def vector(self, where: int, width: int) -> int:
        count = self.number(where, "I")
        if where + 4 + count * width > len(self.data):
            raise Refused(BOUNDS)
        if width == 8 and (where + 4) % 8:
            raise Refused(ALIGNMENT)
        self.work.visit(4)
        return count

    def string(self, where: int) -> None:
        size = self.vector(where, 1)
        end = where + 4 + size
        if end >= len(self.data):
            raise Refused(BOUNDS)
        if self.data[end]:
            raise Refused(TERMINATOR)
        self.work.visit(size + 1)
        self.work.check()
        try:
            self.data[where + 4 : end].decode()
        except UnicodeDecodeError:
            raise Refused(UTF8) from None


def verdict(msg_type: int, body: bytes) -> tuple[int, str]:
    """The code for a body under a header of `msg_type`, 0 if it is accepted, and the reason behind a 4000."""
    known = msg_type == 0 or msg_type in PAYLOADS
    if not body and msg_type == 0:
        return 0, ""
    if not known:
        return 4002, ""
    if not body:
        return 4000, NO_BODY
    work = Work(len(body))
    packet = Reference(body, work)
    try:
        fields = packet.root("Packet")
        said = packet.number(fields["msg_type"], "h") if "msg_type" in fields else 0
        if said != msg_type:
            return 4003, ""
        if msg_type in PAYLOADS:
            if "payload" not in fields:
                raise Refused(NO_PAYLOAD)
            vector = packet.follow(fields["payload"])
            size = packet.number(vector, "I")
            Reference(body[vector + 4 : vector + 4 + size], work).root(PAYLOADS[msg_type])
    except Refused as refusal:
        return 4000, str(refusal)
    return 0, ""


def envelope_verdict(name: str, data: bytes) -> str:
    """Why an envelope is refused, or nothing; its packet is not looked into."""
    try:
        Reference(data, Work(len(data))).root(name)
    except Refused as refusal:
        return str(refusal)
    return ""
