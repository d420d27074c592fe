"""Header fields as QPACK writes them (RFC 9204), without a dynamic table: nothing is remembered between two requests.

We announce a table of no capacity, so a peer has nothing to insert, to refer to or to wait for, and an attack on the
table has nothing to attack. The one file that knows pylsqpack.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import pylsqpack

from gateway.protocol.http3 import H3Code, H3Failure

Headers = list[tuple[bytes, bytes]]

FIELD_COST: Final = 32
"""Bytes that each field counts beside its name and value (RFC 9114 section 4.2.2)."""


def decode_headers(block: bytes, limit: int) -> Headers:
    """The fields of a HEADERS frame.

    Raises:
        H3Failure: it is no such thing, refers to a dynamic table, or holds more than `limit` bytes of fields.
    """
    try:
        _, headers = pylsqpack.Decoder(0, 0).feed_header(0, block)
    except (pylsqpack.DecompressionFailed, pylsqpack.StreamBlocked):
        raise H3Failure(H3Code.QPACK_DECOMPRESSION_FAILED, "header fields that cannot be read") from None
    if sum(len(name) + len(value) + FIELD_COST for name, value in headers) > limit:
        raise H3Failure(H3Code.EXCESSIVE_LOAD, f"more than {limit} bytes of header fields")
    return headers


def encode_headers(headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    """A block that needs no dynamic table."""
    _, block = pylsqpack.Encoder().encode(0, list(headers))
    return bytes(block)


def check_encoder_stream(data: bytes) -> None:
    """Take what the peer's encoder says: it can only set its table's capacity to 0, which it has already.

    Raises:
        H3Failure: it says anything else.
    """
    if data.strip(b"\x20"):
        raise H3Failure(H3Code.QPACK_ENCODER_STREAM_ERROR, "the dynamic table has no capacity")


class DecoderStream:
    """Takes what the peer's decoder says: it may cancel streams, and has nothing of ours to acknowledge."""

    __slots__ = ("_inside",)

    def __init__(self) -> None:
        self._inside = 0
        """Bytes read of an integer that has not ended."""

    def feed(self, data: bytes) -> None:
        """Check the next bytes.

        Raises:
            H3Failure: an acknowledgement of what was never sent, or a number without an end.
        """
        for byte in data:
            if self._inside:
                self._inside = self._inside + 1 if byte & 0x80 else 0
                if self._inside > 10:
                    raise H3Failure(H3Code.QPACK_DECODER_STREAM_ERROR, "a number that is too long")
            elif byte >> 6 != 0b01:
                raise H3Failure(H3Code.QPACK_DECODER_STREAM_ERROR, "nothing was inserted or referred to")
            elif byte & 0x3F == 0x3F:
                self._inside = 1
