# The shapes of all tables and the verifier. Nothing here makes a Python object.
#
# The checks are those of the C++ reference, in the same positions relative to the start of the buffer, plus:
# every string is UTF-8, a vtable has its two head entries, 8-byte elements are aligned, and the work is
# bounded. A nested payload is a buffer of its own: its alignment counts from its own first byte, as it
# does for a reader that copies it out and for the reference's VerifyNestedFlatBuffer.

cdef extern from *:
    """
    /* A table's fields in order. 1 2 4 8: a scalar of so many bytes; S: string; B: [ubyte]; L: [int64];
       V: [string]; T: [element]. tests/framing/test_shapes.py holds them against the schema. */
    typedef struct framing_shape {
        const char *name;
        const char *kinds;
        int count;
        const struct framing_shape *element;
    } framing_shape;
    #define FRAMING_SHAPE(name, kinds, element) {name, kinds, sizeof(kinds) - 1, element}

    static const framing_shape SHAPE_PACKET = FRAMING_SHAPE("Packet", "828B", 0);
    static const framing_shape SHAPE_AUTH = FRAMING_SHAPE("AuthRequest", "SSS2SS8", 0);
    static const framing_shape SHAPE_AUTH_ACK = FRAMING_SHAPE("AuthResponse", "48SSS4448S", 0);
    static const framing_shape SHAPE_ERROR = FRAMING_SHAPE("Error", "4S4", 0);
    static const framing_shape SHAPE_KICK = FRAMING_SHAPE("Kick", "4SSS", 0);
    static const framing_shape SHAPE_GO_AWAY = FRAMING_SHAPE("GoAway", "4S44V", 0);
    static const framing_shape SHAPE_CHAT = FRAMING_SHAPE("ChatMessage", "S88S4888", 0);
    static const framing_shape SHAPE_ACK = FRAMING_SHAPE("MessageAck", "S1488", 0);
    static const framing_shape SHAPE_SIGNAL = FRAMING_SHAPE("Signal", "888SB", 0);
    static const framing_shape SHAPE_SYNC = FRAMING_SHAPE("SyncRequest", "82", 0);
    static const framing_shape SHAPE_SYNC_ACK = FRAMING_SHAPE("SyncResponse", "4T81", &SHAPE_CHAT);
    static const framing_shape SHAPE_EVENT = FRAMING_SHAPE("Event", "SB", 0);
    static const framing_shape SHAPE_FILE_OFFER = FRAMING_SHAPE("FileOffer", "S88S8BS", 0);
    static const framing_shape SHAPE_FILE_ACK = FRAMING_SHAPE("FileAck", "S4S8", 0);
    static const framing_shape SHAPE_FILE_CHUNK = FRAMING_SHAPE("FileChunk", "S8B1", 0);
    static const framing_shape SHAPE_UPSTREAM = FRAMING_SHAPE("Upstream", "S88SS82B", 0);
    static const framing_shape SHAPE_DOWNSTREAM = FRAMING_SHAPE("Downstream", "8LSS8142B8", 0);
    static const framing_shape SHAPE_USER_EVENT = FRAMING_SHAPE("UserEvent", "S8S8SS8B", 0);
    static const framing_shape SHAPE_UNDELIVERED = FRAMING_SHAPE("Undelivered", "S88SB", 0);

    #define FRAMING_TYPES 64
    /* By MsgType: the root of the payload. A Heartbeat has none. */
    static const framing_shape *const FRAMING_PAYLOADS[FRAMING_TYPES] = {
        [1] = &SHAPE_AUTH, [2] = &SHAPE_AUTH_ACK, [3] = &SHAPE_ERROR, [4] = &SHAPE_KICK, [5] = &SHAPE_GO_AWAY,
        [10] = &SHAPE_CHAT, [11] = &SHAPE_ACK, [12] = &SHAPE_SIGNAL, [20] = &SHAPE_SYNC, [21] = &SHAPE_SYNC_ACK,
        [30] = &SHAPE_EVENT, [40] = &SHAPE_FILE_OFFER, [41] = &SHAPE_FILE_ACK, [42] = &SHAPE_FILE_CHUNK,
    };
    static const framing_shape *const FRAMING_ENVELOPES[] = {
        &SHAPE_UPSTREAM, &SHAPE_DOWNSTREAM, &SHAPE_USER_EVENT, &SHAPE_UNDELIVERED,
    };
    """
    ctypedef struct Shape "framing_shape":
        const char *name
        const char *kinds
        int count
        const Shape *element
    const Shape SHAPE_PACKET
    const Shape SHAPE_UPSTREAM
    const Shape SHAPE_DOWNSTREAM
    const Shape *PAYLOADS "FRAMING_PAYLOADS"[64]
    const Shape *ENVELOPES "FRAMING_ENVELOPES"[4]

