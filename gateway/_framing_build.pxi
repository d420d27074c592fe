# Whole frames and envelopes written front to back into one buffer of known size. Nothing here reads.
#
# Every table is laid out by hand: root offset, vtable, table with its 8-byte fields aligned, vectors. All
# known fields are present, also those at their default. A payload begins on a multiple of 8 in its body.

cdef enum:
    PACKET_HEAD = 48  # root 4, vtable 12, table 26, pad 2, payload length 4
    BUILD_CEILING = 0x7FFFFFF0


cdef inline Py_ssize_t pad4(Py_ssize_t size) noexcept nogil:
    return (size + 3) & ~<Py_ssize_t>3


cdef inline Py_ssize_t pad8(Py_ssize_t size) noexcept nogil:
    return (size + 7) & ~<Py_ssize_t>7


cdef struct Text:
    const char *at
    Py_ssize_t size
    Py_ssize_t room  # length, bytes, NUL, padding to 4


cdef Text text_of(str text) except *:
    """UTF-8 of `text`; valid as long as `text` lives. UnicodeEncodeError for lone surrogates."""
    cdef Text result
    result.at = PyUnicode_AsUTF8AndSize(text, &result.size)
    result.room = pad4(4 + result.size + 1)
    return result


cdef inline Py_ssize_t put_text(uint8_t *base, Py_ssize_t field, Py_ssize_t where, const Text *text) noexcept nogil:
    """Write a string at `where`, its offset into `field`; return where the next thing goes."""
    store32(base + field, <uint32_t>(where - field))
    store32(base + where, <uint32_t>text.size)
    memset(base + where + text.room - 4, 0, 4)  # the NUL and the padding, before the text may cover part of it
    memcpy(base + where + 4, text.at, text.size)
    return where + text.room


cdef inline void put_vtable(uint8_t *base, const uint16_t *entries, int count) noexcept nogil:
    """The vtable follows the root offset; `entries` are object size and fields."""
    cdef int i
    store16(base + 4, <uint16_t>(2 + 2 * count))
    for i in range(count):
        store16(base + 6 + 2 * i, entries[i])


cdef bytes new_buffer(Py_ssize_t size):
    if size > BUILD_CEILING:
        raise ValueError("a frame or envelope may not be larger than 2 GiB")
    return PyBytes_FromStringAndSize(NULL, size)


cdef inline uint8_t *inside(bytes buffer) noexcept:
    return <uint8_t *>PyBytes_AS_STRING(buffer)


cdef bytes new_frame(Py_ssize_t body_size):
    if body_size > CEILING_BYTES:
        raise ValueError(f"a body of {body_size} bytes is over {CEILING_BYTES}")
    return PyBytes_FromStringAndSize(NULL, HEADER_BYTES + body_size)


cdef bytes header_and_body(uint16_t msg_type, const uint8_t *body, Py_ssize_t size):
    cdef bytes frame = new_frame(size)
    store_header(inside(frame), <uint32_t>size, msg_type)
    if size:
        memcpy(inside(frame) + HEADER_BYTES, body, size)
    return frame


cdef inline uint8_t *put_packet(
    uint8_t *frame, uint16_t msg_type, uint64_t seq, uint64_t timestamp, Py_ssize_t payload_size
) noexcept nogil:
    """Header and Packet up to the payload; return where the payload goes, which fills up the body."""
    cdef uint8_t *body = frame + HEADER_BYTES
    cdef uint16_t[5] entries = [26, 8, 24, 16, 4]
    store_header(frame, <uint32_t>(PACKET_HEAD + payload_size), msg_type)
    store32(body, 16)
    put_vtable(body, entries, 5)
    store32(body + 16, 12)
    store32(body + 20, 24)
    store64(body + 24, seq)
    store64(body + 32, timestamp)
    store16(body + 40, msg_type)
    store16(body + 42, 0)
    store32(body + 44, <uint32_t>payload_size)
    return body + PACKET_HEAD


cdef enum:
    HEARTBEAT_FRAME = 46


cdef inline void put_heartbeat(uint8_t *frame, uint64_t seq, uint64_t timestamp) noexcept nogil:
    cdef uint8_t *body = frame + HEADER_BYTES
    cdef uint16_t[4] entries = [24, 8, 4, 16]
    store_header(frame, HEARTBEAT_FRAME - HEADER_BYTES, HEARTBEAT)
    store32(body, 16)
    put_vtable(body, entries, 4)
    store16(body + 14, 0)
    store32(body + 16, 12)
    store32(body + 20, HEARTBEAT)
    store64(body + 24, seq)
    store64(body + 32, timestamp)


