"""Names that become part of a subject or key, and identifiers made here. No clock and no counter lives here."""

from __future__ import annotations

import secrets

from gateway._framing import is_name


def checked_name(text: str, what: str, limit: int = 64) -> str:
    """Return `text` if it is 1 to `limit` characters of A-Z a-z 0-9 _ -; it is never escaped (protocol section 5).

    Args:
        text: what somebody wants in a subject or key.
        what: how the error calls it.
        limit: the most characters allowed.

    Raises:
        ValueError: naming `what`, and showing at most the first 80 characters of a bad `text`.
    """
    if not isinstance(text, str) or not is_name(text, limit):
        shown = repr(text[:80] if isinstance(text, str) else type(text).__name__)
        raise ValueError(f"{what} must be 1 to {limit} characters of A-Z a-z 0-9 _ -, not {shown}")
    return text


def new_message_id() -> str:
    """A `msg_id` nobody else has: 128 random bits in 22 characters."""
    return secrets.token_urlsafe(16)


def new_session_id() -> str:
    """A session id or ticket nobody can guess: 128 random bits in 22 characters (threat 25)."""
    return secrets.token_urlsafe(16)
