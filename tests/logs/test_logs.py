"""Where lines go, which go, how often, and that nobody waits for them."""

from __future__ import annotations

import io
import json
import logging
import os
import threading
import warnings

import pytest

from gateway.logs import is_readable, logging_to
from gateway.logs.limit import MOST_KINDS, RateLimit
from gateway.logs.settings import LogSettings
from gateway.logs.writer import MOST_WAITING

log = logging.getLogger("gateway.test")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def lines(settings: LogSettings) -> list[dict[str, object]]:
    stream = io.StringIO()
    with logging_to(settings, stream):
        log.debug("ours_debug")
        log.info("ours_info", extra={"conn": 7})
        log.warning("ours_warning")
        logging.getLogger("h11").info("theirs info")
        logging.getLogger("trio.serve_listeners").error("theirs %s", "error")
        warnings.warn("theirs as a warning", UserWarning, stacklevel=1)
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_levels() -> None:
    def events(level: str) -> list[object]:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            found = [line["event"] for line in lines(LogSettings(level=level, format="json"))]  # type: ignore[arg-type]
        return [each for each in found if "UserWarning" not in str(each)]

    assert events("debug") == ["ours_debug", "ours_info", "ours_warning", "theirs info", "theirs error"]
    assert events("info") == ["ours_info", "ours_warning", "theirs error"]
    assert events("warning") == ["ours_warning", "theirs error"]
    assert events("error") == ["theirs error"]


def test_a_line_for_programs() -> None:
    stream = io.StringIO()
    with logging_to(LogSettings(format="json"), stream):
        log.info("serving", extra={"tcp": "127.0.0.1:9000", "open": 3, "share": 0.5, "tls": False, "path": None})
    line = json.loads(stream.getvalue())
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "info",
        "logger": "gateway.test",
        "event": "serving",
        "tcp": "127.0.0.1:9000",
        "open": 3,
        "share": 0.5,
        "tls": False,
        "path": None,
    }


def test_a_line_for_people() -> None:
    stream = Terminal()
    with logging_to(LogSettings(), stream):
        log.warning("slow", extra={"conn": 7})
    clock, rest = stream.getvalue().split(" ", 1)
    assert len(clock) == len("12:30:01.250")
    assert rest == "warning test slow conn=7\n"


def test_auto_is_for_people_on_a_terminal_only() -> None:
    assert is_readable(LogSettings(), Terminal())
    assert not is_readable(LogSettings(), io.StringIO())
    assert is_readable(LogSettings(format="readable"), io.StringIO())
    assert not is_readable(LogSettings(format="json"), Terminal())


def test_what_was_there_before_is_put_back() -> None:
    root, ours = logging.getLogger(), logging.getLogger("gateway")
    before = (root.handlers[:], root.level, ours.level)
    with logging_to(LogSettings(level="debug"), io.StringIO()):
        assert root.handlers != before[0]
    assert (root.handlers[:], root.level, ours.level) == before


class TestRateLimit:
    def passes(self, limit: RateLimit, message: str = "m", level: int = logging.INFO, **extra: object) -> object:
        record = log.makeRecord(log.name, level, "f", 1, message, (), None, extra=extra)
        return getattr(record, "suppressed", 0) if limit.filter(record) else None

    def test_one_a_second_and_the_next_one_tells(self) -> None:
        now = [0.0]
        limit = RateLimit(lambda: now[0])
        assert self.passes(limit) == 0
        assert [self.passes(limit) for _ in range(5)] == [None] * 5
        now[0] = 0.999
        assert self.passes(limit) is None
        now[0] = 1.0
        assert self.passes(limit) == 6
        assert limit.suppressed == 6
        now[0] = 2.0
        assert self.passes(limit) == 0

    def test_kinds_do_not_hide_each_other(self) -> None:
        limit = RateLimit(lambda: 0.0)
        assert self.passes(limit, "a") == self.passes(limit, "b") == 0
        assert self.passes(limit, "a", logging.ERROR) == 0
        assert self.passes(limit, "a", kind="tcp") == self.passes(limit, "a", kind="websocket") == 0
        assert self.passes(limit, "a", conn=1) is None

    def test_kinds_made_by_clients_fill_nothing(self) -> None:
        limit = RateLimit(lambda: 0.0)
        for number in range(MOST_KINDS * 3):
            self.passes(limit, f"kind {number}" + "x" * 10_000)
        assert len(limit._seen) <= MOST_KINDS
        assert max(len(kind[2]) for kind in limit._seen) <= 256


def test_nobody_waits_for_a_reader_that_does_not_read() -> None:
    """The reader's end of a pipe is full; logging goes on, loses lines, and says how many once it can."""
    reading, writing = os.pipe()
    with (
        os.fdopen(writing, "w") as stream,
        os.fdopen(reading) as reader,
        logging_to(LogSettings(format="json"), stream) as handler,
    ):
        handler.filters.clear()
        for number in range(MOST_WAITING * 4):
            log.info("line", extra={"filler": "x" * 200, "number": number})
        dropped = handler.dropped
        assert dropped > MOST_WAITING
        received: list[str] = []
        drained = threading.Event()

        def read() -> None:
            for line in reader:
                received.append(line)
                if json.loads(line)["event"] == "last":
                    drained.set()
                    return

        threading.Thread(target=read, daemon=True).start()
        while handler._waiting.full():  # until the reader has made room for the last line
            drained.wait(0.01)
        log.info("last")
        assert drained.wait(30)
    parsed = [json.loads(line) for line in received]
    assert [line["count"] for line in parsed if line["event"] == "log_lines_dropped"] == [dropped]
    assert sum(line["event"] == "line" for line in parsed) == MOST_WAITING * 4 - dropped


def test_a_stream_that_is_gone_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    stream = os.fdopen(writing, "w")
    with logging_to(LogSettings(format="json"), stream):
        log.info("nobody_reads_this")
    with pytest.raises(BrokenPipeError):
        stream.close()
