"""What Hypothesis draws frames from, by the schema."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import strategies as st

from tests.framing import writer
from tests.framing.schema import PAYLOADS, SCALARS, TABLES, Field

uint64 = st.integers(0, 2**64 - 1)
int64 = st.integers(-(2**63), 2**63 - 1)
int32 = st.integers(-(2**31), 2**31 - 1)
texts = st.text(st.characters(codec="utf-8"), max_size=40)
names = st.text("abcXYZ019_-", min_size=1, max_size=64)


def values(field: Field) -> st.SearchStrategy[Any]:
    """Any value that the field can hold."""
    if field.kind in SCALARS:
        _, least, greatest = SCALARS[field.kind]
        return st.integers(least, greatest)
    if field.kind == "string":
        return texts
    if field.kind == "[ubyte]":
        return st.binary(max_size=80)
    if field.kind == "[int64]":
        return st.lists(int64, max_size=5)
    return st.lists(fields(field.element) if field.element else texts, max_size=4)


def fields(table: str) -> st.SearchStrategy[dict[str, Any]]:
    """Some of the table's fields, in any order."""
    some = st.fixed_dictionaries({}, optional={field.name: values(field) for field in TABLES[table]})
    return some.flatmap(lambda chosen: st.permutations(list(chosen.items())).map(dict))


@st.composite
def packets(draw: st.DrawFn) -> tuple[int, bytes, dict[str, Any], dict[str, int]]:
    """A valid frame's type and body, and what is in it: the payload's fields and the packet's own."""
    msg_type = draw(st.sampled_from([0, *PAYLOADS]))
    content = draw(fields(PAYLOADS[msg_type])) if msg_type else {}
    head = draw(st.fixed_dictionaries({}, optional={"seq": uint64, "timestamp": uint64}))
    newer = draw(st.integers(0, 2))
    return msg_type, writer.packet(msg_type, content if msg_type else None, newer, **head), content, head


def mutate(rng: random.Random, body: bytes, others: list[bytes]) -> bytes:
    """`body` with a few bytes, offsets or stretches changed, the way corruption and attackers do."""
    data = bytearray(body)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        where = rng.randrange(max(1, len(data)))
        kind = rng.randrange(10)
        if kind < 2 and data:
            data[where] ^= 1 << rng.randrange(8)
        elif kind == 2 and data:
            data[where] = rng.choice((0, 1, 2, 3, 4, 8, 0x7F, 0x80, 0xC0, 0xE0, 0xED, 0xF4, 0xFF, rng.randrange(256)))
        elif kind == 3:
            where &= ~1
            data[where : where + 2] = rng.choice((0, 2, 4, 6, 8, 12, 0xFFFF, len(data), where)).to_bytes(4, "little")[
                :2
            ]
        elif kind < 6:
            where &= ~3
            number = rng.choice((0, 1, 4, 8, 12, 2**31, 2**32 - 1, 2**32 - 4, len(data), len(data) - where, where))
            data[where : where + 4] = (number + rng.choice((0, 0, 0, 1, -1, 4, -4))).to_bytes(5, "little", signed=True)[
                :4
            ]
        elif kind == 6:
            del data[where:]
        elif kind == 7:
            size = rng.choice((1, 2, 4, 8))
            data[where:where] = bytes(rng.randrange(256) for _ in range(size))
        elif kind == 8:
            size = rng.choice((1, 2, 4, 8, 16))
            source = rng.randrange(max(1, len(data)))
            data[where : where + size] = data[source : source + size]
        else:
            other = rng.choice(others)
            cut = rng.randrange(len(other) + 1) & ~3
            data[where & ~3 :] = other[cut:]
    return bytes(data)
