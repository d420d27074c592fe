"""Making any value safe to print: no line break, no control character, no end in sight (threat 30)."""

from __future__ import annotations

import re

LONGEST = 256
"""Bytes of one value in a line."""
CUT = "..."

_TOKEN = re.compile(r"eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]*")
"""A JWT begins with the base64 of `{"`. Nobody should log one; this is for those who do all the same."""


def safe(value: object, longest: int = LONGEST) -> str:
    """`value` as printable text of at most `longest` bytes; what was cut off shows as `...`."""
    try:
        text = value if isinstance(value, str) else str(value)
    except Exception:  # a value that cannot be printed must not end what logs it
        text = f"<{type(value).__name__} that cannot be printed>"
    return cut(escaped(_TOKEN.sub("[token]", text[: longest * 4])), longest, more=len(text) > longest * 4)


def escaped(text: str) -> str:
    """Control, formatting and private characters as backslash escapes: CR LF, ANSI, bidirectional overrides."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def cut(text: str, longest: int, *, more: bool = False) -> str:
    """At most `longest` bytes of UTF-8; `more` says that something is missing already."""
    data = text.encode()
    if len(data) <= longest and not more:
        return text
    return data[: longest - len(CUT)].decode(errors="ignore") + CUT
