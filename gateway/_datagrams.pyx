"""Datagrams in batches: recvmmsg, sendmmsg, and segmentation by the kernel (GSO) where it has it.

Knows descriptors and bytes; no Trio, no QUIC, no other module of this package. Every system call in here is
non-blocking, so the GIL is held throughout: letting it go and taking it back costs more than they do.
"""

import os

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.errno cimport EAGAIN, EINTR, ENOBUFS, ENOMEM, errno
from libc.string cimport memcpy, memset


cdef extern from "<sys/uio.h>":
    cdef struct iovec:
        void *iov_base
        size_t iov_len

cdef extern from "<netinet/in.h>":
    int AF_INET, AF_INET6, IPPROTO_UDP

cdef extern from *:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <sys/socket.h>
    #include <netinet/in.h>
    #ifndef UDP_SEGMENT
    #define UDP_SEGMENT 103
    #endif
    """
    int UDP_SEGMENT

cdef extern from "<sys/socket.h>":
    cdef struct sockaddr_storage:
        unsigned short ss_family
    cdef struct msghdr:
        void *msg_name
        unsigned int msg_namelen
        iovec *msg_iov
        size_t msg_iovlen
        void *msg_control
        size_t msg_controllen
        int msg_flags
    cdef struct mmsghdr:
        msghdr msg_hdr
        unsigned int msg_len
    cdef struct cmsghdr:
        size_t cmsg_len
        int cmsg_level
        int cmsg_type
    int recvmmsg(int fd, mmsghdr *messages, unsigned int count, int flags, void *timeout)
    int sendmmsg(int fd, mmsghdr *messages, unsigned int count, int flags)
    int getsockopt(int fd, int level, int name, void *value, unsigned int *size)
    size_t CMSG_LEN(size_t size)
    size_t CMSG_SPACE(size_t size)
    unsigned char *CMSG_DATA(cmsghdr *message)
    int MSG_DONTWAIT, MSG_TRUNC, MSG_NOSIGNAL


cdef enum:
    BATCH = 64  # datagrams taken per call: at 100 us each, what one slice may cost anyway
    LONGEST = 2048  # bytes kept of a datagram; path MTU discovery that goes further is answered by silence
    SEGMENTS = 64  # what UDP_SEGMENT takes in one message (UDP_MAX_SEGMENTS, before Linux 6.9)
    WHOLE = 65000  # bytes of one segmented message: an IP packet's 65,535 less every header
    CONTROL = 32  # CMSG_SPACE of two bytes
    IPV4 = 8  # of a sockaddr_in: family, port, address; the rest is padding

DATAGRAM_MOST = LONGEST


cdef class Receiver:
    """Takes what has arrived at a UDP socket."""

    cdef int fd
    cdef mmsghdr messages[BATCH]
    cdef iovec vectors[BATCH]
    cdef char names[BATCH][128]
    cdef char *space
    cdef object memory
    cdef readonly long batches, datagrams, octets, truncated, errors

    def __init__(self, int fd):
        cdef int i
        self.fd = fd
        self.memory = PyBytes_FromStringAndSize(NULL, BATCH * LONGEST)
        self.space = PyBytes_AS_STRING(self.memory)
        memset(self.messages, 0, sizeof(self.messages))
        for i in range(BATCH):
            self.vectors[i].iov_base = self.space + i * LONGEST
            self.vectors[i].iov_len = LONGEST
            self.messages[i].msg_hdr.msg_iov = &self.vectors[i]
            self.messages[i].msg_hdr.msg_iovlen = 1
            self.messages[i].msg_hdr.msg_name = self.names[i]

    def receive(self):
        cdef int i, count
        cdef msghdr *header
        cdef unsigned short family
        cdef list taken = []
        for i in range(BATCH):
            self.messages[i].msg_hdr.msg_namelen = 128
            self.messages[i].msg_hdr.msg_flags = 0
        count = recvmmsg(self.fd, self.messages, BATCH, MSG_DONTWAIT, NULL)
        if count < 0:
            if errno != EAGAIN and errno != EINTR:
                # The error of an earlier datagram that nobody took (ICMP), or want of memory: reading it clears it.
                self.errors += 1
            return taken
        self.batches += 1
        self.datagrams += count
        for i in range(count):
            header = &self.messages[i].msg_hdr
            if header.msg_flags & MSG_TRUNC:
                self.truncated += 1
                continue
            family = (<sockaddr_storage *> header.msg_name).ss_family
            if family == AF_INET:
                name = PyBytes_FromStringAndSize(self.names[i], IPV4)
            else:
                if family == AF_INET6:
                    memset(self.names[i] + 4, 0, 4)  # the flow label may differ between packets of one path
                name = PyBytes_FromStringAndSize(self.names[i], header.msg_namelen)
            self.octets += self.messages[i].msg_len
            taken.append((PyBytes_FromStringAndSize(self.space + i * LONGEST, self.messages[i].msg_len), name))
        return taken


cdef class Sender:
    """What is to leave by a UDP socket, and how it went."""

    cdef int fd
    cdef int most
    cdef list waiting
    cdef Py_ssize_t head
    cdef public bint segmenting
    cdef mmsghdr messages[BATCH]
    cdef iovec vectors[BATCH * 16]
    cdef char names[BATCH][128]
    cdef char controls[BATCH][CONTROL]
    cdef int parts[BATCH]  # datagrams in each message
    cdef readonly long batches, datagrams, octets, segmented, refused, dropped, overflowed

    def __init__(self, int fd, int most=4096, bint segmenting=True):
        cdef int value = 0
        cdef unsigned int size = sizeof(value)
        self.fd = fd
        self.most = most
        self.waiting = []
        self.segmenting = segmenting and getsockopt(fd, IPPROTO_UDP, UDP_SEGMENT, &value, &size) == 0

    @property
    def pending(self):
        return len(self.waiting) - self.head

    def add(self, bytes data not None, bytes address not None):
        if len(self.waiting) - self.head >= self.most:
            self.overflowed += 1
            return False
        if PyBytes_GET_SIZE(address) > 128:
            raise ValueError("address")
        self.waiting.append((data, address))
        return True

    cdef int fill(self):
        """Put what waits into messages; returns their number."""
        cdef int count = 0, vector = 0
        cdef Py_ssize_t at = self.head, ends = len(self.waiting)
        cdef Py_ssize_t size, whole, length
        cdef msghdr *header
        cdef cmsghdr *control
        cdef bytes data, address, other
        cdef unsigned short segment
        while at < ends and count < BATCH and vector < BATCH * 16:
            data, address = <tuple> self.waiting[at]
            header = &self.messages[count].msg_hdr
            memset(header, 0, sizeof(msghdr))
            length = PyBytes_GET_SIZE(address)
            memcpy(self.names[count], PyBytes_AS_STRING(address), length)
            if length == IPV4:
                memset(self.names[count] + IPV4, 0, 8)
                length = 16
            header.msg_name = self.names[count]
            header.msg_namelen = length
            header.msg_iov = &self.vectors[vector]
            size = PyBytes_GET_SIZE(data)
            self.vectors[vector].iov_base = PyBytes_AS_STRING(data)
            self.vectors[vector].iov_len = size
            vector += 1
            at += 1
            self.parts[count] = 1
            if self.segmenting:
                # Datagrams of one length to one address, the last of which may be shorter, leave as one.
                whole = size
                while at < ends and vector < BATCH * 16 and self.parts[count] < SEGMENTS:
                    data, other = <tuple> self.waiting[at]
                    length = PyBytes_GET_SIZE(data)
                    if other != address or length > size or whole + length > WHOLE:
                        break
                    self.vectors[vector].iov_base = PyBytes_AS_STRING(data)
                    self.vectors[vector].iov_len = length
                    vector += 1
                    at += 1
                    self.parts[count] += 1
                    whole += length
                    if length < size:
                        break
                if self.parts[count] > 1:
                    control = <cmsghdr *> self.controls[count]
                    memset(control, 0, CONTROL)
                    control.cmsg_level = IPPROTO_UDP
                    control.cmsg_type = UDP_SEGMENT
                    control.cmsg_len = CMSG_LEN(sizeof(segment))
                    segment = <unsigned short> size
                    memcpy(CMSG_DATA(control), &segment, sizeof(segment))
                    header.msg_control = control
                    header.msg_controllen = CMSG_SPACE(sizeof(segment))
            header.msg_iovlen = self.parts[count]
            count += 1
        return count

    cdef void taken(self, int count):
        cdef int i, part
        for i in range(count):
            if self.parts[i] > 1:
                self.segmented += self.parts[i]
            self.datagrams += self.parts[i]
            for part in range(self.parts[i]):
                self.octets += PyBytes_GET_SIZE(<bytes> (<tuple> self.waiting[self.head])[0])
                self.head += 1

    def flush(self):
        cdef int count, sent, at
        cdef bint segmented
        while self.head < len(self.waiting):
            count = self.fill()
            sent = sendmmsg(self.fd, self.messages, count, MSG_DONTWAIT | MSG_NOSIGNAL)
            if sent > 0:
                self.batches += 1
                self.taken(sent)
                continue
            if errno == EINTR:
                continue
            self.refused += 1
            if errno == EAGAIN or errno == ENOBUFS or errno == ENOMEM:
                del self.waiting[: self.head]
                self.head = 0
                return False
            if self.parts[0] > 1:
                # A device or a path that cannot segment: from now on each datagram by itself.
                self.segmenting = False
                continue
            # This one datagram is what the kernel will not have (a firewall, no route, too long): the network loses
            # datagrams anyway, and QUIC knows what to do.
            self.dropped += 1
            self.head += 1
        self.waiting.clear()
        self.head = 0
        return True
