"""UDP sockets and the addresses of datagrams, which are `sockaddr` in bytes. Nothing of QUIC lives here."""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import Final

import trio

from gateway.transports.proxy_protocol import plain_address

_IP_MTU_DISCOVER: Final = 10
_IPV6_MTU_DISCOVER: Final = 23
_PMTUDISC_PROBE: Final = 3
"""Do not fragment, and do not believe what the path says of its MTU: QUIC finds out by itself."""


def address_text(address: bytes) -> str:
    """The IP address as text, without port."""
    if int.from_bytes(address[:2], "little") == socket.AF_INET:
        return socket.inet_ntop(socket.AF_INET, address[4:8])
    return plain_address(socket.inet_ntop(socket.AF_INET6, address[8:24]))


def address_bytes(host: str, port: int) -> bytes:
    """The address of a datagram from `host`, an IPv4 or IPv6 address."""
    if ":" not in host:
        return struct.pack("=H", socket.AF_INET) + struct.pack("!H", port) + socket.inet_pton(socket.AF_INET, host)
    return struct.pack("=H", socket.AF_INET6) + struct.pack(
        "!HI16sI", port, 0, socket.inet_pton(socket.AF_INET6, host), 0
    )


def bound_socket(family: int, where: tuple[object, ...], *, buffer: int, reuse_port: bool, dual: bool) -> socket.socket:
    """A UDP socket that listens, does not block, and does not fragment.

    Args:
        buffer: bytes asked for each direction; 0 leaves them as they are.
        dual: whether an IPv6 socket also takes IPv4.

    Raises:
        OSError: the address is taken or not ours.
    """
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not dual)
        with contextlib.suppress(OSError):  # kernels without it fragment, which is slower and works
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_PROBE)
            else:
                sock.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_PROBE)
        if buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
        sock.bind(where)
    except OSError:
        sock.close()
        raise
    return sock


async def listening_socket(host: str, port: int, buffer: int, reuse_port: bool) -> socket.socket:
    """As `bound_socket`, by name.

    Raises:
        OSError: in one line that names the address.
    """
    try:
        found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise OSError(error.errno, f"quic: no such address to listen on: {host}") from None
    family, _, _, _, where = found[0]
    try:
        return bound_socket(family, where, buffer=buffer, reuse_port=reuse_port, dual=host == "::")
    except OSError as error:
        raise OSError(error.errno, f"quic: cannot listen on {host} UDP port {port}: {error.strerror}") from None
