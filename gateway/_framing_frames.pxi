# Frames: one Packet checked, and its fields read in place. No stream and no dispatch lives here.

cdef enum:
    HEADER_BYTES = 6
    CEILING_BYTES = 16777216
    MALFORMED = 4000
    TOO_LARGE = 4001
    UNKNOWN = 4002
    MISMATCH = 4003
    MESSAGE = 10
    MESSAGE_ACK = 11
    SIGNAL = 12

HEADER = HEADER_BYTES
CEILING = CEILING_BYTES


class FrameError(ValueError):
    """Bytes that are no valid frame; `code` is the protocol's code."""

    def __init__(self, int code, str message):
        super().__init__(message)
        self.code = code


cdef struct Parts:
    # What checking a body finds. Pointers into the body.
    const uint8_t *table
    const uint8_t *payload
    uint32_t payload_size
    uint64_t seq
    uint64_t timestamp
    Verdict verdict


cdef inline void read_packet(const uint8_t *packet, Parts *parts) noexcept nogil:
    parts.seq = read64(packet, 0)
    parts.timestamp = read64(packet, 2)
    parts.payload = read_vector(packet, 3, &parts.payload_size)


cdef int check_body(const uint8_t *body, uint32_t size, uint16_t msg_type, Parts *parts) noexcept nogil:
    """Verify one body as a Packet of `msg_type`; return 0 or the code to refuse it with.

    A type without a schema is 4002 whatever its body is; its seq is still read when the Packet verifies.
    """
    cdef const Shape *shape = PAYLOADS[msg_type] if msg_type < TYPES else NULL
    cdef bint known = shape != NULL or msg_type == HEARTBEAT
    cdef int64_t budget = <int64_t>WORK * size
    cdef uint64_t root
    cdef Buffer at
    memset(parts, 0, sizeof(Parts))
    if size == 0:
        if msg_type == HEARTBEAT:
            return 0
        parts.verdict = NO_BODY
        return MALFORMED if known else UNKNOWN
    at.base = body
    at.size = size
    at.budget = &budget
    parts.verdict = check_root(&at, &SHAPE_PACKET, 1, &root)
    if parts.verdict != FINE:
        return MALFORMED if known else UNKNOWN
    read_packet(body + root, parts)
    if not known:
        return UNKNOWN
    if read16(body + root, 1) != msg_type:
        return MISMATCH
    if shape == NULL:
        return 0
    if parts.payload == NULL:
        parts.verdict = NO_PAYLOAD
        return MALFORMED
    at.base = parts.payload
    at.size = parts.payload_size
    parts.verdict = check_root(&at, shape, 2, &root)
    if parts.verdict != FINE:
        return MALFORMED
    parts.table = parts.payload + root
    return 0


@cython.freelist(64)
cdef class Frame:
    """One whole, verified frame. Pins the bytes it was cut from; every read is of verified memory."""

    # All kinds have this one layout, so that they share one free list.
    cdef bytes source
    cdef const uint8_t *start
    cdef const uint8_t *table
    cdef const uint8_t *payload_start
    cdef uint32_t size
    cdef uint32_t payload_size
    cdef uint64_t _seq
    cdef uint64_t _timestamp
    cdef uint16_t _type

    def __init__(self):
        raise TypeError("frames are made by FrameDecoder and parse_frame")

    @property
    def type(self):
        return self._type

    @property
    def seq(self):
        return self._seq

    @property
    def timestamp(self):
        return self._timestamp

    @property
    def body(self):
        """The Packet, byte for byte (a copy)."""
        return PyBytes_FromStringAndSize(<const char *>self.start, self.size)

    @property
    def payload(self):
        """The nested FlatBuffer (a copy); empty when the packet has none."""
        return PyBytes_FromStringAndSize(<const char *>self.payload_start, self.payload_size)

    def encode(self):
        """Header and body, as received."""
        return header_and_body(self._type, self.start, self.size)

    def __repr__(self):
        return f"<{type(self).__name__} type={self._type} seq={self._seq} {self.size} bytes>"


