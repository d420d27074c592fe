"""What fuzzing does with one input, a stream of frames: decoded whole and in pieces, judged twice.

The extension is not instrumented, the plain Python verifier beside it is: libFuzzer follows the paths of that one, and
both must give the same verdict, so its search covers ours.
"""

from __future__ import annotations

import struct
from typing import Any

from gateway._framing import (
    HEADER,
    DispatchTable,
    Frame,
    FrameDecoder,
    FrameError,
    SharedFrame,
    join_frames,
    parse_downstream,
    parse_upstream,
)
from gateway.protocol.envelopes import Undelivered, UserEvent
from gateway.protocol.messages import decode
from tests.framing import reference
from tests.framing.outcome import outcome
from tests.framing.schema import PAYLOADS

LIMIT = 4096
CLOSING = (4000, 4001, 4003)


def expected(data: bytes) -> list[tuple[int, int]]:
    """(type, code) of each frame of the stream, by the reference; ends where a decoder closes or waits."""
    verdicts: list[tuple[int, int]] = []
    while len(data) >= HEADER and not (verdicts and verdicts[-1][1] in CLOSING):
        length, msg_type = struct.unpack_from(">IH", data)
        if length > LIMIT:
            verdicts.append((msg_type, 4001))
        elif len(data) < HEADER + length:
            break
        else:
            verdicts.append((msg_type, reference.verdict(msg_type, data[HEADER : HEADER + length])[0]))
        data = data[HEADER + length :]
    return verdicts


def decoded(chunks: list[bytes]) -> tuple[list[tuple[int, int]], list[Frame]]:
    """The same by the extension, and the frames."""
    seen: list[tuple[int, int]] = []
    frames: list[Frame] = []

    def handle(context: Any, frame: Frame) -> None:
        seen.append((frame.type, 0))
        frames.append(frame)

    table = DispatchTable(lambda _, code, msg_type, seq: seen.append((msg_type, code)))
    for msg_type in (0, *PAYLOADS):
        table.on(msg_type, handle)
    decoder = FrameDecoder(table, LIMIT)
    for chunk in chunks:
        decoder.feed(None, chunk)
    return seen, frames


def pieces(data: bytes) -> list[bytes]:
    """The stream in pieces whose sizes follow from its bytes."""
    chunks, at = [], 0
    while at < len(data):
        size = 1 + data[at] % 23
        chunks.append(data[at : at + size])
        at += size
    return chunks


def check(data: bytes) -> None:
    """One input; AssertionError where anything disagrees."""
    whole, frames = decoded([data])
    assert whole == expected(data)
    assert decoded(pieces(data))[0] == whole
    for frame in frames:
        touch(frame)
    body = data[HEADER:]
    msg_type = int.from_bytes(data[4:6])
    assert outcome(msg_type, body) == reference.verdict(msg_type, body)
    for read, name in (
        (parse_upstream, "Upstream"),
        (parse_downstream, "Downstream"),
        (UserEvent.decode, "UserEvent"),
        (Undelivered.decode, "Undelivered"),
    ):
        try:
            touch(read(body))
            assert reference.envelope_verdict(name, body) == ""
        except FrameError:
            pass


def touch(read: Any) -> None:
    """Read everything there is to read, and share what is a frame."""
    for name in dir(read):
        if not name.startswith("_") and name != "frame":
            getattr(read, name)
    if isinstance(read, Frame):
        message = decode(read)
        try:
            shared = SharedFrame(read.encode())
        except FrameError as error:  # rebuilt, it is shorter, and no longer within its own budget
            if reference.BUDGET not in str(error):
                raise
            return
        data, _ = join_frames([shared], 7)
        length, msg_type = struct.unpack_from(">IH", data)
        _, [again] = decoded([data]) if length <= LIMIT else ([], [read])
        assert msg_type == read.type
        assert decode(again) == message
