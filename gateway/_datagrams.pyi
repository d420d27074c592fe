"""Datagrams in batches: recvmmsg, sendmmsg, and segmentation by the kernel (GSO) where it has it.

Knows descriptors and bytes; no Trio, no QUIC, no other module of this package. An address is the `sockaddr` in bytes,
without padding and flow label: two datagrams come from one place exactly if theirs are equal.
"""

from typing import Final

DATAGRAM_MOST: Final = 2048
"""Bytes of the longest datagram that is received; longer ones are dropped and counted."""

class Receiver:
    """Takes what has arrived at a UDP socket."""

    batches: Final[int]
    datagrams: Final[int]
    octets: Final[int]
    truncated: Final[int]
    errors: Final[int]

    def __init__(self, fd: int) -> None: ...
    def receive(self) -> list[tuple[bytes, bytes]]:
        """Up to 64 datagrams with their addresses; none when there is nothing to read. Never raises for the socket."""

class Sender:
    """What is to leave by a UDP socket, and how it went."""

    segmenting: bool
    """Whether the kernel is asked to cut (UDP_SEGMENT); ends by itself when it will not."""
    batches: Final[int]
    datagrams: Final[int]
    octets: Final[int]
    segmented: Final[int]
    """Datagrams that left as part of a larger message."""
    refused: Final[int]
    """Calls that the kernel refused: for now (EAGAIN, ENOBUFS) or one datagram for good (EPERM and the like)."""
    dropped: Final[int]
    """Datagrams that it refused for good."""
    overflowed: Final[int]
    """Datagrams not taken because too many waited."""

    def __init__(self, fd: int, most: int = 4096, segmenting: bool = True) -> None:
        """`most`: datagrams that may wait while the kernel takes none."""
    @property
    def pending(self) -> int: ...
    def add(self, data: bytes, address: bytes) -> bool:
        """Queue a datagram; False when it was dropped because too many wait."""
    def flush(self) -> bool:
        """Hand over what waits; False when the kernel takes no more for now. Never raises for the socket."""
