"""The hot path of sockets: from readiness to bytes handed over, from bytes to the socket.

Knows descriptors, bytes and callables; no Trio, no TLS, no message, no other module of this package. Every system call
in here is non-blocking, so the GIL is held throughout: letting it go and taking it back costs more than they do.
"""

import os

from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_FromStringAndSize, PyByteArray_GET_SIZE
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.errno cimport EAGAIN, EINTR, errno


cdef extern from "<sys/epoll.h>":
    ctypedef union epoll_data_t:
        int fd
    cdef struct epoll_event:
        unsigned int events
        epoll_data_t data
    int epoll_create1(int flags)
    int epoll_ctl(int epoll, int operation, int fd, epoll_event *event)
    int epoll_wait(int epoll, epoll_event *events, int most, int timeout)
    int EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD
    unsigned int EPOLLIN, EPOLLERR, EPOLLET

cdef extern from "<sys/socket.h>":
    cdef struct linger:
        int l_onoff
        int l_linger
    ssize_t recv(int fd, void *buffer, size_t size, int flags)
    ssize_t c_send "send"(int fd, const void *buffer, size_t size, int flags)
    int c_shutdown "shutdown"(int fd, int how)
    int setsockopt(int fd, int level, int name, const void *value, unsigned int size)
    int MSG_NOSIGNAL, MSG_DONTWAIT, SHUT_WR, SHUT_RDWR, SOL_SOCKET, SO_LINGER

cdef extern from "<unistd.h>":
    int c_close "close"(int fd)

cdef extern from "<time.h>":
    cdef struct timespec:
        long tv_sec
        long tv_nsec
    int clock_gettime(int clock, timespec *now)
    int CLOCK_MONOTONIC


cdef enum:
    BATCH = 128  # events taken per poll; the kernel rotates its ready list, so nobody is passed over twice
    READ_MOST = 65536  # bytes taken per readiness: the share of one peer before the next one's turn

READ = READ_MOST

cdef char incoming[READ_MOST]  # where every recv puts its bytes; they are copied out before anything else runs


cdef inline long long nanoseconds() noexcept:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return now.tv_sec * 1_000_000_000LL + now.tv_nsec


cdef int failed() except -1:
    cdef int number = errno
    raise OSError(number, os.strerror(number))


cdef class Socket:
    """One connected socket: its descriptor, who hears from it, and what the kernel would not take yet."""

    cdef readonly int fd
    cdef readonly object rest
    cdef public object receiver
    cdef int share
    cdef bint layered

    def __cinit__(self):
        self.fd = -1

    def __init__(self, int fd, int share=READ_MOST, bint layered=False):
        if share < 1 or share > READ_MOST:
            raise ValueError("share")
        self.fd = fd
        self.share = share
        self.layered = layered

    def __dealloc__(self):
        if self.fd >= 0:
            c_close(self.fd)

    cdef int readable(self) except -1:
        cdef ssize_t size = recv(self.fd, incoming, self.share, MSG_DONTWAIT)
        cdef object receiver
        if size > 0:
            data = PyBytes_FromStringAndSize(incoming, size)
            try:
                if self.layered:
                    self.received(data)
                else:
                    receiver = self.receiver
                    if receiver is not None:
                        receiver.feed(0, data)
            except Exception:
                self.fault()
        elif size == 0:
            self.lost("end of file")
        elif errno != EAGAIN and errno != EINTR:
            self.lost(os.strerror(errno))
        return 0

    def receive(self):
        cdef ssize_t size = recv(self.fd, incoming, self.share, MSG_DONTWAIT)
        if size >= 0:
            return PyBytes_FromStringAndSize(incoming, size)
        if errno != EAGAIN and errno != EINTR:
            failed()
        return None

    def send(self, bytes data not None):
        cdef Py_ssize_t size = PyBytes_GET_SIZE(data)
        cdef ssize_t sent
        if self.rest is not None:
            self.rest += data
            return False
        sent = c_send(self.fd, PyBytes_AS_STRING(data), size, MSG_NOSIGNAL | MSG_DONTWAIT)
        if sent == size or self.fd < 0:
            return True
        # Of a dead socket `lost` tells, and `send_rest`.
        if sent < 0:
            sent = 0
        self.rest = PyByteArray_FromStringAndSize(PyBytes_AS_STRING(data) + sent, size - sent)
        return False

    @property
    def unsent(self):
        return 0 if self.rest is None else PyByteArray_GET_SIZE(self.rest)

    def send_rest(self):
        cdef ssize_t sent
        if self.rest is None:
            return True
        sent = c_send(
            self.fd, PyByteArray_AS_STRING(self.rest), PyByteArray_GET_SIZE(self.rest), MSG_NOSIGNAL | MSG_DONTWAIT
        )
        if sent < 0:
            if errno != EAGAIN and errno != EINTR:
                failed()
            return False
        del self.rest[:sent]  # the front of a bytearray goes without moving what is behind it
        if self.rest:
            return False
        self.rest = None
        return True

    def shutdown(self, bint both=False):
        if c_shutdown(self.fd, SHUT_RDWR if both else SHUT_WR) < 0:
            failed()

    def close(self):
        cdef linger reset
        cdef int fd = self.fd
        if fd < 0:
            return
        self.fd = -1
        if self.rest is not None:
            # A stream that was cut must not look complete: RST instead of FIN.
            self.rest = None
            reset.l_onoff = 1
            reset.l_linger = 0
            setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset))
        c_close(fd)


