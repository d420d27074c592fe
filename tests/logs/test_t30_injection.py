"""Threat 30: whatever a client sends, it cannot end a line, begin one, paint a terminal, or fill the log; no tokens."""

from __future__ import annotations

import io
import json
import logging
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.logs import logging_to
from gateway.logs.format import JsonFormatter, ReadableFormatter
from gateway.logs.settings import LogSettings
from gateway.logs.text import safe

READABLE, JSON = ReadableFormatter(), JsonFormatter()
TOKEN = "eyJhbGciOiJIUzI1NiIsImtpZCI6Im1haW4ifQ.eyJzdWIiOiIxMDAxIiwiZXhwIjoxODAwMDAwMDYwfQ.c2lnbmF0dXJlc2lnbmF0dXJl"
ATTACKS = {
    "crlf": "x\r\n12:00:00.000 error  gateway node_failed",
    "ansi": "\x1b[2J\x1b[31mred\x1b]0;title\x07",
    "c1": "\x9b2J\x85next",
    "nul": "a\x00b",
    "bidi": "\u202egnp.exe\u2066",
    "separators": "a\u2028b\u2029c\x0b\x0c",
    "surrogate": "\ud800\udfff",
    "del": "a\x7fb",
    "zero width": "a\u200bb\ufeff",
}


def record(message: str = "turned_away", extra: dict[str, object] | None = None, **more: object) -> logging.LogRecord:
    extra = {**(extra or {}), **more}
    return logging.getLogger("gateway.x").makeRecord("gateway.x", logging.INFO, "f", 1, message, (), None, extra=extra)


def is_one_safe_line(line: str) -> bool:
    return line.isprintable() and "\n" not in line


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_as_a_value_a_message_a_logger_and_a_field(attack: str) -> None:
    for each in (record(device=attack), record(attack), record(extra={attack: 1})):
        assert is_one_safe_line(READABLE.format(each))
        line = JSON.format(each)
        assert line.isascii()
        assert is_one_safe_line(line)
        assert all(is_one_safe_line(str(part)) for pair in json.loads(line).items() for part in pair)
    named = record()
    named.name = attack
    assert is_one_safe_line(READABLE.format(named))


@given(st.text())
def test_any_text(text: str) -> None:
    assert is_one_safe_line(READABLE.format(record(text, value=text)))
    assert is_one_safe_line(JSON.format(record(text, value=text)))
    assert len(safe(text).encode()) <= 256


@pytest.mark.parametrize("unit", ["x", "\u20ac", "\x00", "\U0001f600", "\ud800"])
def test_huge_values_are_cut_at_256_bytes(unit: str) -> None:
    for huge in (unit * 257, unit * 1_000_000):
        value = json.loads(JSON.format(record(value=huge)))["value"]
        assert 200 < len(value.encode()) <= 256
        assert value.endswith("...")
        assert len(READABLE.format(record(value=huge)).encode()) < 600
    assert json.loads(JSON.format(record(value="x" * 256)))["value"] == "x" * 256


def test_huge_everything_else() -> None:
    assert len(JSON.format(record("m" * 1_000_000))) < 1500
    assert len(JSON.format(record(extra={"n" * 1_000_000: 1}))) < 500
    assert len(JSON.format(record(extra={f"f{n}": "x" * 1000 for n in range(1000)}))) < 32 * 300 + 200
    for number in (10**10_000, -(10**10_000), 1e308, float("nan"), float("inf")):
        json.loads(JSON.format(record(value=number)), parse_constant=pytest.fail)


def test_a_value_cannot_look_like_another_field() -> None:
    assert READABLE.format(record(device="x code=0")).endswith('device="x code=0"')
    assert READABLE.format(record(device='x" code="0')).endswith('device="x\\" code=\\"0"')
    assert READABLE.format(record(device="")).endswith('device=""')
    assert READABLE.format(record(device="phone", code=4300, far=None, on=True)).endswith(
        "device=phone code=4300 far=null on=true"
    )


def test_a_value_cannot_replace_what_the_line_says_of_itself() -> None:
    line = json.loads(JSON.format(record(event="forged", level="error", time="never")))
    assert (line["event"], line["level"]) == ("turned_away", "info")
    assert (line["event_"], line["level_"], line["time_"]) == ("forged", "error", "never")


class Awkward:
    def __str__(self) -> str:
        raise RuntimeError("no")


def test_values_that_cannot_be_printed() -> None:
    assert json.loads(JSON.format(record(value=Awkward())))["value"] == "<Awkward that cannot be printed>"
    mismatched = record()
    mismatched.msg, mismatched.args = "%d of %s", ("x",)
    assert json.loads(JSON.format(mismatched))["event"] == "%d of %s"


def test_tokens_and_secrets_do_not_get_in() -> None:
    for each in (
        record(value=TOKEN),
        record(f"refused {TOKEN}"),
        record(url=f"ws://x/?token={TOKEN}"),
        record(token="hunter2"),
    ):
        for line in (READABLE.format(each), JSON.format(each)):
            assert "hunter2" not in line
            assert not any(part in line for part in TOKEN.split("."))
    try:
        raise ValueError(f"bad token {TOKEN}")
    except ValueError:
        failed = record()
        failed.exc_info = sys.exc_info()
    for line in (READABLE.format(failed), JSON.format(failed)):
        assert "[token]" in line
        assert TOKEN[-20:] not in line


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_a_traceback_stays_what_it_is(attack: str) -> None:
    try:
        raise ValueError(attack + "x" * 100_000)
    except ValueError:
        failed = record()
        failed.exc_info = sys.exc_info()
    first, *rest = READABLE.format(failed).split("\n")
    assert is_one_safe_line(first)
    assert rest
    assert all(each.startswith("    | ") and is_one_safe_line(each) for each in rest)
    line = JSON.format(failed)
    assert is_one_safe_line(line)
    assert len(line) < 12_000
    assert isinstance(json.loads(line)["exception"], list)


def test_a_flood_is_a_line_a_second() -> None:
    stream = io.StringIO()
    log = logging.getLogger("gateway.flood")
    with logging_to(LogSettings(format="json"), stream):
        for number in range(10_000):
            log.info("token_refused", extra={"reason": "signature", "number": number})
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert 1 <= len(lines) <= 5
    assert sum(line.get("suppressed", 0) + 1 for line in lines) <= 10_000
