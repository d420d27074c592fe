"""What ours says to a body, in the words of the reference, so that the two can be compared."""

from __future__ import annotations

from gateway._framing import FrameError, parse_frame, verify_envelope


def outcome(msg_type: int, body: bytes) -> tuple[int, str]:
    """As `reference.verdict`."""
    try:
        parse_frame(msg_type, body)
    except FrameError as error:
        return error.code, str(error).partition(": ")[2] if error.code == 4000 else ""
    return 0, ""


def envelope_outcome(name: str, data: bytes) -> str:
    """As `reference.envelope_verdict`."""
    try:
        verify_envelope(name, data)
    except FrameError as error:
        return str(error).partition(": ")[2]
    return ""