cdef class ChatFrame(Frame):
    """A Message; payload is a ChatMessage."""

    @property
    def valid(self):
        """msg_id is 1-64 of [A-Za-z0-9_-] and exactly one of to_user, group_id is set and positive."""
        return addressed(self.table)

    @property
    def msg_id(self):
        return read_string(self.table, 0)

    @property
    def from_user(self):
        return <int64_t>read64(self.table, 1)

    @property
    def to_user(self):
        return <int64_t>read64(self.table, 2)

    @property
    def content(self):
        return read_string(self.table, 3)

    @property
    def content_type(self):
        return <int32_t>read32(self.table, 4)

    @property
    def sent_at(self):
        """ChatMessage.timestamp."""
        return read64(self.table, 5)

    @property
    def group_id(self):
        return <int64_t>read64(self.table, 6)

    @property
    def server_seq(self):
        return read64(self.table, 7)


cdef class AckFrame(Frame):
    """A MessageAck."""

    @property
    def valid(self):
        """msg_id is 1-64 of [A-Za-z0-9_-] and status is one of AckStatus."""
        cdef uint8_t status = read8(self.table, 1)
        return has_name(self.table) and status <= 4

    @property
    def msg_id(self):
        return read_string(self.table, 0)

    @property
    def status(self):
        return <signed char>read8(self.table, 1)

    @property
    def code(self):
        return <int32_t>read32(self.table, 2)

    @property
    def server_seq(self):
        return read64(self.table, 3)

    @property
    def acked_at(self):
        """MessageAck.timestamp."""
        return read64(self.table, 4)


cdef class SignalFrame(Frame):
    """A Signal."""

    @property
    def to_user(self):
        return <int64_t>read64(self.table, 0)

    @property
    def from_user(self):
        return <int64_t>read64(self.table, 1)

    @property
    def group_id(self):
        return <int64_t>read64(self.table, 2)

    @property
    def kind(self):
        return read_string(self.table, 3)

    @property
    def data(self):
        return read_bytes(self.table, 4)


cdef bint addressed(const uint8_t *table) noexcept nogil:
    """Whether a ChatMessage has a name for its msg_id, and exactly one of to_user and group_id."""
    cdef int64_t to_user = <int64_t>read64(table, 2)
    cdef int64_t group_id = <int64_t>read64(table, 6)
    return has_name(table) and ((to_user > 0 and group_id == 0) or (to_user == 0 and group_id > 0))


cdef bint has_name(const uint8_t *table) noexcept nogil:
    """Whether field 0 is a name: 1 to 64 of A-Z a-z 0-9 _ -."""
    cdef uint32_t size
    cdef const uint8_t *text = read_vector(table, 0, &size)
    return is_name_bytes(text, size, 64)


cdef Frame make_frame(bytes source, const uint8_t *body, uint32_t size, uint16_t msg_type, const Parts *parts):
    """A Frame over checked memory that `source` owns."""
    cdef Frame frame
    if msg_type == MESSAGE:
        frame = ChatFrame.__new__(ChatFrame)
    elif msg_type == MESSAGE_ACK:
        frame = AckFrame.__new__(AckFrame)
    elif msg_type == SIGNAL:
        frame = SignalFrame.__new__(SignalFrame)
    else:
        frame = Frame.__new__(Frame)
    frame.source = source
    frame.start = body
    frame.size = size
    frame.table = parts.table
    frame.payload_start = parts.payload
    frame.payload_size = parts.payload_size
    frame._seq = parts.seq
    frame._timestamp = parts.timestamp
    frame._type = msg_type
    return frame


cdef object refusal(int code, uint16_t msg_type, Verdict verdict):
    """The FrameError for what check_body found."""
    if code == UNKNOWN:
        return FrameError(code, f"frame type {msg_type} is not known")
    if code == MISMATCH:
        return FrameError(code, f"the packet's msg_type is not the header's {msg_type}")
    return FrameError(code, f"malformed frame of type {msg_type}: {_REASONS[<int>verdict]}")


def parse_frame(uint16_t msg_type, bytes body not None):
    """Verify one Packet whose header type is `msg_type`.

    Raises:
        FrameError: with the code of protocol section 3.
    """
    cdef Parts parts
    cdef Py_ssize_t size = PyBytes_GET_SIZE(body)
    if size > CEILING_BYTES:
        raise FrameError(TOO_LARGE, f"a body of {size} bytes is over {CEILING_BYTES}")
    cdef const uint8_t *start = <const uint8_t *>PyBytes_AS_STRING(body)
    cdef int code = check_body(start, <uint32_t>size, msg_type, &parts)
    if code:
        raise refusal(code, msg_type, parts.verdict)
    return make_frame(body, start, <uint32_t>size, msg_type, &parts)
