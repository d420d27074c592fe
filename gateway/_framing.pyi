"""The hot path: frames, verification, field reads, reply and envelope building, dispatch by type.

Knows bytes and nothing else: no socket, no clock, no event loop, no other module of this package.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final

HEADER: Final = 6
"""Bytes of a frame's header: length u32 and type u16, big-endian."""
CEILING: Final = 16_777_216
"""The largest body any limit may allow (protocol section 1)."""

class Frame:
    """One whole, verified frame. Pins the bytes it was cut from; every read is of verified memory.

    Absent fields read as their defaults, absent texts as "". Whoever keeps a frame for long keeps the whole
    received chunk: keep `body` instead, and `parse_frame` it later.
    """

    @property
    def type(self) -> int: ...
    @property
    def seq(self) -> int: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def body(self) -> bytes:
        """The Packet, byte for byte (a copy)."""
    @property
    def payload(self) -> bytes:
        """The nested FlatBuffer (a copy); empty when the packet has none."""
    def encode(self) -> bytes:
        """Header and body, as received."""

class ChatFrame(Frame):
    """A Message; payload is a ChatMessage."""

    @property
    def valid(self) -> bool:
        """msg_id is 1-64 of [A-Za-z0-9_-] and exactly one of to_user, group_id is set and positive."""
    @property
    def msg_id(self) -> str: ...
    @property
    def from_user(self) -> int: ...
    @property
    def to_user(self) -> int: ...
    @property
    def group_id(self) -> int: ...
    @property
    def content(self) -> str: ...
    @property
    def content_type(self) -> int: ...
    @property
    def sent_at(self) -> int:
        """ChatMessage.timestamp."""
    @property
    def server_seq(self) -> int: ...

class AckFrame(Frame):
    """A MessageAck."""

    @property
    def valid(self) -> bool:
        """msg_id is 1-64 of [A-Za-z0-9_-] and status is one of AckStatus."""
    @property
    def msg_id(self) -> str: ...
    @property
    def status(self) -> int: ...
    @property
    def code(self) -> int: ...
    @property
    def server_seq(self) -> int: ...
    @property
    def acked_at(self) -> int:
        """MessageAck.timestamp."""

class SignalFrame(Frame):
    """A Signal."""

    @property
    def to_user(self) -> int: ...
    @property
    def from_user(self) -> int: ...
    @property
    def group_id(self) -> int: ...
    @property
    def kind(self) -> str: ...
    @property
    def data(self) -> bytes: ...

class DispatchTable:
    """What is done with each frame type: a C array indexed by type.

    `refuse(context, code, msg_type, seq)` is called for what may not pass: 4000 malformed_frame (a body that fails
    verification), 4001 frame_too_large (on the header alone), 4002 unknown_type, 4003 type_mismatch, and the code
    given to `forbid`. `seq` is 0 where the packet could not be read. It returns reply bytes or None. After 4000,
    4001 and 4003 the decoder is closed (it ignores whatever follows); after the others it goes on with the next frame.

    A type that the schema does not have is 4002 whatever its body is. A type that it has but that nothing is
    registered for is verified first, so it may be 4000 or 4003. One table may serve any number of decoders.
    Registering again replaces; a type that the schema does not have is a ValueError.
    """

    def __init__(self, refuse: Callable[[Any, int, int, int], bytes | None]) -> None: ...
    @property
    def echoes(self) -> int:
        """Heartbeats answered, of all decoders together."""
    def on(self, msg_type: int, handler: Callable[[Any, Any], bytes | None]) -> None:
        """Call `handler(context, frame)`; the frame's class follows from the type. Returned bytes are replies."""
    def echo(self, msg_type: int) -> None:
        """Answer in C: the same seq, the `now` given to feed as timestamp; an empty body by an empty body."""
    def forbid(self, msg_type: int, code: int) -> None:
        """Refuse this type with `code` (4005 before Auth), after verifying it so that `seq` can be echoed."""

