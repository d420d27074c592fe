"""What the framing extension costs per call, beside struct and the PyPI flatbuffers package in the same run.

    python benchmarks/framing.py [--json FILE] [--rounds N]

`plain` does the least that a pure-Python gateway would: struct for the header, the generated readers for the same
fields (unverified: that package has no verifier), its builder for replies. Subjects take turns, each turn lasts some
10 ms, medians of the turns are shown. One process, one thread, no sockets; nanoseconds of
CPU. Ratios within a run hold, absolutes do not.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import statistics
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import flatbuffers

from benchmarks.processes import versions
from gateway._framing import (
    DispatchTable,
    FrameDecoder,
    FrameError,
    SharedFrame,
    build_ack,
    build_chat,
    build_heartbeat,
    build_upstream,
    join_frames,
    parse_downstream,
    parse_frame,
)
from gateway.protocol.fbs import internal_generated as internal
from gateway.protocol.fbs import message_generated as message
from tests.framing import bombs, writer

TURN = 0.01
PACKAGES = ["flatbuffers", "cython"]
HEAD = struct.Struct(">IH")


class Subject(NamedTuple):
    """One thing to time; `target` is the most nanoseconds it may cost, `against` the plain one beside it."""

    name: str
    run: Callable[[], Any]
    target: int = 0
    against: str = ""
    ratio: float = 0


def chat_of(size: int) -> bytes:
    """A Message as clients send it, from the PyPI builder, with a body of exactly `size` bytes."""
    for text in range(size):
        fields = {"msg_id": "c0ffee01", "to_user": 1002, "content": "x" * text}
        frame = writer.frame(10, writer.packet(10, fields, seq=7))
        if len(frame) == 6 + size:
            return frame
    raise ValueError(f"no Message has {size} bytes")


def plain_decode(data: bytes, handler: Callable[[Any], bytes | None]) -> bytes | None:
    """Header by struct, packet and payload by the generated readers, every field that ours reads; not verified."""
    length, msg_type = HEAD.unpack_from(data)
    packet = message.Packet.GetRootAs(data[6 : 6 + length])
    if packet.MsgType() != msg_type:
        raise ValueError
    packet.Seq()
    packet.Timestamp()
    start = packet._tab.Vector(packet._tab.Offset(10))
    chat = message.ChatMessage.GetRootAs(packet._tab.Bytes[start : start + packet.PayloadLength()])
    return handler(chat)


def plain_valid(chat: Any) -> None:
    """What `ChatFrame.valid` and a Dispatcher look at."""
    if not chat.MsgId() or (chat.ToUser() > 0) == (chat.GroupId() > 0) or chat.FromUser():
        raise ValueError


def our_valid(context: object, frame: Any) -> None:
    if not frame.valid or frame.from_user:
        raise ValueError


def plain_ack(seq: int, now: int, msg_id: str, status: int) -> bytes:
    """A MessageAck frame by the PyPI builder."""
    inner = flatbuffers.Builder(128)
    name = inner.CreateString(msg_id)
    message.MessageAckStart(inner)
    message.MessageAckAddMsgId(inner, name)
    message.MessageAckAddStatus(inner, status)
    inner.Finish(message.MessageAckEnd(inner))
    outer = flatbuffers.Builder(256)
    payload = outer.CreateByteVector(bytes(inner.Output()))
    message.PacketStart(outer)
    message.PacketAddSeq(outer, seq)
    message.PacketAddMsgType(outer, 11)
    message.PacketAddTimestamp(outer, now)
    message.PacketAddPayload(outer, payload)
    outer.Finish(message.PacketEnd(outer))
    body = bytes(outer.Output())
    return HEAD.pack(len(body), 11) + body


def plain_upstream(packet: bytes) -> bytes:
    """An Upstream by the PyPI builder."""
    builder = flatbuffers.Builder(512)
    node, device, platform = (builder.CreateString(text) for text in ("node-1", "phone", "ios"))
    data = builder.CreateByteVector(packet)
    internal.UpstreamStart(builder)
    internal.UpstreamAddNodeId(builder, node)
    internal.UpstreamAddConnId(builder, 2**62)
    internal.UpstreamAddUserId(builder, 1001)
    internal.UpstreamAddDeviceId(builder, device)
    internal.UpstreamAddPlatform(builder, platform)
    internal.UpstreamAddReceivedAt(builder, 1_700_000_000_000)
    internal.UpstreamAddMsgType(builder, 10)
    internal.UpstreamAddPacket(builder, data)
    builder.Finish(internal.UpstreamEnd(builder))
    return bytes(builder.Output())


def judged(msg_type: int, body: bytes) -> None:
    """Verify, whatever the verdict."""
    with contextlib.suppress(FrameError):
        parse_frame(msg_type, body)


def subjects() -> list[Subject]:
    """All that is timed."""
    now = 1_700_000_000_000
    table = DispatchTable(lambda *_: None)
    table.on(10, lambda context, frame: None)
    table.echo(0)
    reading = DispatchTable(lambda *_: None)
    reading.on(10, our_valid)
    decoder, reader = FrameDecoder(table, 65536), FrameDecoder(reading, 65536)
    chat, large = chat_of(128), chat_of(1024)
    sixteen, beats = chat * 16, build_heartbeat(7, now) * 16
    frame: Any = parse_frame(10, chat[6:])
    shared = SharedFrame(build_chat(0, now, "c0ffee01", 1001, 1002, "x" * 32, 0, now, 0, 9))
    upstream = build_upstream("node-1", 2**62, 1001, "phone", "ios", now, frame)
    downstream = writer.table("Downstream", {"user_id": 1002, "msg_type": 10, "packet": chat[6:], "conn_ids": [2**62]})
    assert upstream
    result = [
        Subject(
            "decode, verify, dispatch a Message of 128", lambda: decoder.feed(None, chat, now), 1000, "plain read", 20
        ),
        Subject("  and read and check its fields", lambda: reader.feed(None, chat, now)),
        Subject("  of 1024", lambda: decoder.feed(None, large, now)),
        Subject("  16 of 128 in one chunk", lambda: decoder.feed(None, sixteen, now)),
        Subject("plain read", lambda: plain_decode(chat, plain_valid)),
        Subject("Heartbeat echo", lambda: decoder.feed(None, beats[:46], now)),
        Subject("  16 in one chunk", lambda: decoder.feed(None, beats, now)),
        Subject("build_ack", lambda: build_ack(7, now, "c0ffee01", 0), 500, "plain ack", 0),
        Subject("plain ack", lambda: plain_ack(7, now, "c0ffee01", 1)),
        Subject(
            "build_upstream",
            lambda: build_upstream("node-1", 2**62, 1001, "phone", "ios", now, frame),
            0,
            "plain upstream",
        ),
        Subject("plain upstream", lambda: plain_upstream(chat[6:])),
        Subject("parse_downstream", lambda: parse_downstream(downstream)),
        Subject("join_frames of 1 shared", lambda: join_frames([shared], 1)),
        Subject("join_frames of 16 shared", lambda: join_frames([shared] * 16, 1)),
    ]
    for kind, frames in (("refused", bombs.REFUSED), ("accepted", bombs.ACCEPTED)):
        for name, make in frames.items():
            msg_type, body = make()
            result.append(Subject(f"{kind}: {name}", functools.partial(judged, msg_type, body), 1_000_000))
    return result


def measure(things: list[Subject], rounds: int) -> dict[str, float]:
    """Median nanoseconds per call by name; turns are interleaved."""
    counts: dict[str, int] = {}
    found: dict[str, list[float]] = {thing.name: [] for thing in things}
    for thing in things:
        started = time.thread_time()
        calls = 0
        while time.thread_time() - started < TURN:
            thing.run()
            calls += 1
        counts[thing.name] = max(1, calls)
    for _ in range(rounds):
        for thing in things:
            run, repeat = thing.run, range(counts[thing.name])
            started = time.thread_time_ns()
            for _ in repeat:
                run()
            found[thing.name].append((time.thread_time_ns() - started) / len(repeat))
    return {name: statistics.median(values) for name, values in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=31)
    options = parser.parse_args()
    things = subjects()
    medians = measure(things, options.rounds)
    print(f"{'':52} {'ns':>10} {'target':>10}  against plain")
    for thing in things:
        value = medians[thing.name]
        target = f"{thing.target:10}" if thing.target else " " * 10
        times = f"{medians[thing.against] / value:6.1f} times less" if thing.against else ""
        goal = f" (target {thing.ratio:.0f})" if thing.ratio else ""
        print(f"{thing.name:52} {value:10.0f} {target}  {times}{goal}")
    if options.json:
        options.json.write_text(json.dumps({"versions": versions(PACKAGES), "nanoseconds": medians}, indent=2) + "\n")


if __name__ == "__main__":
    main()
