"""From a log record to one line, for people or for programs. Where lines go is not known here.

The convention for whoever logs, with nothing but the standard library:

    log = logging.getLogger("gateway.listener")
    log.info("turned_away", extra={"address": address, "code": 4300})

The message is the event: constant, snake_case. What varies goes into `extra`, whose names must not be a LogRecord's own
(`name`, `msg`, `args`, `module`, `process`, `message`...): the standard library refuses those.
"""

from __future__ import annotations

import json
import logging
import traceback
from datetime import UTC, datetime
from math import isfinite

from gateway.logs.text import safe

MOST_FIELDS = 32
LONGEST_TRACEBACK = 8_192
"""Bytes; the end is kept, for it says what was raised."""
_SECRETS = frozenset({"token", "authorization", "secret", "password", "key", "cookie"})
_OWN = frozenset({*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"})

Plain = str | int | float | bool | None


def fields(record: logging.LogRecord) -> dict[str, Plain]:
    """What was given as `extra`, each value safe to print."""
    given = [(name, value) for name, value in vars(record).items() if name not in _OWN]
    return {safe(name, 64): _plain(name, value) for name, value in given[:MOST_FIELDS]}


def _plain(name: str, value: object) -> Plain:
    if name.lower() in _SECRETS:
        return "[secret]"
    if value is None or isinstance(value, bool) or (type(value) is float and isfinite(value)):
        return value
    if type(value) is int and -(2**63) <= value < 2**64:
        return value
    return safe(value)


def event(record: logging.LogRecord) -> str:
    """The message; what other people's libraries write in sentences is cut like a value, only later."""
    try:
        return safe(record.getMessage(), 1024)
    except Exception:  # arguments that do not fit their message
        return safe(record.msg, 1024)


def trace(record: logging.LogRecord) -> list[str]:
    """The traceback, line by line, each line printable."""
    if not record.exc_info or record.exc_info[1] is None:
        return []
    text = "".join(traceback.format_exception(record.exc_info[1]))
    data = text.encode(errors="backslashreplace")
    if len(data) > LONGEST_TRACEBACK:
        text = "..." + data[-LONGEST_TRACEBACK:].decode(errors="ignore")
    return [safe(line.expandtabs(4), 1024) for line in text.split("\n") if line.strip()]


def _timestamp(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class JsonFormatter(logging.Formatter):
    """One JSON object per line, ASCII only; `time`, `level`, `logger`, `event` first, then the fields."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": _timestamp(record),
            "level": record.levelname.lower(),
            "logger": safe(record.name, 128),
            "event": event(record),
        }
        line.update((name if name not in line else f"{name}_", value) for name, value in fields(record).items())
        if lines := trace(record):
            line["exception"] = lines
        return json.dumps(line).replace("\x7f", "\\u007f")


class ReadableFormatter(logging.Formatter):
    """`12:30:01.250 warning listener turned_away address=192.0.2.7 code=4300`; a traceback follows, set in."""

    def format(self, record: logging.LogRecord) -> str:
        clock = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S.%f")[:-3]
        name = safe(record.name.removeprefix("gateway."), 128)
        head = f"{clock} {record.levelname.lower():<7} {name} {event(record)}"
        line = " ".join((head, *(f"{name}={_quoted(value)}" for name, value in fields(record).items())))
        return "\n".join((line, *(f"    | {each}" for each in trace(record))))


def _quoted(value: Plain) -> str:
    """As it is when it cannot be mistaken, else in quotes: a value must not look like further fields."""
    if not isinstance(value, str):
        return json.dumps(value)
    plain = value and not any(each in ' "=\\' for each in value)
    return value if plain else json.dumps(value, ensure_ascii=False)