class FrameDecoder:
    """Whole frames out of arbitrary chunks, dispatched as they are found.

    Refuses on the header, before allocating: what is retained never exceeds what was received.
    """

    table: DispatchTable
    limit: int
    """The largest body accepted, in bytes."""
    paused: bool
    """While True, feed only retains. Set by a handler, it stops feed after the current frame. To go on: set it to
    False, then `feed(context, b"", now)`."""

    def __init__(self, table: DispatchTable, limit: int) -> None: ...
    @property
    def closed(self) -> bool: ...
    @property
    def pending(self) -> int:
        """Bytes retained: a partial frame, or what came while paused."""
    @property
    def frames(self) -> int:
        """Whole frames dispatched or refused since the start."""
    def close(self) -> None:
        """Drop what is retained and ignore all further bytes."""
    def feed(self, context: Any, data: bytes, now: int = 0) -> bytes:
        """Take `data` (may be empty, to go on after a pause); return the replies in order, joined.

        `now` is Unix milliseconds. An exception of a handler passes through and closes the decoder; replies made
        before it in the same call are lost. A handler may call `close`, and may set `table`, `limit` and `paused`,
        which count from the next frame on; calling `feed` from a handler of the same decoder is a RuntimeError.
        """

class SharedFrame:
    """A server frame for many connections: its bytes are shared, its seq is stamped when it is written."""

    def __init__(self, frame: bytes) -> None:
        """`frame` is header and body; the body gets a seq slot if it has none.

        Raises:
            FrameError: it is not one whole, valid frame.
        """
    @property
    def type(self) -> int: ...
    @property
    def data(self) -> bytes: ...
    def __len__(self) -> int: ...

def parse_frame(msg_type: int, body: bytes) -> Frame:
    """Verify one Packet whose header type is `msg_type`.

    Raises:
        FrameError: with the code of protocol section 3.
    """

class FrameError(ValueError):
    """Bytes that are no valid frame; `code` is the protocol's code."""

    code: int
    def __init__(self, code: int, message: str) -> None: ...

def join_frames(
    items: Iterable[bytes | SharedFrame], next_seq: int, prefix: Callable[[int], bytes] | None = None
) -> tuple[bytes, int]:
    """One buffer for one write, and the next seq. Each SharedFrame is stamped with a seq counted from `next_seq`.

    `prefix(total)` gives bytes to put in front (a WebSocket header). A single bytes item without prefix is returned
    as it is.
    """

def encode_frame(msg_type: int, body: bytes) -> bytes:
    """Header and body. ValueError for a body over CEILING; the body is not looked at."""

def build_frame(msg_type: int, seq: int, timestamp: int, payload: bytes) -> bytes:
    """A whole frame around a payload that somebody else built; the payload is not looked at."""

def build_heartbeat(seq: int, timestamp: int) -> bytes: ...
def build_ack(
    seq: int, timestamp: int, msg_id: str, status: int, code: int = 0, server_seq: int = 0, acked_at: int = 0
) -> bytes:
    """A whole MessageAck frame."""

def build_error(seq: int, timestamp: int, code: int, message: str, retry_after_ms: int = 0) -> bytes: ...
def build_chat(
    seq: int,
    timestamp: int,
    msg_id: str,
    from_user: int,
    to_user: int,
    content: str,
    content_type: int,
    sent_at: int,
    group_id: int,
    server_seq: int,
) -> bytes:
    """A whole Message frame."""

def build_upstream(
    node_id: str, conn_id: int, user_id: int, device_id: str, platform: str, received_at: int, frame: Frame
) -> bytes:
    """The Upstream envelope around the client's own packet, unchanged."""

def build_downstream(
    user_id: int,
    conn_ids: Iterable[int],
    device_id: str,
    platform: str,
    exclude_conn_id: int,
    action: int,
    code: int,
    msg_type: int,
    packet: bytes,
    expires_at: int,
) -> bytes: ...

class Upstream:
    """A verified Upstream envelope (its packet is verified too, as `frame`)."""

    @property
    def node_id(self) -> str: ...
    @property
    def conn_id(self) -> int: ...
    @property
    def user_id(self) -> int: ...
    @property
    def device_id(self) -> str: ...
    @property
    def platform(self) -> str: ...
    @property
    def received_at(self) -> int: ...
    @property
    def msg_type(self) -> int: ...
    @property
    def frame(self) -> Frame: ...

