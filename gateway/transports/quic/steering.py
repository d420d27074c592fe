"""Which process of several that share a UDP port gets a datagram: the one whose number its connection id carries.

SO_REUSEPORT spreads datagrams by address and port, so a client that migrates would reach a process that knows nothing
of it. This program of classic BPF, attached to the group of sockets, reads the worker's number instead. The kernel
numbers the sockets of a group in the order in which they were bound: bind them in the order of the workers.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from typing import Final

from gateway.transports.quic.connection_ids import ConnectionIds

SO_ATTACH_REUSEPORT_CBPF: Final = 51
_LOAD_BYTE: Final = 0x30  # A = packet[k]
_AND: Final = 0x54
_MODULO: Final = 0x94
_JUMP_IF_ZERO: Final = 0x15
_RETURN_A: Final = 0x16
_SHORT_ID: Final = 1
"""Where the connection id begins behind a short header."""
_LONG_ID: Final = 6
"""The same behind a long one: a byte of flags, four of version, one of length."""


def program(ids: ConnectionIds, workers: int) -> bytes:
    """The instructions. A datagram that is cut off before the number makes the kernel choose by address.

    A client's first packets carry an id that it chose, hence a random worker, but always the same one, until it has
    heard of ours.
    """
    at = ids.worker_offset
    instructions = [
        (_LOAD_BYTE, 0, 0, 0),
        (_AND, 0, 0, 0x80),
        (_JUMP_IF_ZERO, 3, 0, 0),
        (_LOAD_BYTE, 0, 0, _LONG_ID + at),
        (_MODULO, 0, 0, workers),
        (_RETURN_A, 0, 0, 0),
        (_LOAD_BYTE, 0, 0, _SHORT_ID + at),
        (_MODULO, 0, 0, workers),
        (_RETURN_A, 0, 0, 0),
    ]
    return b"".join(struct.pack("=HBBI", *each) for each in instructions)


def steer(sock: socket.socket, ids: ConnectionIds, workers: int) -> None:
    """Attach the program to the group that `sock` is bound in; one of its sockets does for all.

    Raises:
        OSError: the kernel has no such program (Linux before 4.5), or the socket is in no group.
    """
    code = program(ids, workers)
    buffer = ctypes.create_string_buffer(code)  # the kernel copies it; it must stay until then
    described = struct.pack("HP", len(code) // 8, ctypes.addressof(buffer))
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, described)