cdef class Poll:
    """An epoll of its own, and what is called when a descriptor is ready."""

    cdef int epoll
    cdef epoll_event events[BATCH]
    cdef int at, count
    cdef list targets  # by descriptor, None where there is none
    cdef bytearray marks  # by descriptor: whether paused
    cdef object on_failure
    cdef readonly int registered, paused
    cdef readonly long polls, ready, failures

    def __cinit__(self):
        self.epoll = -1

    def __init__(self, on_failure):
        self.targets = []
        self.marks = bytearray()
        self.on_failure = on_failure
        self.epoll = epoll_create1(EPOLL_CLOEXEC)
        if self.epoll < 0:
            failed()

    def __dealloc__(self):
        if self.epoll >= 0:
            c_close(self.epoll)

    def fileno(self):
        return self.epoll

    def close(self):
        if self.epoll >= 0:
            c_close(self.epoll)
        self.epoll = -1
        self.at = self.count = self.registered = self.paused = 0
        self.targets = []
        self.marks = bytearray()

    def drain(self, double seconds):
        cdef long long ends = nanoseconds() + <long long> (seconds * 1e9)
        cdef int fd
        cdef unsigned int event
        cdef object target
        while True:
            if self.at == self.count:
                self.at = 0
                self.count = epoll_wait(self.epoll, self.events, BATCH, 0)
                if self.count <= 0:
                    self.count = 0
                    return False
                self.polls += 1
                self.ready += self.count
            while self.at < self.count:
                fd = self.events[self.at].data.fd
                event = self.events[self.at].events
                self.at += 1
                # A paused descriptor is told of for an error alone; it may also have been unregistered, and its
                # number taken by another, since this batch was polled: then there may be nothing to read.
                target = self.targets[fd] if fd < len(self.targets) else None
                if target is None or not event & (EPOLLIN | EPOLLERR):
                    continue
                try:
                    if isinstance(target, Socket):
                        (<Socket> target).readable()
                    else:
                        target()
                except Exception:
                    # It would fail for ever.
                    self.failures += 1
                    self.unregister(fd)
                    self.on_failure()
                if nanoseconds() > ends:
                    return True

    def register(self, int fd, target not None):
        if fd < 0 or self.epoll < 0:
            return
        if fd >= len(self.targets):
            missing = fd + 1 - len(self.targets)
            self.targets.extend([None] * missing)
            self.marks.extend(bytes(missing))
        if self.targets[fd] is not None:
            self.targets[fd] = target
            self.resume(fd)
            return
        self.control(EPOLL_CTL_ADD, fd, EPOLLIN)
        self.targets[fd] = target
        self.registered += 1

    cpdef pause(self, int fd):
        if 0 <= fd < len(self.targets) and self.targets[fd] is not None and not self.marks[fd]:
            # No readiness; an error or hang-up, which epoll reports in any case, once instead of for ever.
            self.control(EPOLL_CTL_MOD, fd, EPOLLET)
            self.marks[fd] = 1
            self.paused += 1

    cpdef resume(self, int fd):
        if 0 <= fd < len(self.targets) and self.marks[fd]:
            self.control(EPOLL_CTL_MOD, fd, EPOLLIN)
            self.marks[fd] = 0
            self.paused -= 1

    cpdef unregister(self, int fd):
        if 0 <= fd < len(self.targets) and self.targets[fd] is not None:
            self.targets[fd] = None
            self.registered -= 1
            self.paused -= self.marks[fd]
            self.marks[fd] = 0
            epoll_ctl(self.epoll, EPOLL_CTL_DEL, fd, NULL)  # it fails only for what is not there any more

    cdef int control(self, int operation, int fd, unsigned int wanted) except -1:
        cdef epoll_event event
        event.events = wanted
        event.data.fd = fd
        if epoll_ctl(self.epoll, operation, fd, &event) < 0:
            failed()
        return 0
