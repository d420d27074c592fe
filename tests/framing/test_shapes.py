"""The shapes compiled into the extension are the schema's."""

from __future__ import annotations

from typing import Any

import gateway._framing as framing
from tests.framing.schema import ENUMS, PAYLOADS, SCALARS, TABLES, Field

SHAPES: tuple[dict[str, str], dict[int, str]] = vars(framing)["_shapes"]()


def letter(field: Field) -> str:
    """How the extension writes a field's kind."""
    if field.kind in SCALARS:
        return str(SCALARS[field.kind][0])
    return {"string": "S", "[ubyte]": "B", "[int64]": "L", "[string]": "V"}.get(field.kind, "T")


def test_every_table_of_the_schema_has_its_shape() -> None:
    shapes = {name: "".join(map(letter, fields)) for name, fields in TABLES.items()}
    assert SHAPES[0] == shapes


def test_every_type_has_the_payload_of_the_protocol() -> None:
    assert SHAPES[1] == PAYLOADS
    assert {0, *PAYLOADS} == set(ENUMS["MsgType"].values())


def test_only_chat_messages_stand_in_a_vector_of_tables() -> None:
    """The one shape with an element is SyncResponse's; a second one needs an entry in _framing_verify.pxi."""
    elements = {(name, field.element) for name, fields in TABLES.items() for field in fields if field.element}
    assert elements == {("SyncResponse", "ChatMessage")}


def test_no_schema_nests_deeper_than_the_limit() -> None:
    """Depth is bounded by the schema itself: 3 with the packet; the verifier's limit of 16 guards later tables."""

    def depth(table: str) -> int:
        inner: list[Any] = [depth(field.element) for field in TABLES[table] if field.element]
        return 1 + max(inner, default=0)

    assert 1 + max(map(depth, TABLES)) == 3
