# What comes over the bus, verified and read in place. Writing them is in _framing_build.

cdef const uint8_t *check_envelope(bytes data, const Shape *shape) except NULL:
    """Verify a whole buffer as `shape`; return its root table."""
    cdef int64_t budget = <int64_t>WORK * PyBytes_GET_SIZE(data)
    cdef Buffer at
    cdef uint64_t root
    cdef Verdict verdict
    if PyBytes_GET_SIZE(data) > BUILD_CEILING:
        raise FrameError(TOO_LARGE, "an envelope may not be larger than 2 GiB")
    at.base = inside(data)
    at.size = PyBytes_GET_SIZE(data)
    at.budget = &budget
    verdict = check_root(&at, shape, 1, &root)
    if verdict != FINE:
        raise FrameError(MALFORMED, f"malformed {shape.name.decode()}: {_REASONS[<int>verdict]}")
    return at.base + root


def verify_envelope(str name not None, bytes data not None):
    """Verify `data` as the table `name` of schema/internal.fbs. Raises FrameError, or KeyError for another name."""
    cdef int i
    for i in range(ENVELOPE_COUNT):
        if ENVELOPES[i].name.decode() == name:
            check_envelope(data, ENVELOPES[i])
            return
    raise KeyError(name)


cdef Frame envelope_frame(bytes data, const uint8_t *table, int type_field, int packet_field):
    """The packet in an envelope, verified as the client's frame would be."""
    cdef uint32_t size
    cdef uint16_t msg_type = read16(table, type_field)
    cdef const uint8_t *body = read_vector(table, packet_field, &size)
    cdef Parts parts
    cdef int code
    if size > CEILING_BYTES:
        raise FrameError(TOO_LARGE, f"a body of {size} bytes is over {CEILING_BYTES}")
    code = check_body(body, size, msg_type, &parts)
    if code:
        raise refusal(code, msg_type, parts.verdict)
    return make_frame(data, body, size, msg_type, &parts)


cdef class Upstream:
    """A verified Upstream envelope (its packet is verified too, as `frame`)."""

    cdef bytes _data
    cdef const uint8_t *_table
    cdef readonly Frame frame

    def __init__(self):
        raise TypeError("made by parse_upstream")

    @property
    def node_id(self):
        return read_string(self._table, 0)

    @property
    def conn_id(self):
        return <int64_t>read64(self._table, 1)

    @property
    def user_id(self):
        return <int64_t>read64(self._table, 2)

    @property
    def device_id(self):
        return read_string(self._table, 3)

    @property
    def platform(self):
        return read_string(self._table, 4)

    @property
    def received_at(self):
        return read64(self._table, 5)

    @property
    def msg_type(self):
        return <int16_t>read16(self._table, 6)


def parse_upstream(bytes data not None):
    """Raises FrameError."""
    cdef Upstream envelope = Upstream.__new__(Upstream)
    envelope._data = data
    envelope._table = check_envelope(data, &SHAPE_UPSTREAM)
    envelope.frame = envelope_frame(data, envelope._table, 6, 7)
    return envelope


cdef class Downstream:
    """A verified Downstream envelope; its packet is verified too when action is Deliver."""

    cdef bytes _data
    cdef const uint8_t *_table
    cdef Frame _frame

    def __init__(self):
        raise TypeError("made by parse_downstream")

    @property
    def user_id(self):
        return <int64_t>read64(self._table, 0)

    @property
    def conn_ids(self):
        cdef uint32_t count, i
        cdef const uint8_t *ids = read_vector(self._table, 1, &count)
        return tuple([<int64_t>load64(ids + 8 * <size_t>i) for i in range(count)])

    @property
    def device_id(self):
        return read_string(self._table, 2)

    @property
    def platform(self):
        return read_string(self._table, 3)

    @property
    def exclude_conn_id(self):
        return <int64_t>read64(self._table, 4)

    @property
    def action(self):
        return <signed char>read8(self._table, 5)

    @property
    def code(self):
        return <int32_t>read32(self._table, 6)

    @property
    def msg_type(self):
        return <int16_t>read16(self._table, 7)

    @property
    def packet(self):
        return read_bytes(self._table, 8)

    @property
    def expires_at(self):
        return read64(self._table, 9)

    @property
    def frame(self):
        """The packet as a verified frame. FrameError if it is none, which only an action but Deliver can have."""
        if self._frame is None:
            if self._table == NULL:
                raise FrameError(MALFORMED, "an empty envelope")
            self._frame = envelope_frame(self._data, self._table, 7, 8)
        return self._frame


def parse_downstream(bytes data not None):
    """Raises FrameError."""
    cdef Downstream envelope = Downstream.__new__(Downstream)
    envelope._data = data
    envelope._table = check_envelope(data, &SHAPE_DOWNSTREAM)
    if read8(envelope._table, 5) == 0:
        envelope._frame = envelope_frame(data, envelope._table, 7, 8)
    return envelope
