"""Packets that are answered without a connection: bytes in, bytes out. Nothing is remembered here.

Each answer is smaller than what it answers, so nobody can be made to amplify.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final

from aioquic.quic.crypto import CryptoPair
from aioquic.quic.packet import (
    QuicErrorCode,
    QuicFrameType,
    QuicPacketType,
    QuicProtocolVersion,
    encode_quic_version_negotiation,
)
from aioquic.quic.packet_builder import QuicPacketBuilder

from gateway.transports.quic.connection_ids import TOKEN_LENGTH

VERSIONS: Final = [int(QuicProtocolVersion.VERSION_1)]
"""What is spoken. Version 2 differs from 1 in nothing but labels, and keys for both cost each handshake 0.1 ms."""
INITIAL_LEAST: Final = 1200
"""Bytes of the smallest datagram that may carry an Initial (RFC 9000 section 14.1)."""
RESET_LEAST: Final = 21
"""Bytes of the smallest stateless reset that a peer takes for one (RFC 9000 section 10.3)."""
RESET_MOST: Final = 43
"""Bytes of our longest: such that a short packet of a client's, of which it must be smaller, still gets one."""


@dataclass(frozen=True, slots=True)
class LongHeader:
    """What every version of QUIC has in common (RFC 8999), and the token of an Initial of version 1."""

    version: int
    destination: bytes
    source: bytes
    initial: bool
    token: bytes


def read_long_header(data: bytes) -> LongHeader | None:
    """The header of a packet whose first bit is set; None when it is cut off or breaks version 1's rules."""
    try:
        version = int.from_bytes(data[1:5], "big")
        at = 6 + data[5]
        destination, source = data[6:at], data[at + 1 : at + 1 + data[at]]
        at += 1 + data[at]
        if version not in VERSIONS:
            return LongHeader(version, destination, source, False, b"")
        if not data[0] & 0x40 or len(destination) > 20 or len(source) > 20:
            return None
        if data[0] & 0x30:
            return LongHeader(version, destination, source, False, b"")
        size = 1 << (data[at] >> 6)
        length = int.from_bytes(data[at : at + size], "big") & ((1 << (8 * size - 2)) - 1)
        token = data[at + size : at + size + length]
        return LongHeader(version, destination, source, True, token) if len(token) == length else None
    except IndexError:
        return None


def version_negotiation(header: LongHeader) -> bytes:
    """What versions there are, for a client that speaks another."""
    return encode_quic_version_negotiation(header.destination, header.source, VERSIONS)


def refusal(header: LongHeader, error: QuicErrorCode) -> bytes:
    """An Initial that ends the attempt at once (CONNECTION_REFUSED, INVALID_TOKEN). Its keys anybody can derive."""
    crypto = CryptoPair()
    crypto.setup_initial(cid=header.destination, is_client=False, version=header.version)
    builder = QuicPacketBuilder(
        host_cid=header.destination,
        peer_cid=header.source,
        version=header.version,
        is_client=False,
        max_datagram_size=INITIAL_LEAST,
    )
    builder.start_packet(QuicPacketType.INITIAL, crypto)
    buf = builder.start_frame(QuicFrameType.TRANSPORT_CLOSE, capacity=25)
    buf.push_uint_var(error)
    buf.push_uint_var(QuicFrameType.PADDING)
    buf.push_uint_var(0)
    return builder.flush()[0][0]


def stateless_reset(trigger: int, token: bytes) -> bytes | None:
    """A reset in answer to a packet of `trigger` bytes, looking like any other short packet; None: it was too small.

    It is shorter than what it answers, so that two servers which know nothing of each other fall silent.
    """
    size = min(trigger - 1, RESET_MOST)
    if size < RESET_LEAST:
        return None
    head = bytearray(os.urandom(size - TOKEN_LENGTH))
    head[0] = head[0] & 0x3F | 0x40
    return bytes(head) + token
