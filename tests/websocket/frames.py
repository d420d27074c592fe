"""Frames as a client writes them, byte for byte: also those that no client library would write."""

from __future__ import annotations

KEY = b"\x37\xfa\x21\x3d"


def masked(payload: bytes, key: bytes = KEY) -> bytes:
    """XOR with the key, one byte at a time: nothing to get wrong."""
    return bytes(byte ^ key[i & 3] for i, byte in enumerate(payload))


def frame(
    payload: bytes = b"",
    opcode: int = 2,
    *,
    fin: bool = True,
    rsv: int = 0,
    key: bytes | None = KEY,
    length: int | None = None,
    width: int | None = None,
) -> bytes:
    """One frame. `length` is declared instead of the true one, in `width` bytes (1, 2 or 8) instead of the shortest."""
    length = len(payload) if length is None else length
    if width is None:
        width = 1 if length <= 125 else 2 if length <= 0xFFFF else 8
    size = bytes([length]) if width == 1 else {2: b"\x7e", 8: b"\x7f"}[width] + length.to_bytes(width, "big")
    first = (0x80 if fin else 0) | rsv << 4 | opcode
    if key is None:
        return bytes([first]) + size + payload
    return bytes([first, size[0] | 0x80]) + size[1:] + key + masked(payload, key)


def close_body(code: int, reason: bytes = b"") -> bytes:
    """The payload of a Close frame."""
    return code.to_bytes(2, "big") + reason
