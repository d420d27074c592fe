"""The hot path of sockets: from readiness to bytes handed over, from bytes to the socket.

Knows descriptors, bytes and callables; no Trio, no TLS, no message, no other module of this package.
"""

from collections.abc import Callable
from typing import Any, Final

READ: Final = 65_536
"""Bytes taken per readiness: the share of one peer before the next one's turn."""

class Socket:
    """One connected socket: its descriptor, who hears from it, and what the kernel would not take yet.

    A subclass provides `lost(reason)` (end of file or an error), `fault()` (called in an except block: whoever heard
    the bytes raised) and, if `layered`, `received(data)`, which then gets the bytes, not `receiver.feed(0, data)`.
    """

    @property
    def fd(self) -> int:
        """The descriptor; -1 once closed."""
    @property
    def rest(self) -> bytearray | None:
        """What `send` could not hand over."""
    receiver: Any
    def __init__(self, fd: int, share: int = READ, layered: bool = False) -> None:
        """Take over `fd`, which is closed at the latest with this object. `share`: bytes per readiness, up to READ."""
    def receive(self) -> bytes | None:
        """What is there, up to the share; empty at the end of file, None when nothing is there yet.

        Raises:
            OSError: the socket has failed.
        """
    def send(self, data: bytes) -> bool:
        """Hand over `data`, behind what is unsent; True when all of it was taken. After `close` it is dropped."""
    @property
    def unsent(self) -> int: ...
    def send_rest(self) -> bool:
        """Try again with what is unsent; True when nothing is any more.

        Raises:
            OSError: the socket has failed.
        """
    def shutdown(self, both: bool = False) -> None:
        """Send FIN; with `both`, also have the end of file read next.

        Raises:
            OSError: it is not connected any more.
        """
    def close(self) -> None:
        """Free the descriptor, with RST if bytes are unsent. Idempotent."""

class Poll:
    """An epoll of its own, and what is called when a descriptor is ready."""

    registered: Final[int]
    paused: Final[int]
    polls: Final[int]
    ready: Final[int]
    failures: Final[int]

    def __init__(self, on_failure: Callable[[], None]) -> None:
        """`on_failure` is called in the except block of a target that raised, which is unregistered then.

        Raises:
            OSError: out of descriptors.
        """
    def fileno(self) -> int: ...
    def close(self) -> None:
        """Free the descriptor and forget everything. Idempotent; afterwards nothing can be registered."""
    def drain(self, seconds: float) -> bool:
        """Call whoever is ready until nobody is (False) or the time is up (True: go on with another call)."""
    def register(self, fd: int, target: Socket | Callable[[], None]) -> None:
        """Let a Socket read, or call `target`, when `fd` can be read, has ended or has failed. Replaces and resumes.

        Raises:
            OSError: the kernel's limit of watches, or a bad descriptor.
        """
    def pause(self, fd: int) -> None: ...
    def resume(self, fd: int) -> None: ...
    def unregister(self, fd: int) -> None: ...