cdef enum:
    TYPES = 64
    HEARTBEAT = 0
    MAX_DEPTH = 16
    ENVELOPE_COUNT = 4
    SMALLEST = 12  # a root offset, a table's vtable offset and a vtable's two head entries, as in the reference
    WORK = 4  # visited bytes allowed per received byte (protocol section 2)

# Why a body is refused, most general first. _REASONS has the words, in this order.
cdef enum Verdict:
    FINE = 0
    OUT_OF_BOUNDS
    MISALIGNED
    BAD_OFFSET
    BAD_VTABLE
    NOT_TERMINATED
    NOT_UTF8
    OVER_BUDGET
    TOO_DEEP
    NO_PAYLOAD
    NO_BODY

_REASONS = (
    "fine",
    "a value lies outside the buffer",
    "a value is not aligned",
    "an offset is null or negative",
    "a vtable has no valid size",
    "a string has no terminating NUL",
    "a string is not UTF-8",
    "the work budget is spent",
    "tables are nested too deep",
    "the payload is missing",
    "the body is missing",
)


cdef struct Buffer:
    # One FlatBuffer; positions in it count from `base`.
    const uint8_t *base
    uint64_t size
    int64_t *budget  # shared by a packet and its payload


cdef inline Verdict follow(const Buffer *at, uint64_t where, uint64_t *target) noexcept nogil:
    """Read the offset at `where`: aligned, within the buffer, forward."""
    cdef uint32_t offset
    if where & 3:
        return MISALIGNED
    if where + 4 > at.size:
        return OUT_OF_BOUNDS
    offset = load32(at.base + where)
    if offset == 0 or offset > 0x7FFFFFFF:
        return BAD_OFFSET
    target[0] = where + offset
    return FINE


cdef inline Verdict check_vector(const Buffer *at, uint64_t where, uint64_t width, uint32_t *count) noexcept nogil:
    """A vector's length and bounds. The elements are charged by whoever looks at them."""
    count[0] = 0
    if where & 3:
        return MISALIGNED
    if where + 4 > at.size:
        return OUT_OF_BOUNDS
    count[0] = load32(at.base + where)
    if where + 4 + count[0] * width > at.size:
        return OUT_OF_BOUNDS
    if width == 8 and (where + 4) & 7:
        return MISALIGNED
    at.budget[0] -= 4
    return FINE


cdef inline Verdict check_string(const Buffer *at, uint64_t where) noexcept nogil:
    cdef uint32_t size
    cdef Verdict verdict = check_vector(at, where, 1, &size)
    if verdict != FINE:
        return verdict
    where += 4
    if where + size >= at.size:
        return OUT_OF_BOUNDS
    if at.base[where + size] != 0:
        return NOT_TERMINATED
    at.budget[0] -= size + 1
    if at.budget[0] < 0:
        return OVER_BUDGET
    if not is_utf8(at.base + where, size):
        return NOT_UTF8
    return FINE


cdef Verdict check_elements(const Buffer *at, uint64_t where, const Shape *shape, int depth) noexcept nogil:
    """A vector of offsets, to tables of `shape` or, without one, to strings."""
    cdef uint32_t count, i
    cdef uint64_t element
    cdef Verdict verdict = check_vector(at, where, 4, &count)
    if verdict != FINE:
        return verdict
    for i in range(count):
        where += 4
        at.budget[0] -= 4
        # No null check: the reference has none either, and what it points at is checked like any other.
        element = where + load32(at.base + where)
        verdict = check_string(at, element) if shape == NULL else check_table(at, element, shape, depth + 1)
        if verdict != FINE:
            return verdict
    return FINE


