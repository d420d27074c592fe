"""The tables of schema/*.fbs, read from the text itself: independent of flatc and of the extension."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, NamedTuple

SCHEMA: Final = Path(__file__).resolve().parents[2] / "schema"
SCALARS: Final = {
    "bool": (1, 0, 1),
    "byte": (1, -(2**7), 2**7 - 1),
    "short": (2, -(2**15), 2**15 - 1),
    "ushort": (2, 0, 2**16 - 1),
    "int": (4, -(2**31), 2**31 - 1),
    "uint": (4, 0, 2**32 - 1),
    "int64": (8, -(2**63), 2**63 - 1),
    "uint64": (8, 0, 2**64 - 1),
}
"""By the schema's name of a scalar: its size in bytes, least and greatest value."""


class Field(NamedTuple):
    """One field of a table.

    `kind` is a scalar's name of SCALARS, `string`, `[ubyte]`, `[int64]`, `[string]` or `[Table]`.
    """

    name: str
    kind: str
    default: int = 0

    @property
    def element(self) -> str:
        """The table in a vector of tables, else nothing."""
        inner = self.kind.strip("[]")
        return inner if self.kind.startswith("[") and inner not in ("ubyte", "int64", "string") else ""


def _text(name: str) -> str:
    return re.sub(r"//.*", "", (SCHEMA / name).read_text())


def _enums(text: str) -> dict[str, tuple[str, dict[str, int]]]:
    found = re.findall(r"enum (\w+)\s*:\s*(\w+)\s*\{([^}]*)\}", text)
    return {
        name: (base, {key.strip(): int(number) for key, number in re.findall(r"(\w+)\s*=\s*(\d+)", body)})
        for name, base, body in found
    }


def _tables(text: str) -> dict[str, tuple[Field, ...]]:
    bases = {name: base for name, (base, _) in _enums(text).items()}
    return {
        name: tuple(
            Field(field, bases.get(kind, kind), int(default or 0))
            for field, kind, default in re.findall(r"(\w+)\s*:\s*([\w\[\]]+)\s*(?:=\s*(\d+))?\s*;", body)
        )
        for name, body in re.findall(r"table (\w+)\s*\{([^}]*)\}", text)
    }


MESSAGE_TABLES: Final = _tables(_text("message.fbs"))
INTERNAL_TABLES: Final = _tables(_text("internal.fbs"))
TABLES: Final = MESSAGE_TABLES | INTERNAL_TABLES
ENUMS: Final = {name: values for name, (_, values) in _enums(_text("message.fbs") + _text("internal.fbs")).items()}

PAYLOADS: Final = {
    1: "AuthRequest",
    2: "AuthResponse",
    3: "Error",
    4: "Kick",
    5: "GoAway",
    10: "ChatMessage",
    11: "MessageAck",
    12: "Signal",
    20: "SyncRequest",
    21: "SyncResponse",
    30: "Event",
    40: "FileOffer",
    41: "FileAck",
    42: "FileChunk",
}
"""By MsgType: the table of its payload (protocol section 2). A Heartbeat, 0, has none."""
