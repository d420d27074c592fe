"""The golden frames of schema/corpus, for implementations in any language.

`python -m tests.framing.corpus` (`make corpus`) writes them.

They are written with the PyPI flatbuffers builder, not with ours, except those that show our own layout.
"""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from gateway._framing import (
    build_ack,
    build_chat,
    build_downstream,
    build_error,
    build_heartbeat,
    build_upstream,
    parse_frame,
)
from tests.framing import bombs, reference, writer
from tests.framing.broken import BAD_TEXTS, REASONS
from tests.framing.schema import INTERNAL_TABLES, PAYLOADS, SCALARS, TABLES, Field

CORPUS: Final = Path(__file__).resolve().parents[2] / "schema" / "corpus"
LIMIT: Final = 65_536


class Golden(NamedTuple):
    """One file: its bytes, and what the index says of it."""

    name: str
    data: bytes
    entry: dict[str, Any]


def sample(field: Field, index: int) -> Any:
    """A telling value: the greatest number, text of one to four bytes a character, every byte."""
    if field.kind == "bool":
        return True
    if field.kind in SCALARS:
        return SCALARS[field.kind][2] - index
    if field.kind == "string":
        return f"{field.name} é€𐀀"
    if field.kind == "[ubyte]":
        return bytes(range(256))
    if field.kind == "[int64]":
        return [1, -1, 2**63 - 1]
    return [full(field.element), {}] if field.element else ["", "one", "twø"]


def full(table: str) -> dict[str, Any]:
    """Every field of the table."""
    return {field.name: sample(field, index) for index, field in enumerate(TABLES[table])}


def default(field: Field) -> Any:
    """What an absent field reads as."""
    if field.kind in SCALARS:
        return field.default
    return {"string": "", "[ubyte]": b""}.get(field.kind, [])


def shown(table: str, fields: dict[str, Any]) -> dict[str, Any]:
    """Fields as the index has them: 64-bit numbers as decimal text, [ubyte] as hex, absent ones as default."""
    return {field.name: _shown(field, fields.get(field.name, default(field))) for field in TABLES[table]}


def _shown(field: Field, value: Any) -> Any:
    if field.kind in ("int64", "uint64"):
        return str(value)
    if field.kind == "[int64]":
        return [str(number) for number in value]
    if field.kind == "bool":
        return bool(value)
    if field.kind == "[ubyte]":
        return value.hex()
    if field.element:
        return [shown(field.element, item) for item in value]
    return value


def accepted(name: str, msg_type: int, body: bytes, fields: dict[str, Any] | None, **head: int) -> Golden:
    """A frame that passes, with all that it says."""
    assert reference.verdict(msg_type, body) == (0, "")
    entry: dict[str, Any] = {"type": msg_type, "verdict": "accept", "code": 0}
    entry |= {"seq": str(head.get("seq", 0)), "timestamp": str(head.get("timestamp", 0))}
    if fields is not None:
        entry |= {"table": PAYLOADS[msg_type], "fields": shown(PAYLOADS[msg_type], fields)}
    return Golden(name, writer.frame(msg_type, body), entry)


def refused(name: str, msg_type: int, body: bytes) -> Golden:
    """A frame that does not pass, with the code and, for 4000, the reason."""
    code, reason = reference.verdict(msg_type, body)
    assert code
    entry = {"type": msg_type, "verdict": "refuse", "code": code} | ({"reason": reason} if reason else {})
    return Golden(name, writer.frame(msg_type, body), entry)


def _good() -> Iterator[Golden]:
    head = {"seq": 2**64 - 1, "timestamp": 1_700_000_000_000}
    yield accepted("heartbeat-empty-body", 0, b"", None)
    yield accepted("heartbeat", 0, writer.packet(0, None, 0, **head), None, **head)
    yield accepted(
        "heartbeat-with-opaque-payload", 0, writer.table("Packet", {"seq": 1, "payload": b"\xff"}), None, seq=1
    )
    for msg_type, table in PAYLOADS.items():
        lower = table.lower()
        yield accepted(f"{lower}-full", msg_type, writer.packet(msg_type, full(table), 0, **head), full(table), **head)
        yield accepted(f"{lower}-defaults", msg_type, writer.packet(msg_type, {}), {})
        newer = writer.packet(msg_type, full(table), 3, seq=1)
        yield accepted(f"{lower}-with-newer-fields", msg_type, newer, full(table), seq=1)
    ack = {"msg_id": "m-1", "status": 1, "code": 0, "server_seq": 7, "timestamp": 8}
    yield accepted("gateway-builds-ack", 11, build_ack(5, 6, "m-1", 1, 0, 7, 8)[6:], ack, seq=5, timestamp=6)
    error = {"code": 4002, "message": "wörds", "retry_after_ms": 100}
    yield accepted("gateway-builds-error", 3, build_error(5, 6, 4002, "wörds", 100)[6:], error, seq=5, timestamp=6)
    chat = dict(zip((field.name for field in TABLES["ChatMessage"]), ("m-1", 1, 2, "hi", 3, 4, 0, 5), strict=True))
    yield accepted(
        "gateway-builds-chat", 10, build_chat(5, 6, "m-1", 1, 2, "hi", 3, 4, 0, 5)[6:], chat, seq=5, timestamp=6
    )
    yield accepted("gateway-builds-heartbeat", 0, build_heartbeat(5, 6)[6:], None, seq=5, timestamp=6)


