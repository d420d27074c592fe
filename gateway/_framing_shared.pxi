# From finished frames to one write. Nothing here knows a connection.

cdef inline bint apart(const uint8_t *a, Py_ssize_t a_size, const uint8_t *b, Py_ssize_t b_size) noexcept nogil:
    """Whether two stretches of memory do not overlap."""
    return a + a_size <= b or b + b_size <= a


cdef Py_ssize_t stampable(const uint8_t *body, const Parts *parts) noexcept nogil:
    """Where in a verified body `seq` may be overwritten without changing anything else; 0 if nowhere.

    Builders never let a field overlap another thing, but verification allows it.
    """
    cdef const uint8_t *packet = body + load32(body)
    cdef const uint8_t *vtable = packet - <int32_t>load32(packet)
    cdef const uint8_t *seq = packet + slot(packet, 0)
    cdef int field
    cdef int size
    if seq == packet or not apart(seq, 8, packet, 4) or not apart(seq, 8, vtable, load16(vtable)):
        return 0
    for field in range(1, 4):
        size = SHAPE_PACKET.kinds[field] - c'0' if field < 3 else 4
        if slot(packet, field) and not apart(seq, 8, packet + slot(packet, field), size):
            return 0
    if parts.payload != NULL and not apart(seq, 8, parts.payload - 4, parts.payload_size + 4):
        return 0
    return seq - body


cdef class SharedFrame:
    """A server frame for many connections: its bytes are shared, its seq is stamped when it is written."""

    cdef bytes _data
    cdef Py_ssize_t _slot  # where seq is in _data
    cdef uint16_t _type

    def __cinit__(self, bytes frame not None):
        cdef Py_ssize_t size = PyBytes_GET_SIZE(frame) - HEADER_BYTES
        cdef const uint8_t *start = inside(frame)
        cdef Parts parts
        cdef Py_ssize_t where
        cdef int code
        if size < 0 or size != load32_big(start):
            raise FrameError(MALFORMED, "not one whole frame: its header's length is not its body's")
        if size > CEILING_BYTES:
            raise FrameError(TOO_LARGE, f"a body of {size} bytes is over {CEILING_BYTES}")
        self._type = <uint16_t>((start[4] << 8) | start[5])
        code = check_body(start + HEADER_BYTES, <uint32_t>size, self._type, &parts)
        if code:
            raise refusal(code, self._type, parts.verdict)
        where = stampable(start + HEADER_BYTES, &parts) if size else 0
        if where == 0:
            frame = rebuilt(self._type, &parts)
            where = 24
            # It may be shorter than what came (bytes that nothing pointed at are gone), and its budget with it.
            start = inside(frame) + HEADER_BYTES
            code = check_body(start, <uint32_t>(PyBytes_GET_SIZE(frame) - HEADER_BYTES), self._type, &parts)
            if code:
                raise refusal(code, self._type, parts.verdict)
        self._data = frame
        self._slot = HEADER_BYTES + where

    @property
    def type(self):
        return self._type

    @property
    def data(self):
        """The frame, with the seq it was made with."""
        return self._data

    def __len__(self):
        return PyBytes_GET_SIZE(self._data)


cdef bytes rebuilt(uint16_t msg_type, const Parts *parts):
    """The same packet in our own layout, which has seq at 24."""
    cdef bytes frame
    if parts.payload == NULL and msg_type == HEARTBEAT:
        return build_heartbeat(parts.seq, parts.timestamp)
    frame = new_frame(PACKET_HEAD + parts.payload_size)
    memcpy(
        put_packet(inside(frame), msg_type, parts.seq, parts.timestamp, parts.payload_size),
        parts.payload,
        parts.payload_size,
    )
    return frame


def join_frames(items, uint64_t next_seq, prefix=None):
    """One buffer for one write, and the next seq (see the .pyi)."""
    cdef list parts = <list>items if type(items) is list else list(items)
    cdef Py_ssize_t total = 0
    cdef Py_ssize_t size
    cdef SharedFrame shared
    cdef bytes joined
    cdef bytes front = b""
    cdef uint8_t *at
    cdef object item
    if len(parts) == 1 and prefix is None and type(parts[0]) is bytes:
        return parts[0], next_seq
    for item in parts:
        if type(item) is bytes:
            total += PyBytes_GET_SIZE(<bytes>item)
        else:
            total += PyBytes_GET_SIZE((<SharedFrame?>item)._data)
    if total == 0:
        return b"", next_seq
    if prefix is not None:
        parts = parts[:]  # what prefix does must not change the sum
        front = <bytes?>prefix(total)
    joined = PyBytes_FromStringAndSize(NULL, PyBytes_GET_SIZE(front) + total)
    at = inside(joined)
    memcpy(at, inside(front), PyBytes_GET_SIZE(front))
    at += PyBytes_GET_SIZE(front)
    for item in parts:
        if type(item) is bytes:
            size = PyBytes_GET_SIZE(<bytes>item)
            memcpy(at, inside(<bytes>item), size)
        else:
            shared = <SharedFrame>item
            size = PyBytes_GET_SIZE(shared._data)
            memcpy(at, inside(shared._data), size)
            store64(at + shared._slot, next_seq)
            next_seq += 1
        at += size
    return joined, next_seq
