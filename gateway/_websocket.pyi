"""WebSocket framing (RFC 6455), the server's side: bytes in, payload and obligations out.

Knows bytes and nothing else: no socket, no clock, no HTTP, no other module of this package.
"""

from typing import Any

class ServerCodec:
    """What one client sends, frame by frame, out of arbitrary chunks.

    Stream mode (the gateway): binary messages are a byte stream, so payload is handed up as it comes and never
    gathered; a text message is refused with 1003. Message mode (applications that want messages): whole
    messages are gathered, text is checked byte by byte.

    A frame is refused on its header. Nothing is allocated by a declared length. Refusals are 1002 (masking, reserved
    bits, opcodes, control frames, lengths not in their shortest form), 1003, 1007 (text or a close reason that is not
    UTF-8), 1008 (`credit` spent) and 1009 (over `limit` or `max_fragments`).
    """

    attention: bool
    """Something besides payload waits: pongs, messages, the peer's Close or a refusal. Look after each feed."""
    ended: bool
    """The peer's Close or a refusal was reached; all further bytes are dropped."""
    credit: int
    """Pings and pongs that may still come; one more is refused with 1008. Whoever has a clock tops it up."""
    failure: tuple[int, str] | None
    """Close code and reason to tell the peer: it broke the rules."""
    peer_close: tuple[int, str] | None
    """The peer's close code (1005 when it gave none) and reason."""

    def __init__(self, limit: int, *, max_fragments: int = 64, messages: bool = False, credit: int = 32) -> None:
        """`limit` is the payload bytes of one message, over all its fragments."""
    @property
    def limit(self) -> int: ...
    @property
    def max_fragments(self) -> int: ...
    @property
    def pending(self) -> int:
        """Bytes retained: an unfinished header or control frame, in message mode the unfinished message too."""
    def feed(self, data: bytes) -> bytes:
        """Take bytes from the wire; return the payload of data frames in them, unmasked and joined.

        What precedes a refusal or a Close in `data` is still returned. Empty in message mode. Answer (see `answers`)
        before handling the payload; act on `failure` and `peer_close` after it.
        """
    def messages(self) -> list[tuple[int, bytes]]:
        """Take the whole messages received, in message mode: opcode (1 text, 2 binary) and payload."""
    def answers(self) -> bytes:
        """Take the Pong frames owed, in order, as one buffer."""
    def close(self) -> None:
        """Our own Close was sent: drop everything from now on but the peer's Close."""

class Intake:
    """The receiving half of a link, without a Python frame on the hot way: unmasks, and hands payload to `receiver`.

    To be subclassed: `arrived` gets what comes while there is no codec (the upgrade), `attend` what comes with
    `codec.attention` set.
    """

    codec: ServerCodec | None
    receiver: Any
    """Whose `feed(lane, payload)` is called; must be set when `codec` is."""

    def feed(self, lane: int, data: bytes) -> None: ...
    def arrived(self, data: bytes) -> None: ...
    def attend(self, codec: ServerCodec, payload: bytes) -> None: ...

def server_header(length: int, opcode: int = 2) -> bytes:
    """The header of one whole frame with `length` bytes of payload: 2, 4 or 10 bytes.

    Raises:
        ValueError: a negative length, no opcode, or a control frame over 125 bytes.
    """

def close_frame(code: int, reason: str = "") -> bytes:
    """A whole Close frame; 1005 stands for one without a body. A reason over 123 bytes is cut between characters.

    Raises:
        ValueError: a code that may not be sent.
    """

def pong_frame(payload: bytes) -> bytes:
    """A whole Pong frame.

    Raises:
        ValueError: over 125 bytes.
    """