class Downstream:
    """A verified Downstream envelope; its packet is verified too when action is Deliver."""

    @property
    def user_id(self) -> int: ...
    @property
    def conn_ids(self) -> tuple[int, ...]: ...
    @property
    def device_id(self) -> str: ...
    @property
    def platform(self) -> str: ...
    @property
    def exclude_conn_id(self) -> int: ...
    @property
    def action(self) -> int: ...
    @property
    def code(self) -> int: ...
    @property
    def msg_type(self) -> int: ...
    @property
    def packet(self) -> bytes: ...
    @property
    def expires_at(self) -> int: ...
    @property
    def frame(self) -> Frame:
        """The packet as a verified frame."""

def verify_envelope(name: str, data: bytes) -> None:
    """Verify `data` as the table `name` of schema/internal.fbs. Raises FrameError, or KeyError for another name."""

def parse_upstream(data: bytes) -> Upstream:
    """Raises FrameError."""

def parse_downstream(data: bytes) -> Downstream:
    """Raises FrameError."""

def is_name(text: str, limit: int = 64) -> bool:
    """True for 1 to `limit` characters of A-Z a-z 0-9 _ -: the rule for every text in a subject or key."""

class TokenBucket:
    """A rate with a burst. It may be overdrawn: what was received is handled, and paid for by waiting."""

    def __init__(self, rate: float, burst: float, now: float) -> None:
        """`rate` is tokens per second, `burst` the most there may be; `now`, here and below, is monotonic seconds."""
    @property
    def rate(self) -> float: ...
    @property
    def burst(self) -> float: ...
    def spend(self, now: float, cost: float = 1.0) -> bool:
        """Take `cost` tokens; False when that overdraws the bucket."""
    def wait(self, now: float, tokens: float = 1.0) -> float:
        """Seconds from `now` until `tokens` are there."""

class Sender:
    """Who the messages of one connection are from: what their envelopes say, and the budget that they cost."""

    handed_over: int
    """Messages that a Relay gave to the bus since somebody set this to 0."""
    def __init__(self, conn_id: int, user_id: int, device_id: str, platform: str, bucket: TokenBucket) -> None: ...
    @property
    def conn_id(self) -> int: ...
    @property
    def user_id(self) -> int: ...
    @property
    def device_id(self) -> str: ...
    @property
    def platform(self) -> str: ...
    @property
    def bucket(self) -> TokenBucket: ...

class Uplink:
    """The receiving side of a connection, without a Python frame of its own per chunk. To be subclassed.

    The subclass has `reply(frames)`, `handed_over(seconds, count)` (how long a feed took that gave so many messages
    to the bus) and `fault()` (an exception is being handled; none leaves `feed`).
    """

    decoder: FrameDecoder
    sender: Sender | None
    """Who its messages are from, once there is a session."""
    seen: float
    """When the last bytes came (monotonic seconds)."""
    deaf: bool
    """Set when the connection is closing: what still comes is dropped."""
    def __init__(self, decoder: FrameDecoder, now: Callable[[], float]) -> None:
        """`now` is the monotonic clock."""
    @property
    def wall_ms(self) -> int:
        """Unix milliseconds of the feed under way."""
    def feed(self, lane: int, data: bytes) -> None:
        """Take bytes, handle every whole frame, answer."""

class Relay:
    """The handler of Message: checks it, spends one token, publishes its envelope, acknowledges it as Accepted.

    Its context is an Uplink.
    """

    def __init__(
        self,
        bus: Any,
        subject: str,
        node_id: str,
        refuse: Callable[[Any, Any, int], bytes | None],
        overdrawn: Callable[[Any], None],
    ) -> None:
        """`bus.publish(subject, envelope)` says whether the bus took it; ValueError: it never will.

        `refuse(context, frame, code)` answers what is not valid or never taken (4004) or not taken now (4402);
        `overdrawn(context)` is told when the budget is spent, and the message passes all the same.
        """
    def __call__(self, context: Any, frame: ChatFrame) -> bytes | None: ...
