"""Lines from a terminal, a pipe or a file, without a thread that would have to be left behind."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import trio

LONGEST_LINE = 262_144
"""Bytes; what is longer comes in pieces, so that a file without line ends costs no memory."""
CHUNK = 65_536


async def read_lines(descriptor: int) -> AsyncIterator[str]:
    """Every line without its end, until the end of input. Bytes that are not UTF-8 are replaced."""
    pollable = True
    rest = b""
    while True:
        if pollable:
            try:
                await trio.lowlevel.wait_readable(descriptor)
            except PermissionError:  # a regular file: epoll does not take it, and it never waits
                pollable = False
        else:
            await trio.lowlevel.checkpoint()
        try:
            data = os.read(descriptor, CHUNK)
        except BlockingIOError:
            continue
        except OSError:  # the terminal is gone
            data = b""
        if not data:
            break
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            yield _text(line)
        if len(rest) >= LONGEST_LINE:
            yield _text(rest)
            rest = b""
    if rest:
        yield _text(rest)


def _text(line: bytes) -> str:
    return line.decode("utf-8", "replace").rstrip("\r")