def _bad() -> Iterator[Golden]:
    def around(payload: bytes, msg_type: int = 10) -> bytes:
        return writer.table("Packet", {"msg_type": msg_type, "payload": payload})

    header = struct.pack(">IH", LIMIT + 1, 10)
    yield Golden("header-over-the-limit", header, {"type": 10, "verdict": "refuse", "code": 4001})
    for name, (payload, _) in REASONS.items():
        yield refused(f"chatmessage-{name.replace(' ', '-').replace('^', '')}", 10, around(payload))
    for text in BAD_TEXTS:
        tail = struct.pack("<I", len(text)) + text + bytes(8 - len(text) % 4)
        body = around(writer.raw_table([struct.pack("<I", 12)], b"\0\0" + tail))
        yield refused(f"chatmessage-text-{text.hex()}", 10, body)
    yield refused("empty-body", 10, b"")
    yield refused("noise", 10, bytes(range(40)))
    yield refused("payload-missing", 10, writer.packet(10))
    yield refused("payload-empty", 10, around(b""))
    yield refused("type-mismatch", 11, writer.packet(10, {"msg_id": "m"}, seq=1))
    yield refused("type-unknown", 99, writer.table("Packet", {"msg_type": 99, "seq": 1}))
    yield refused("type-unknown-noise", 65535, b"noise")
    yield refused("over-budget-tables", *bombs.shared_table(60, b"text"))
    yield refused("over-budget-texts", *bombs.shared_text(60, "€".encode() * 9))


def _envelopes() -> Iterator[Golden]:
    chat = writer.packet(10, {"msg_id": "m", "to_user": 1})
    for table in INTERNAL_TABLES:
        fields = full(table)
        fields |= {"msg_type": 10, "packet": chat} if "packet" in fields else {}
        entry = {"envelope": table, "verdict": "accept", "code": 0, "fields": shown(table, fields)}
        yield Golden(f"envelope-{table.lower()}", writer.table(table, fields), entry)
        bad = {"envelope": table, "verdict": "refuse", "code": 4000}
        yield Golden(f"envelope-{table.lower()}-cut", writer.table(table, fields)[:-40], bad)
    built = build_upstream("n1", 1, 2, "d", "p", 3, parse_frame(10, chat))
    up = dict(zip((field.name for field in TABLES["Upstream"]), ("n1", 1, 2, "d", "p", 3, 10, chat), strict=True))
    entry = {"envelope": "Upstream", "verdict": "accept", "code": 0, "fields": shown("Upstream", up)}
    yield Golden("gateway-builds-upstream", built, entry)
    built = build_downstream(1, [2, 3], "d", "p", 4, 0, 0, 10, chat, 5)
    down = (1, [2, 3], "d", "p", 4, 0, 0, 10, chat, 5)
    fields = dict(zip((field.name for field in TABLES["Downstream"]), down, strict=True))
    entry = {"envelope": "Downstream", "verdict": "accept", "code": 0, "fields": shown("Downstream", fields)}
    yield Golden("gateway-builds-downstream", built, entry)


def golden() -> list[Golden]:
    """All of them, in the order of the index."""
    return [*_good(), *_bad(), *_envelopes()]


def files() -> dict[str, bytes]:
    """What schema/corpus holds: name to content."""
    every = golden()
    index = [{"name": one.name, "file": f"{one.name}.bin", **one.entry} for one in every]
    lines = ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in index)
    return {"index.json": f"[\n{lines}\n]\n".encode()} | {f"{one.name}.bin": one.data for one in every}


def main() -> None:
    for old in [*CORPUS.glob("*.bin"), *CORPUS.glob("*.json")]:
        old.unlink()
    for name, data in files().items():
        (CORPUS / name).write_bytes(data)
    print(f"{len(files())} files in schema/corpus", file=sys.stderr)


if __name__ == "__main__":
    main()
