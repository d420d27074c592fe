"""WebSocket framing (RFC 6455), the server's side of it: bytes in, payload and obligations out.

Knows bytes and nothing else: no socket, no clock, no HTTP, no other module of this package.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy


cdef enum:
    CONTINUATION = 0x0
    TEXT = 0x1
    BINARY = 0x2
    CLOSE = 0x8
    PING = 0x9
    PONG = 0xA
    CONTROL_MAX = 125  # RFC 6455 section 5.5
    NO_CODE = 1005  # RFC 6455 section 7.4.1: a Close without a body


# ------------------------------------------------------------------------------------------ bytes


cdef inline void unmask(uint8_t *target, const uint8_t *source, Py_ssize_t size, uint32_t key) noexcept nogil:
    """XOR `size` bytes with the key, which begins with the first of them; eight at a time (and wider, by the compiler)."""
    cdef uint64_t wide = (<uint64_t> key << 32) | key
    cdef uint64_t word
    cdef Py_ssize_t i, words = size >> 3
    cdef const uint8_t *mask = <const uint8_t *> &wide
    for i in range(words):
        memcpy(&word, source + (i << 3), 8)
        word ^= wide
        memcpy(target + (i << 3), &word, 8)
    for i in range(words << 3, size):
        target[i] = source[i] ^ mask[i & 7]


cdef inline uint32_t rotated(uint32_t key, uint64_t by) noexcept nogil:
    """The key as it stands `by` bytes further on in the payload."""
    cdef uint8_t old[4]
    cdef uint8_t new[4]
    cdef int i
    memcpy(old, &key, 4)
    for i in range(4):
        new[i] = old[(i + by) & 3]
    memcpy(&key, new, 4)
    return key


cdef struct Utf8:
    uint8_t missing  # continuation bytes still to come
    uint8_t low  # the least value that the next one may have
    uint8_t high  # and the greatest


cdef bint utf8_goes_on(Utf8 *state, const uint8_t *source, Py_ssize_t size) noexcept nogil:
    """Whether these bytes may continue UTF-8 text; false on the first byte that no continuation could save."""
    cdef Py_ssize_t i = 0
    cdef uint64_t word
    cdef uint8_t byte
    while i < size:
        if state.missing == 0:
            while i + 8 <= size:
                memcpy(&word, source + i, 8)
                if word & <uint64_t> 0x8080808080808080:
                    break
                i += 8
            if i == size:
                break
        byte = source[i]
        i += 1
        if state.missing:
            if byte < state.low or byte > state.high:
                return False
            state.missing -= 1
            state.low, state.high = 0x80, 0xBF
        elif byte >= 0x80:
            # Unicode table 3-7: the second byte's range excludes overlong forms, surrogates and what is over U+10FFFF.
            state.low, state.high = 0x80, 0xBF
            if 0xC2 <= byte <= 0xDF:
                state.missing = 1
            elif 0xE0 <= byte <= 0xEF:
                state.missing = 2
                if byte == 0xE0:
                    state.low = 0xA0
                elif byte == 0xED:
                    state.high = 0x9F
            elif 0xF0 <= byte <= 0xF4:
                state.missing = 3
                if byte == 0xF0:
                    state.low = 0x90
                elif byte == 0xF4:
                    state.high = 0x8F
            else:
                return False
    return True


cdef bint is_utf8(const uint8_t *source, Py_ssize_t size) noexcept nogil:
    cdef Utf8 state
    state.missing = 0
    return utf8_goes_on(&state, source, size) and state.missing == 0


cdef inline bint is_close_code(int code) noexcept nogil:
    """Whether a Close frame may carry it: RFC 6455 section 7.4 and the IANA registry (1012 to 1014)."""
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


# ---------------------------------------------------------------------------------------- writing


cpdef bytes server_header(Py_ssize_t length, int opcode=BINARY):
    """The header of one whole unmasked frame with `length` bytes of payload."""
    cdef uint8_t head[10]
    cdef int i
    if length < 0 or not 0 <= opcode <= 15 or (opcode >= CLOSE and length > CONTROL_MAX):
        raise ValueError(f"no frame has opcode {opcode} and {length} bytes")
    head[0] = 0x80 | opcode
    if length <= 125:
        head[1] = length
        return PyBytes_FromStringAndSize(<char *> head, 2)
    if length <= 0xFFFF:
        head[1] = 126
        head[2] = length >> 8
        head[3] = length & 0xFF
        return PyBytes_FromStringAndSize(<char *> head, 4)
    head[1] = 127
    for i in range(8):
        head[2 + i] = (<uint64_t> length >> (56 - 8 * i)) & 0xFF
    return PyBytes_FromStringAndSize(<char *> head, 10)


def pong_frame(bytes payload not None):
    """A whole Pong frame; at most 125 bytes of payload."""
    return server_header(len(payload), PONG) + payload


def close_frame(int code, str reason not None=""):
    """A whole Close frame; 1005 stands for one without a body. A reason over 123 bytes is cut between characters.

    Raises:
        ValueError: a code that may not be sent.
    """
    cdef bytes text
    if code == NO_CODE:
        return server_header(0, CLOSE)
    if not is_close_code(code):
        raise ValueError(f"{code} is no close code that may be sent")
    text = reason.encode("utf-8", "replace")
    if len(text) > CONTROL_MAX - 2:
        text = text[: CONTROL_MAX - 2].decode("utf-8", "ignore").encode()
    return server_header(2 + len(text), CLOSE) + code.to_bytes(2, "big") + text


# ---------------------------------------------------------------------------------------- reading


cdef class ServerCodec:
    """What one client sends. See the stub for the contract.

    Nothing is ever allocated by a declared length: what is retained was received, and in stream mode that
    is at most an unfinished header or control frame (131 bytes).
    """

    cdef readonly bint attention
    cdef readonly bint ended
    cdef public int credit
    cdef bint whole
    cdef bint fin  # of the data frame whose payload is being read
    cdef bint deaf  # our Close is out: only the peer's counts
    cdef uint8_t opcode  # of the message in progress, 0 between messages
    cdef Utf8 text
    cdef uint32_t key  # turned so that it begins with the next payload byte
    cdef uint32_t fragments
    cdef readonly uint32_t max_fragments
    cdef readonly uint64_t limit
    cdef uint64_t left  # payload bytes of the current data frame still to come
    cdef uint64_t total  # payload bytes that the current message has declared so far
    cdef bytes held  # an unfinished header or control frame
    cdef bytes owed  # pongs
    cdef list parts  # of the message in progress, in message mode
    cdef list complete
    cdef readonly object failure
    cdef readonly object peer_close

    def __init__(self, limit, *, max_fragments=64, messages=False, credit=32):
        if not 0 < limit < 1 << 62 or not 0 < max_fragments < 1 << 31:
            raise ValueError("limit and max_fragments are positive")
        self.limit = limit
        self.max_fragments = max_fragments
        self.credit = credit
        self.whole = messages

    @property
    def pending(self):
        cdef Py_ssize_t size = 0
        if self.held is not None:
            size = len(self.held)
        if self.parts is not None:
            for part in self.parts:
                size += len(part)
        return size

    cpdef bytes feed(self, bytes data):
        if data is None:
            raise TypeError("bytes, not None")
        cdef Py_ssize_t size = PyBytes_GET_SIZE(data)
        cdef const uint8_t *source = <const uint8_t *> PyBytes_AS_STRING(data)
        cdef uint32_t key
        cdef bytes out
        # What nearly every chunk is: one whole small binary message, and nothing in progress.
        if (
            size > 6 and source[0] == 0x82 and source[1] > 0x80 and size == (source[1] & 0x7F) + 6 and size <= 131
            and self.left == 0 and self.opcode == 0 and self.held is None
            and not (self.whole or self.deaf or self.ended) and <uint64_t> (size - 6) <= self.limit
        ):
            memcpy(&key, source + 2, 4)
            out = PyBytes_FromStringAndSize(NULL, size - 6)
            unmask(<uint8_t *> PyBytes_AS_STRING(out), source + 6, size - 6, key)
            return out
        if self.ended:
            return b""
        if self.held is not None:
            data = self.held + data
            self.held = None
        return self.parse(data)

    def messages(self):
        """Take the whole messages received: (opcode, payload)."""
        complete = self.complete if self.complete is not None else []
        self.complete = None
        self.settle()
        return complete

    def answers(self):
        """Take the pongs owed, as whole frames in order."""
        owed = self.owed if self.owed is not None else b""
        self.owed = None
        self.settle()
        return owed

    def close(self):
        """Our own Close is sent: from now on everything is dropped but the peer's Close."""
        self.deaf = True
        self.owed = self.parts = None

    cdef void settle(self):
        self.attention = self.ended or self.owed is not None or self.complete is not None

    cdef void fail(self, int code, str reason):
        self.failure = (code, reason)
        self.end()

    cdef void end(self):
        self.attention = self.ended = True
        self.held = self.parts = None

    cdef bytes parse(self, bytes data):
        """Go through `data`, which begins with a header or with payload of the current frame."""
        cdef Py_ssize_t size = PyBytes_GET_SIZE(data)
        cdef const uint8_t *source = <const uint8_t *> PyBytes_AS_STRING(data)
        cdef Py_ssize_t at = 0, used, take
        cdef Py_ssize_t written = 0, begin = 0  # of `out`; in message mode, where the current message begins in it
        cdef bytes out = None
        while True:
            if self.left == 0:
                used = self.header(source + at, size - at)
                if used <= 0:
                    if used == 0 and at < size:
                        self.held = data[at:]
                    break
                at += used
                if self.left == 0 and not self.fin:
                    continue  # a control frame, or an empty fragment
            if self.left:
                take = size - at if self.left > <uint64_t> (size - at) else <Py_ssize_t> self.left
                if not self.deaf:
                    if out is None:
                        # Room for all further payload of this chunk, exactly so where one frame fills it.
                        out = PyBytes_FromStringAndSize(NULL, size - at)
                    unmask(<uint8_t *> PyBytes_AS_STRING(out) + written, source + at, take, self.key)
                    if self.opcode == TEXT and not utf8_goes_on(
                        &self.text, <const uint8_t *> PyBytes_AS_STRING(out) + written, take
                    ):
                        self.fail(1007, "text is not UTF-8")
                        break
                    written += take
                at += take
                self.left -= take
                if self.left:
                    self.key = rotated(self.key, take)
                    break
            if self.fin:
                if self.opcode == TEXT and self.text.missing and not self.deaf:
                    self.fail(1007, "text ends within a character")
                    break
                if self.whole and not self.deaf:
                    self.complete_message(b"" if out is None else out[begin:written])
                    begin = written
                self.opcode = 0
                self.fin = False
        if self.whole:
            if written > begin and not self.ended and not self.deaf:
                if self.parts is None:
                    self.parts = []
                self.parts.append(out[begin:written])
            return b""
        if out is None:
            return b""
        # Several frames in one chunk: the room their headers took is cut off.
        return out if written == PyBytes_GET_SIZE(out) else out[:written]

    cdef void complete_message(self, bytes last):
        cdef uint8_t opcode = self.opcode
        if self.parts is not None:
            self.parts.append(last)
            last = b"".join(self.parts)
            self.parts = None
        if self.complete is None:
            self.complete = []
        self.complete.append((opcode, last))
        self.attention = True

    cdef Py_ssize_t header(self, const uint8_t *source, Py_ssize_t size):
        """Take one frame's header, and a control frame whole.

        Returns the bytes used, 0 when more are needed, -1 when the codec has ended.
        """
        cdef uint8_t opcode
        cdef uint64_t length
        cdef Py_ssize_t used = 6
        cdef int i
        if size < 2:
            return 0
        opcode = source[0] & 0x0F
        length = source[1] & 0x7F
        if source[0] & 0x70:
            return self.refuse(1002, "reserved bits are set")
        if 2 < opcode < CLOSE or opcode > PONG:
            return self.refuse(1002, "unknown opcode")
        if not source[1] & 0x80:
            return self.refuse(1002, "frames from a client are masked")
        if opcode >= CLOSE:
            if not source[0] & 0x80:
                return self.refuse(1002, "control frames are not fragmented")
            if length > CONTROL_MAX:
                return self.refuse(1002, "control frames hold at most 125 bytes")
            if <uint64_t> size < 6 + length:
                return 0
            return self.control(opcode, source, <Py_ssize_t> length)
        if (opcode == CONTINUATION) != (self.opcode != 0):
            return self.refuse(1002, "a message within a message" if self.opcode else "nothing to continue")
        if opcode == TEXT and not self.whole:
            return self.refuse(1003, "binary messages only")
        if length == 126:
            if size < 4:
                return 0
            length = (<uint64_t> source[2] << 8) | source[3]
            used = 8
            if length < 126:
                return self.refuse(1002, "the length is not in its shortest form")
        elif length == 127:
            if size < 10:
                return 0
            length = 0
            for i in range(2, 10):
                length = (length << 8) | source[i]
            used = 14
            if length <= 0xFFFF or length >> 63:
                return self.refuse(1002, "the length is not in its shortest form")
        if opcode != CONTINUATION:
            self.total = self.fragments = 0
        if length > self.limit - self.total:
            return self.refuse(1009, f"messages hold at most {self.limit} bytes")
        if self.fragments == self.max_fragments:
            return self.refuse(1009, f"messages have at most {self.max_fragments} fragments")
        if size < used:
            return 0
        if opcode != CONTINUATION:
            self.opcode = opcode
            self.text.missing = 0
        self.fragments += 1
        self.total += length
        self.left = length
        self.fin = source[0] & 0x80
        memcpy(&self.key, source + used - 4, 4)
        return used

    cdef Py_ssize_t control(self, uint8_t opcode, const uint8_t *source, Py_ssize_t length):
        """Take a whole control frame; returns the bytes used, -1 when the codec has ended."""
        cdef uint8_t body[CONTROL_MAX]
        cdef uint32_t key
        cdef int code
        memcpy(&key, source + 2, 4)
        unmask(body, source + 6, length, key)
        if opcode == CLOSE:
            if length == 0:
                self.peer_close = (NO_CODE, "")
                self.end()
                return -1
            if length == 1:
                return self.refuse(1002, "half a close code")
            code = (body[0] << 8) | body[1]
            if not is_close_code(code):
                return self.refuse(1002, "no such close code")
            if not is_utf8(body + 2, length - 2):
                return self.refuse(1007, "the close reason is not UTF-8")
            self.peer_close = (code, (<char *> body)[2:length].decode())
            self.end()
            return -1
        if self.credit <= 0:
            return self.refuse(1008, "too many pings")
        self.credit -= 1
        if opcode == PING and not self.deaf:
            pong = server_header(length, PONG) + (<char *> body)[:length]
            self.owed = pong if self.owed is None else self.owed + pong
        # An unasked Pong is legal and needs no answer, but it is not free either.
        self.attention = True
        return 6 + length

    cdef Py_ssize_t refuse(self, int code, str reason):
        self.fail(code, reason)
        return -1


cdef class Intake:
    """The hot way up of a link: from chunk to receiver without a Python frame. See the stub."""

    cdef public ServerCodec codec
    cdef public object receiver

    def feed(self, lane, bytes data not None):
        cdef ServerCodec codec = self.codec
        cdef bytes payload
        if codec is None:
            self.arrived(data)
            return
        payload = codec.feed(data)
        if codec.attention:
            self.attend(codec, payload)
        elif PyBytes_GET_SIZE(payload):
            self.receiver.feed(lane, payload)
