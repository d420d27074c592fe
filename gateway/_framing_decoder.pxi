# The stream: chunks to frames to handlers. Nothing here knows a field.

cdef enum:
    NOTHING = 0
    CALL = 1
    ECHO = 2
    FORBID = 3


@cython.no_gc_clear
cdef class DispatchTable:
    """What is done with each frame type: a C array indexed by type (see the .pyi)."""

    cdef object _refuse
    cdef list _handlers
    cdef uint8_t[TYPES] _actions
    cdef int[TYPES] _codes
    cdef readonly uint64_t echoes

    def __cinit__(self, refuse):
        self._refuse = refuse
        self._handlers = [None] * TYPES
        memset(self._actions, NOTHING, sizeof(self._actions))

    cdef int _known(self, int msg_type) except -1:
        if not 0 <= msg_type < TYPES or (PAYLOADS[msg_type] == NULL and msg_type != HEARTBEAT):
            raise ValueError(f"no frame type has the number {msg_type}")
        return msg_type

    def on(self, int msg_type, handler):
        """Call `handler(context, frame)`; the frame's class follows from the type. Returned bytes are replies."""
        if not callable(handler):
            raise TypeError(f"a handler must be callable, not {type(handler).__name__}")
        self._handlers[self._known(msg_type)] = handler
        self._actions[msg_type] = CALL

    def echo(self, int msg_type):
        """Answer in C: the same seq, the `now` given to feed as timestamp; an empty body by an empty body."""
        if self._known(msg_type) != HEARTBEAT:
            raise ValueError("only a Heartbeat can be echoed")
        self._actions[msg_type] = ECHO

    def forbid(self, int msg_type, int code):
        """Refuse this type with `code` (4005 before Auth), after verifying it so that `seq` can be echoed."""
        self._codes[self._known(msg_type)] = code
        self._actions[msg_type] = FORBID


cdef struct Replies:
    # What feed answers: one bytes object as it is, or, from the second reply on, one growing buffer.
    PyObject *single
    uint8_t *at
    Py_ssize_t size
    Py_ssize_t room


cdef uint8_t *grow(Replies *replies, Py_ssize_t count) except NULL:
    """Room for `count` more bytes at the end."""
    cdef Py_ssize_t room
    cdef uint8_t *moved
    cdef PyObject *single = replies.single
    if single != NULL:
        replies.single = NULL
        data = <bytes>single
        Py_DECREF(data)
        append(replies, data)
    if replies.size + count > replies.room:
        room = max(2 * replies.room, replies.size + count, 512)
        moved = <uint8_t *>PyMem_Realloc(replies.at, room)
        if moved == NULL:
            raise MemoryError
        replies.at = moved
        replies.room = room
    replies.size += count
    return replies.at + replies.size - count


cdef int append(Replies *replies, bytes data) except -1:
    cdef Py_ssize_t size = PyBytes_GET_SIZE(data)
    memcpy(grow(replies, size), PyBytes_AS_STRING(data), size)
    return 0


cdef inline int reply(Replies *replies, object data) except -1:
    """Add what a handler returned: bytes or None."""
    if data is None:
        return 0
    if type(data) is not bytes:
        raise TypeError(f"a handler must return bytes or None, not {type(data).__name__}")
    if replies.single == NULL and replies.size == 0:
        if PyBytes_GET_SIZE(data):
            Py_INCREF(data)
            replies.single = <PyObject *>data
        return 0
    return append(replies, <bytes>data)