def encode_frame(uint16_t msg_type, bytes body not None):
    """Header and body. ValueError for a body over CEILING; the body is not looked at."""
    return header_and_body(msg_type, <const uint8_t *>PyBytes_AS_STRING(body), PyBytes_GET_SIZE(body))


def build_frame(uint16_t msg_type, uint64_t seq, uint64_t timestamp, bytes payload not None):
    """A whole frame around a payload that somebody else built; the payload is not looked at."""
    cdef Py_ssize_t size = PyBytes_GET_SIZE(payload)
    cdef bytes frame = new_frame(PACKET_HEAD + size)
    memcpy(put_packet(inside(frame), msg_type, seq, timestamp, size), PyBytes_AS_STRING(payload), size)
    return frame


def build_heartbeat(uint64_t seq, uint64_t timestamp):
    """A whole Heartbeat frame."""
    cdef bytes frame = new_frame(HEARTBEAT_FRAME - HEADER_BYTES)
    put_heartbeat(inside(frame), seq, timestamp)
    return frame


def build_ack(
    uint64_t seq,
    uint64_t timestamp,
    str msg_id not None,
    signed char status,
    int32_t code=0,
    uint64_t server_seq=0,
    uint64_t acked_at=0,
):
    """A whole MessageAck frame."""
    cdef Text name = text_of(msg_id)
    return ack_frame(seq, timestamp, &name, status, code, server_seq, acked_at)


cdef bytes ack_frame(
    uint64_t seq,
    uint64_t timestamp,
    const Text *name,
    signed char status,
    int32_t code,
    uint64_t server_seq,
    uint64_t acked_at,
):
    cdef Py_ssize_t size = pad8(52 + name.room)
    cdef bytes frame = new_frame(PACKET_HEAD + size)
    cdef uint8_t *at = put_packet(inside(frame), MESSAGE_ACK, seq, timestamp, size)
    cdef uint16_t[6] entries = [29, 20, 28, 24, 4, 12]
    store64(at + size - 8, 0)
    store32(at, 20)
    put_vtable(at, entries, 6)
    store16(at + 18, 0)
    store32(at + 20, 16)
    store64(at + 24, server_seq)
    store64(at + 32, acked_at)
    store32(at + 44, <uint32_t>code)
    store32(at + 48, <uint8_t>status)
    put_text(at, 40, 52, name)
    return frame


def build_error(uint64_t seq, uint64_t timestamp, int32_t code, str message not None, uint32_t retry_after_ms=0):
    """A whole Error frame."""
    cdef Text text = text_of(message)
    cdef Py_ssize_t size = pad8(32 + text.room)
    cdef bytes frame = new_frame(PACKET_HEAD + size)
    cdef uint8_t *at = put_packet(inside(frame), 3, seq, timestamp, size)
    cdef uint16_t[4] entries = [16, 4, 8, 12]
    store64(at + size - 8, 0)
    store32(at, 16)
    put_vtable(at, entries, 4)
    store16(at + 14, 0)
    store32(at + 16, 12)
    store32(at + 20, <uint32_t>code)
    store32(at + 28, retry_after_ms)
    put_text(at, 24, 32, &text)
    return frame


def build_chat(
    uint64_t seq,
    uint64_t timestamp,
    str msg_id not None,
    int64_t from_user,
    int64_t to_user,
    str content not None,
    int32_t content_type,
    uint64_t sent_at,
    int64_t group_id,
    uint64_t server_seq,
):
    """A whole Message frame."""
    cdef Text name = text_of(msg_id)
    cdef Text text = text_of(content)
    cdef Py_ssize_t size = pad8(84 + name.room + text.room)
    cdef bytes frame = new_frame(PACKET_HEAD + size)
    cdef uint8_t *at = put_packet(inside(frame), MESSAGE, seq, timestamp, size)
    cdef uint16_t[9] entries = [56, 44, 4, 12, 48, 52, 20, 28, 36]
    cdef Py_ssize_t where
    store64(at + size - 8, 0)
    store32(at, 28)
    put_vtable(at, entries, 9)
    store32(at + 24, 0)
    store32(at + 28, 24)
    store64(at + 32, <uint64_t>from_user)
    store64(at + 40, <uint64_t>to_user)
    store64(at + 48, sent_at)
    store64(at + 56, <uint64_t>group_id)
    store64(at + 64, server_seq)
    store32(at + 80, <uint32_t>content_type)
    where = put_text(at, 72, 84, &name)
    put_text(at, 76, where, &text)
    return frame


