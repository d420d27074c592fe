# The hottest way, from a chunk to the acknowledgement of the Messages in it. What it cannot settle it leaves to Python.

cdef extern from "<time.h>" nogil:
    cdef struct timespec:
        long tv_sec
        long tv_nsec
    int clock_gettime(int clock, timespec *now)
    int CLOCK_REALTIME


cdef class TokenBucket:
    """A rate with a burst (see the .pyi)."""

    cdef readonly double rate
    cdef readonly double burst
    cdef double tokens
    cdef double at

    def __init__(self, double rate, double burst, double now):
        self.rate = rate
        self.burst = burst
        self.tokens = burst
        self.at = now

    cpdef bint spend(self, double now, double cost=1.0):
        """Take `cost` tokens at monotonic `now`; False when that overdraws the bucket."""
        cdef double tokens = self.tokens + (now - self.at) * self.rate
        self.at = now
        self.tokens = (tokens if tokens < self.burst else self.burst) - cost
        return self.tokens >= 0.0

    def wait(self, double now, double tokens=1.0):
        """Seconds from `now` until `tokens` are there."""
        cdef double missing = min(tokens, self.burst) - self.tokens - (now - self.at) * self.rate
        return max(0.0, missing / self.rate)


cdef class Sender:
    """Who the messages of one connection are from (see the .pyi)."""

    cdef readonly int64_t conn_id
    cdef readonly int64_t user_id
    cdef readonly str device_id
    cdef readonly str platform
    cdef readonly TokenBucket bucket
    cdef public uint32_t handed_over

    def __init__(
        self,
        int64_t conn_id,
        int64_t user_id,
        str device_id not None,
        str platform not None,
        TokenBucket bucket not None,
    ):
        self.conn_id = conn_id
        self.user_id = user_id
        self.device_id = device_id
        self.platform = platform
        self.bucket = bucket


cdef enum:
    INVALID = 4004
    UNAVAILABLE = 4402


cdef bytes acknowledge(ChatFrame frame, uint64_t now_ms):
    """The MessageAck `Accepted` of a Message whose msg_id is a name."""
    cdef Text name
    cdef uint32_t size
    name.at = <const char *>read_vector(frame.table, 0, &size)
    name.size = size
    name.room = pad4(4 + name.size + 1)
    return ack_frame(frame._seq, now_ms, &name, 0, 0, 0, now_ms)


cdef class Uplink:
    """The receiving side of a connection (see the .pyi)."""

    cdef public FrameDecoder decoder
    cdef public Sender sender
    cdef public double seen
    cdef public bint deaf
    cdef readonly uint64_t wall_ms
    cdef object now

    def __init__(self, FrameDecoder decoder not None, now):
        self.decoder = decoder
        self.now = now
        self.seen = now()

    def feed(self, lane, bytes data not None):
        """Receiver: take bytes, handle every whole frame, answer."""
        cdef timespec wall
        cdef bytes replies
        cdef Sender sender
        cdef double began = self.now()
        cdef uint32_t count
        self.seen = began
        if self.deaf:
            return
        clock_gettime(CLOCK_REALTIME, &wall)
        self.wall_ms = <uint64_t> wall.tv_sec * 1000 + <uint64_t> wall.tv_nsec // 1_000_000
        replies = b""
        try:
            replies = self.decoder.feed(self, data, self.wall_ms)
        except Exception:
            self.fault()
        try:
            # What was handed over before an exception was handed over all the same.
            sender = self.sender
            if sender is not None and sender.handed_over:
                count = sender.handed_over
                sender.handed_over = 0
                self.handed_over(<double> self.now() - began, count)
            if PyBytes_GET_SIZE(replies):
                self.reply(replies)
        except Exception:
            self.fault()


cdef class Relay:
    """Handles Message: checks, spends, publishes, acknowledges (see the .pyi)."""

    cdef object bus
    cdef str subject
    cdef str node_id
    cdef object refuse
    cdef object overdrawn

    def __init__(self, bus, str subject not None, str node_id not None, refuse, overdrawn):
        self.bus = bus
        self.subject = subject
        self.node_id = node_id
        self.refuse = refuse
        self.overdrawn = overdrawn

    def __call__(self, Uplink context not None, ChatFrame frame not None):
        cdef Sender sender = context.sender
        cdef uint64_t now_ms = context.wall_ms
        cdef int64_t from_user = <int64_t>read64(frame.table, 1)
        if sender is None or (from_user != 0 and from_user != sender.user_id) or not addressed(frame.table):
            return self.refuse(context, frame, INVALID)
        if not sender.bucket.spend(context.seen, 1.0):
            self.overdrawn(context)
        try:
            taken = self.bus.publish(
                self.subject,
                upstream_bytes(
                    self.node_id, sender.conn_id, sender.user_id, sender.device_id, sender.platform, now_ms, frame
                ),
            )
        except ValueError:  # more than the bus carries
            return self.refuse(context, frame, INVALID)
        if not taken:
            return self.refuse(context, frame, UNAVAILABLE)
        sender.handed_over += 1
        return acknowledge(frame, now_ms)