cdef Verdict check_table(const Buffer *at, uint64_t where, const Shape *shape, int depth) noexcept nogil:
    """A table whose known fields have `shape`. Fields beyond those are newer than we are: bounded by the
    vtable's own size, never read."""
    cdef int64_t vtable
    cdef uint64_t field, target
    cdef uint32_t size, count
    cdef uint16_t offset
    cdef int i, known
    cdef uint8_t kind
    cdef Verdict verdict
    if depth > MAX_DEPTH:
        return TOO_DEEP
    if where & 3:
        return MISALIGNED
    if where + 4 > at.size:
        return OUT_OF_BOUNDS
    vtable = <int64_t>where - <int32_t>load32(at.base + where)
    if vtable < 0 or <uint64_t>vtable + 4 > at.size:
        return OUT_OF_BOUNDS
    if vtable & 1:
        return MISALIGNED
    size = load16(at.base + vtable)
    if size < 4 or size & 1:
        return BAD_VTABLE
    if <uint64_t>vtable + size > at.size:
        return OUT_OF_BOUNDS
    known = <int>(size - 4) >> 1
    if known > shape.count:
        known = shape.count
    at.budget[0] -= 8 + 2 * known
    if at.budget[0] < 0:
        return OVER_BUDGET
    for i in range(known):
        offset = load16(at.base + vtable + 4 + 2 * i)
        if offset == 0:
            continue
        field = where + offset
        kind = shape.kinds[i]
        if kind <= c'8':
            size = kind - c'0'
            at.budget[0] -= size
            if field & (size - 1):
                return MISALIGNED
            if field + size > at.size:
                return OUT_OF_BOUNDS
            continue
        at.budget[0] -= 4
        verdict = follow(at, field, &target)
        if verdict != FINE:
            return verdict
        if kind == c'S':
            verdict = check_string(at, target)
        elif kind == c'B':
            verdict = check_vector(at, target, 1, &count)
        elif kind == c'L':
            verdict = check_vector(at, target, 8, &count)
            at.budget[0] -= 8 * <int64_t>count
        else:
            verdict = check_elements(at, target, shape.element, depth)
        if verdict != FINE:
            return verdict
    return FINE if at.budget[0] >= 0 else OVER_BUDGET


cdef Verdict check_root(const Buffer *at, const Shape *shape, int depth, uint64_t *root) noexcept nogil:
    cdef Verdict verdict
    if at.size < SMALLEST:
        return OUT_OF_BOUNDS
    verdict = follow(at, 0, root)
    if verdict != FINE:
        return verdict
    return check_table(at, root[0], shape, depth)


# Reads of verified tables. `table` may be NULL: everything then has its default.

cdef inline uint16_t slot(const uint8_t *table, int field) noexcept nogil:
    """Where `field` is in the table; 0 when it is absent."""
    cdef const uint8_t *vtable
    if table == NULL:
        return 0
    vtable = table - <int32_t>load32(table)
    return load16(vtable + 4 + 2 * field) if 4 + 2 * field < load16(vtable) else 0


cdef inline uint8_t read8(const uint8_t *table, int field) noexcept nogil:
    cdef uint16_t offset = slot(table, field)
    return table[offset] if offset else 0


cdef inline uint16_t read16(const uint8_t *table, int field) noexcept nogil:
    cdef uint16_t offset = slot(table, field)
    return load16(table + offset) if offset else 0


cdef inline uint32_t read32(const uint8_t *table, int field) noexcept nogil:
    cdef uint16_t offset = slot(table, field)
    return load32(table + offset) if offset else 0


cdef inline uint64_t read64(const uint8_t *table, int field) noexcept nogil:
    cdef uint16_t offset = slot(table, field)
    return load64(table + offset) if offset else 0


cdef inline const uint8_t *read_vector(const uint8_t *table, int field, uint32_t *count) noexcept nogil:
    """The first element, and how many; NULL and 0 when absent."""
    cdef uint16_t offset = slot(table, field)
    cdef const uint8_t *vector
    count[0] = 0
    if offset == 0:
        return NULL
    vector = table + offset + load32(table + offset)
    count[0] = load32(vector)
    return vector + 4


cdef str read_string(const uint8_t *table, int field):
    cdef uint32_t size
    cdef const uint8_t *text = read_vector(table, field, &size)
    return PyUnicode_DecodeUTF8(<const char *>text, size, NULL) if size else ""


cdef bytes read_bytes(const uint8_t *table, int field):
    cdef uint32_t size
    cdef const uint8_t *data = read_vector(table, field, &size)
    return PyBytes_FromStringAndSize(<const char *>data, size) if size else b""


def _shapes():
    """The compiled-in shapes, for the test that holds them against the schema."""
    cdef int i
    cdef dict tables = {"Packet": SHAPE_PACKET.kinds.decode()}
    cdef dict types = {}
    for i in range(TYPES):
        if PAYLOADS[i] != NULL:
            types[i] = PAYLOADS[i].name.decode()
            tables[types[i]] = PAYLOADS[i].kinds.decode()
    for i in range(ENVELOPE_COUNT):
        tables[ENVELOPES[i].name.decode()] = ENVELOPES[i].kinds.decode()
    return tables, types