cdef inline Py_ssize_t put_data(
    uint8_t *base, Py_ssize_t field, Py_ssize_t where, const uint8_t *data, Py_ssize_t size
) noexcept nogil:
    """Write a [ubyte] at `where`, padded to 4, its offset into `field`; return where the next thing goes."""
    store32(base + field, <uint32_t>(where - field))
    store32(base + where, <uint32_t>size)
    where += 4
    if size:
        store32(base + where + pad4(size) - 4, 0)
        memcpy(base + where, data, size)
    return where + pad4(size)


def build_upstream(
    str node_id not None,
    int64_t conn_id,
    int64_t user_id,
    str device_id not None,
    str platform not None,
    uint64_t received_at,
    Frame frame not None,
):
    """The Upstream envelope around the client's own packet, unchanged."""
    return upstream_bytes(node_id, conn_id, user_id, device_id, platform, received_at, frame)


cdef bytes upstream_bytes(
    str node_id, int64_t conn_id, int64_t user_id, str device_id, str platform, uint64_t received_at, Frame frame
):
    cdef Text node = text_of(node_id)
    cdef Text device = text_of(device_id)
    cdef Text system = text_of(platform)
    cdef Py_ssize_t size = pad8(80 + pad4(frame.size) + node.room + device.room + system.room)
    cdef bytes envelope = new_buffer(size)
    cdef uint8_t *at = inside(envelope)
    cdef uint16_t[9] entries = [46, 28, 4, 12, 32, 36, 20, 44, 40]
    cdef Py_ssize_t where
    store64(at + size - 8, 0)
    store32(at, 28)
    put_vtable(at, entries, 9)
    store32(at + 24, 0)
    store32(at + 28, 24)
    store64(at + 32, <uint64_t>conn_id)
    store64(at + 40, <uint64_t>user_id)
    store64(at + 48, received_at)
    store32(at + 72, frame._type)
    where = put_data(at, 68, 76, frame.start, frame.size)
    where = put_text(at, 56, where, &node)
    where = put_text(at, 60, where, &device)
    put_text(at, 64, where, &system)
    return envelope


def build_downstream(
    int64_t user_id,
    conn_ids,
    str device_id not None,
    str platform not None,
    int64_t exclude_conn_id,
    signed char action,
    int32_t code,
    int16_t msg_type,
    bytes packet not None,
    uint64_t expires_at,
):
    """The Downstream envelope. ValueError for more than 2 GiB, OverflowError for an id beyond int64."""
    cdef tuple ids = tuple(conn_ids)
    cdef Py_ssize_t count = len(ids)
    cdef Py_ssize_t packet_size = PyBytes_GET_SIZE(packet)
    cdef Text device = text_of(device_id)
    cdef Text system = text_of(platform)
    cdef Py_ssize_t size = pad8(96 + 8 * count + pad4(packet_size) + device.room + system.room)
    cdef bytes envelope = new_buffer(size)
    cdef uint8_t *at = inside(envelope)
    cdef uint16_t[11] entries = [51, 4, 28, 32, 36, 12, 50, 44, 48, 40, 20]
    cdef Py_ssize_t where = 88
    store64(at + size - 8, 0)
    store32(at, 28)
    put_vtable(at, entries, 11)
    store32(at + 28, 24)
    store64(at + 32, <uint64_t>user_id)
    store64(at + 40, <uint64_t>exclude_conn_id)
    store64(at + 48, expires_at)
    store32(at + 56, 84 - 56)
    store32(at + 72, <uint32_t>code)
    store16(at + 76, <uint16_t>msg_type)
    store16(at + 78, <uint8_t>action)
    store32(at + 80, 0)
    store32(at + 84, <uint32_t>count)
    for conn_id in ids:
        store64(at + where, <uint64_t><int64_t>conn_id)
        where += 8
    store32(at + where, 0)
    where = put_data(at, 68, where + 4, <const uint8_t *>PyBytes_AS_STRING(packet), packet_size)
    where = put_text(at, 60, where, &device)
    put_text(at, 64, where, &system)
    return envelope
