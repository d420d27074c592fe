"""Structured logs: what the node says about itself, safe to read whatever clients sent.

Knows lines and where they go. How to log is in `format`: plain `logging`, the event as message, the rest as `extra`.
A program that embeds the gateway has its own logging; only the `run` command installs this one.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from gateway.logs.format import JsonFormatter, ReadableFormatter
from gateway.logs.limit import RateLimit
from gateway.logs.settings import LogSettings
from gateway.logs.writer import LineWriter

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def is_readable(settings: LogSettings, stream: TextIO) -> bool:
    """Whether lines are for people: said so, or a terminal is there to read them."""
    return settings.format == "readable" or (settings.format == "auto" and stream.isatty())


@contextmanager
def logging_to(settings: LogSettings, stream: TextIO | None = None) -> Iterator[LineWriter]:
    """Write every log line to `stream` (standard error) as `settings` say; put back what was there at the end."""
    stream = sys.stderr if stream is None else stream
    level = _LEVELS[settings.level]
    handler = LineWriter(stream)
    handler.addFilter(RateLimit())
    handler.setFormatter(ReadableFormatter() if is_readable(settings, stream) else JsonFormatter())
    root, ours = logging.getLogger(), logging.getLogger("gateway")
    before = (root.handlers[:], root.level, ours.level)
    root.handlers[:] = [handler]
    root.setLevel(level if level == logging.DEBUG else max(level, logging.WARNING))
    ours.setLevel(level)
    logging.captureWarnings(True)
    try:
        yield handler
    finally:
        logging.captureWarnings(False)
        root.handlers[:] = before[0]
        root.setLevel(before[1])
        ours.setLevel(before[2])
        handler.close()


__all__ = ["LogSettings", "is_readable", "logging_to"]
