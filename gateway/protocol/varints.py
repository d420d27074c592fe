"""Integers of variable length (RFC 9000 section 16), as QUIC and HTTP/3 write them."""

from __future__ import annotations


def varint(value: int) -> bytes:
    """The shortest form of `value`, below 2^62."""
    if value < 0x40:
        return value.to_bytes(1, "big")
    if value < 0x4000:
        return (value | 0x4000).to_bytes(2, "big")
    if value < 0x4000_0000:
        return (value | 0x8000_0000).to_bytes(4, "big")
    return (value | 0xC000_0000_0000_0000).to_bytes(8, "big")


def read_varint(data: bytes, at: int = 0) -> tuple[int, int] | None:
    """The value at `at` and where it ends; None when it is not all there."""
    if at >= len(data):
        return None
    size = 1 << (data[at] >> 6)
    if at + size > len(data):
        return None
    return int.from_bytes(data[at : at + size], "big") & ((1 << (8 * size - 2)) - 1), at + size
