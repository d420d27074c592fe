"""The golden frames are what their generator makes, and the extension judges and reads them as the index says."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from gateway._framing import DispatchTable, Frame, FrameDecoder, FrameError, parse_downstream, parse_upstream
from gateway.protocol import envelopes, messages
from tests.framing import corpus
from tests.framing.schema import PAYLOADS

INDEX: list[dict[str, Any]] = json.loads((corpus.CORPUS / "index.json").read_text())
FRAMES = [entry for entry in INDEX if "type" in entry]
ENVELOPES = [entry for entry in INDEX if "envelope" in entry]


def content(entry: dict[str, Any]) -> bytes:
    data: bytes = (corpus.CORPUS / entry["file"]).read_bytes()
    return data


def fields(table: str, struct: Any) -> dict[str, Any]:
    """A Struct as the index shows it."""

    def plain(value: Any) -> Any:
        if isinstance(value, tuple):
            return [plain(item) for item in value]
        return msgspec.structs.asdict(value) if isinstance(value, msgspec.Struct) else value

    return corpus.shown(table, {name: plain(value) for name, value in msgspec.structs.asdict(struct).items()})


def test_the_corpus_is_what_its_generator_makes() -> None:
    """On drift: `make corpus`, and tell whoever uses it."""
    there = {path.name: path.read_bytes() for path in corpus.CORPUS.iterdir() if path.suffix in (".bin", ".json")}
    assert there == corpus.files()


def test_it_has_every_type_and_every_code() -> None:
    assert {entry["type"] for entry in FRAMES if entry["verdict"] == "accept"} == {0, *PAYLOADS}
    assert {entry["code"] for entry in FRAMES} == {0, 4000, 4001, 4002, 4003}


@pytest.mark.parametrize("entry", FRAMES, ids=lambda entry: entry["name"])
@pytest.mark.parametrize("size", [1, 7, 10**6])
def test_a_frame_is_judged_as_the_index_says(entry: dict[str, Any], size: int) -> None:
    seen: list[Any] = []
    table = DispatchTable(lambda _, code, msg_type, seq: seen.append((msg_type, code)))
    for msg_type in (0, *PAYLOADS):
        table.on(msg_type, lambda _, frame: seen.append(frame))
    decoder = FrameDecoder(table, corpus.LIMIT)
    data = content(entry)
    for at in range(0, len(data), size):
        decoder.feed(None, data[at : at + size])
    [result] = seen
    if entry["verdict"] == "refuse":
        assert result == (entry["type"], entry["code"])
        return
    assert isinstance(result, Frame)
    assert (result.type, str(result.seq), str(result.timestamp)) == (entry["type"], entry["seq"], entry["timestamp"])
    if "fields" in entry:
        assert fields(entry["table"], messages.decode(result)) == entry["fields"]


@pytest.mark.parametrize("entry", ENVELOPES, ids=lambda entry: entry["name"])
def test_an_envelope_is_judged_as_the_index_says(entry: dict[str, Any]) -> None:
    name, data = entry["envelope"], content(entry)
    hot = {"Upstream": parse_upstream, "Downstream": parse_downstream}
    struct = getattr(envelopes, name, None)
    if entry["verdict"] == "refuse":
        with pytest.raises(FrameError) as caught:
            struct.decode(data) if struct else hot[name](data)
        assert caught.value.code == entry["code"]
    elif struct:
        assert fields(name, struct.decode(data)) == entry["fields"]
    else:
        envelope: Any = hot[name](data)
        read = {key: getattr(envelope, key) for key in entry["fields"] if key != "packet"}
        packet = envelope.packet if name == "Downstream" else envelope.frame.body
        assert corpus.shown(name, read | {"packet": packet}) == entry["fields"]