@cython.no_gc_clear
cdef class FrameDecoder:
    """Whole frames out of arbitrary chunks, dispatched as they are found (see the .pyi)."""

    # `_kept[_from:_used]` is retained. A partial frame over 4 KiB may have an eighth of spare room behind it,
    # so that one that trickles in is not copied again for every byte.
    cdef bytes _kept
    cdef Py_ssize_t _from
    cdef Py_ssize_t _used
    cdef DispatchTable _table
    cdef uint64_t _frames
    cdef uint32_t _limit
    cdef bint _closed
    cdef bint _busy
    cdef public bint paused

    def __cinit__(self, DispatchTable table not None, limit):
        self._table = table
        self.limit = limit

    @property
    def table(self):
        return self._table

    @table.setter
    def table(self, DispatchTable table not None):
        self._table = table

    @property
    def limit(self):
        return self._limit

    @limit.setter
    def limit(self, limit):
        if not 0 <= limit <= CEILING_BYTES:
            raise ValueError(f"a frame limit must be 0 to {CEILING_BYTES} bytes, not {limit}")
        self._limit = limit

    @property
    def closed(self):
        return self._closed

    @property
    def pending(self):
        """Bytes retained: a partial frame, or what came while paused."""
        return self._used - self._from

    @property
    def frames(self):
        """Whole frames dispatched or refused since the start."""
        return self._frames

    def close(self):
        """Drop what is retained and ignore all further bytes."""
        self._closed = True
        self._drop()

    cpdef bytes feed(self, object context, bytes data, uint64_t now=0):
        """Take `data`; return the replies in order, joined (see the .pyi)."""
        if data is None:
            raise TypeError("feed takes bytes, not None")
        cdef Replies replies
        cdef bint whole = False
        if self._busy:
            raise RuntimeError("feed was called by a handler of the same decoder")
        if self._closed:
            return b""
        if self.paused:
            self._keep(data, 0, PyBytes_GET_SIZE(data))
            return b""
        memset(&replies, 0, sizeof(replies))
        self._busy = True
        try:
            self._take(context, data, now, &replies)
            whole = True
            if replies.single != NULL:
                return <bytes>replies.single
            if replies.size:
                return PyBytes_FromStringAndSize(<const char *>replies.at, replies.size)
            return b""
        finally:
            self._busy = False
            if not whole:
                self._closed = True
            if self._closed:
                self._drop()
            if replies.single != NULL:
                Py_DECREF(<object>replies.single)
            PyMem_Free(replies.at)

    cdef int _take(self, object context, bytes data, uint64_t now, Replies *replies) except -1:
        """Dispatch what is whole in the retained bytes and `data`, and retain the rest."""
        cdef Py_ssize_t position = 0
        cdef Py_ssize_t size = PyBytes_GET_SIZE(data)
        cdef Py_ssize_t lacking
        cdef bytes kept
        while self._used > self._from:
            # Complete the first retained frame, and only it, so that the rest of `data` is read in place.
            lacking = min(self._lacking(), size - position)
            if lacking:
                self._keep(data, position, lacking)
                position += lacking
            elif position == size and self._lacking():
                return 0
            if self._lacking():
                continue
            kept = self._kept
            self._from = self._run(context, kept, self._from, self._used, now, replies)
            if self._closed:
                return 0
            if self.paused:
                break
        if self._used == self._from:
            self._drop()
        if not self.paused:
            position = self._run(context, data, position, size, now, replies)
        if not self._closed:
            self._keep(data, position, size - position)
        return 0

    cdef Py_ssize_t _run(
        self, object context, bytes source, Py_ssize_t position, Py_ssize_t end, uint64_t now, Replies *replies
    ) except -1:
        """Dispatch the whole frames in `source[position:end]` until one closes or pauses; return where it stopped."""
        cdef const uint8_t *at
        cdef uint32_t length
        cdef uint16_t msg_type
        while end - position >= HEADER_BYTES:
            at = inside(source) + position
            length = load32_big(at)
            msg_type = <uint16_t>((at[4] << 8) | at[5])
            if length > self._limit:
                self._closed = True
                reply(replies, self._table._refuse(context, TOO_LARGE, msg_type, 0))
                break
            if end - position - HEADER_BYTES < length:
                break
            position += HEADER_BYTES + length
            self._frames += 1
            self._dispatch(context, source, at + HEADER_BYTES, length, msg_type, now, replies)
            if self._closed or self.paused:
                break
        return position

    @cython.boundscheck(True)
    cdef int _dispatch(
        self,
        object context,
        bytes source,
        const uint8_t *body,
        uint32_t size,
        uint16_t msg_type,
        uint64_t now,
        Replies *replies,
    ) except -1:
        """Verify one frame and do with it what the table says."""
        cdef DispatchTable table = self._table  # ours while the handler may set another
        cdef uint8_t action = table._actions[msg_type] if msg_type < TYPES else NOTHING
        cdef Parts parts
        cdef int code = check_body(body, size, msg_type, &parts)
        if code == 0:
            if action == CALL:
                handler = table._handlers[msg_type]
                return reply(replies, handler(context, make_frame(source, body, size, msg_type, &parts)))
            if action == ECHO:
                table.echoes += 1
                if size:
                    put_heartbeat(grow(replies, HEARTBEAT_FRAME), parts.seq, now)
                else:
                    memset(grow(replies, HEADER_BYTES), 0, HEADER_BYTES)
                return 0
            code = table._codes[msg_type] if action == FORBID else UNKNOWN
        elif code != UNKNOWN:
            self._closed = True
        return reply(replies, table._refuse(context, code, msg_type, parts.seq))

    cdef Py_ssize_t _lacking(self) noexcept:
        """How many bytes the first retained frame lacks, as far as is known; 0 when it can be judged."""
        cdef Py_ssize_t has = self._used - self._from
        cdef uint32_t length
        if has < HEADER_BYTES:
            return HEADER_BYTES - has
        length = load32_big(inside(self._kept) + self._from)
        if length > self._limit or has - HEADER_BYTES >= length:
            return 0
        return length - (has - HEADER_BYTES)

    cdef int _keep(self, bytes data, Py_ssize_t position, Py_ssize_t count) except -1:
        """Retain `data[position:position + count]` behind what is retained."""
        cdef Py_ssize_t has = self._used - self._from
        cdef Py_ssize_t need = has + count
        cdef bytes moved
        if count == 0:
            return 0
        if has == 0 or self._from or need > PyBytes_GET_SIZE(self._kept) or Py_REFCNT(self._kept) > 1:
            # A frame may have pinned the old bytes, and what is pinned never changes.
            moved = PyBytes_FromStringAndSize(NULL, need + (need >> 3 if has and need > 4096 else 0))
            if has:
                memcpy(inside(moved), inside(self._kept) + self._from, has)
            self._kept = moved
            self._from = 0
        memcpy(inside(self._kept) + has, inside(data) + position, count)
        self._used = need
        return 0

    cdef void _drop(self) noexcept:
        self._kept = None
        self._from = self._used = 0
