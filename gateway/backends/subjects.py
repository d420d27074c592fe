"""What a bus takes for a subject, a pattern and a queue group. What is refused here reaches no server (threat 26).

How our own subjects are made is `gateway.protocol.subjects`'s.
"""

from __future__ import annotations

import re
from typing import Final

LONGEST: Final = 1024
"""Characters of a subject: with everything around it, a control line stays well under the 4096 bytes of NATS."""

_SUBJECT: Final = re.compile(r"[A-Za-z0-9_-]{1,64}(?:\.[A-Za-z0-9_-]{1,64})*")
_PATTERN: Final = re.compile(r"(?:[A-Za-z0-9_-]{1,64}|\*)(?:\.(?:[A-Za-z0-9_-]{1,64}|\*))*")


def checked_subject(subject: str) -> str:
    """Raises ValueError unless it is a sequence of names."""
    if len(subject) > LONGEST or not _SUBJECT.fullmatch(subject):
        raise ValueError(f"not a subject: {subject[:80]!r}")
    return subject


def checked_pattern(subject: str, queue: str) -> None:
    """Raises ValueError unless `subject` is a sequence of names or `*`, and `queue` is empty or a subject."""
    if len(subject) > LONGEST or not _PATTERN.fullmatch(subject):
        raise ValueError(f"not a subject: {subject[:80]!r}")
    if queue and (len(queue) > LONGEST or not _SUBJECT.fullmatch(queue)):
        raise ValueError(f"not a queue group: {queue[:80]!r}")
