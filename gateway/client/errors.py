"""What the client raises, with what a program needs to decide: the code of the protocol's table, 0 if none."""

from __future__ import annotations

from gateway.protocol.codes import Code


def describe(code: int, reason: str = "") -> str:
    """`4302 rate_limited: slow down`, as far as there is anything to say. Control characters are escaped."""
    shown = reason[:200].encode("unicode_escape").decode("ascii") if not reason.isprintable() else reason[:200]
    if not code:
        return shown or "connection lost"
    try:
        name = f"{code} {Code(code).label}"
    except ValueError:
        name = str(code)
    return f"{name}: {shown}" if shown else name


class ClientError(Exception):
    """Base of all errors of this package."""


class UnsupportedTransport(ClientError, ValueError):
    """The URL is not one that this client can open."""


class ClientClosed(ClientError):
    """The client was closed by its own program."""


class CodedError(ClientError):
    """Base of the errors that come with a code of the table."""

    def __init__(self, message: str, *, code: int = 0, reason: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason


class Refused(CodedError):
    """The server said a code after which this client must not come back by itself: the client has ended."""


class Unreachable(CodedError):
    """Nobody could be logged in to within `start_timeout`; `code` and `reason` are of the last attempt."""


class Rejected(CodedError):
    """The server will not take this message."""

    def __init__(self, msg_id: str, code: int, reason: str = "") -> None:
        super().__init__(f"message {msg_id} was rejected: {describe(code, reason)}", code=code, reason=reason)
        self.msg_id = msg_id


class SendTimeout(ClientError):
    """No acknowledgement came in time. The message may or may not have been stored: to try again without
    the risk of a second one, send it with this `msg_id`."""

    def __init__(self, msg_id: str, message: str) -> None:
        super().__init__(message)
        self.msg_id = msg_id


class FileFailed(CodedError):
    """A file was refused (`code` says why), or could not be sent or fetched; code 0 when nothing moved for too long."""


class RequestFailed(CodedError):
    """A request (Sync) was answered by an error, or not in time."""
