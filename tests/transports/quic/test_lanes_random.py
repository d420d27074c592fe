"""Lanes under whatever a peer may do: nothing raises, nothing is granted twice, and nothing is left behind."""

from __future__ import annotations

import random
from contextlib import suppress

import pytest

from gateway.core.link import Lane, LinkClosed
from gateway.transports.quic.streams import LaneStreams
from tests.transports.quic.fake import Ear, FakePeer

STEPS = 400


class Chaos:
    """One peer that opens, sends, ends, resets and stops at random, and a core that does so, too."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.peer = FakePeer()
        self.ear = Ear()
        self.streams = LaneStreams(self.peer, self.ear)
        self.open: list[int] = []
        self.opened = 0
        self.sent: dict[int, int] = {}

    def step(self) -> None:
        choices = [self.begin, self.begin, self.more, self.more, self.more, self.end, self.reset, self.stop]
        self.chance.choice([*choices, self.sink, self.core, self.acknowledge])()
        self.streams.pumped()

    def begin(self) -> None:
        stream_id = self.opened * 4 + self.chance.choice([0, 0, 2])
        self.opened += 1
        self.open.append(stream_id)
        lane = self.chance.choice([b"\x01", b"\x02", b"\x03", b"\x03", b"\x00", b"\xff"])
        self.give(stream_id, lane + bytes(self.chance.randrange(3)), self.chance.random() < 0.1)

    def give(self, stream_id: int, data: bytes, end: bool) -> None:
        self.sent[stream_id] = self.sent.get(stream_id, 0) + len(data)
        if end:
            self.open.remove(stream_id)
        self.streams.received(stream_id, data, end)

    def more(self) -> None:
        if self.open:
            self.give(self.chance.choice(self.open), bytes(self.chance.randrange(1, 500)), False)

    def end(self) -> None:
        if self.open:
            self.give(self.chance.choice(self.open), b"", True)

    def reset(self) -> None:
        if self.open:
            stream_id = self.chance.choice(self.open)
            self.open.remove(stream_id)
            self.streams.was_reset(stream_id, 5)

    def stop(self) -> None:
        self.streams.was_stopped(self.chance.choice([*self.open, *self.peer.sent, 999]), 5)

    def sink(self) -> None:
        if self.ear.sinks:
            sink = self.chance.choice(self.ear.sinks)
            if self.chance.random() < 0.3:
                sink.stream.stop(7)
            elif sink.heard:
                sink.stream.grant(len(sink.heard))
                sink.heard = b""

    def core(self) -> None:
        kind = self.chance.randrange(5)
        if kind == 0:
            self.streams.pause()
        elif kind == 1:
            self.streams.resume()
        elif kind == 2:
            self.ear.takes_files = not self.ear.takes_files
        elif kind == 3:
            with suppress(LinkClosed):
                stream = self.streams.open_stream()
                if self.chance.random() < 0.3:
                    stream.finish()
                elif self.chance.random() < 0.5:
                    stream.reset(3)
        else:
            self.streams.send_on(self.chance.choice([Lane.CONTROL, Lane.MESSAGE]), bytes(100_000))

    def acknowledge(self) -> None:
        for stream_id in self.peer.sent:
            self.peer.take(stream_id)


@pytest.mark.parametrize("seed", range(20))
async def test_nothing_raises_and_nothing_is_left(seed: int) -> None:
    chaos = Chaos(seed)
    for _ in range(STEPS):
        chaos.step()
        for stream_id, granted in chaos.peer.granted.items():
            assert granted <= chaos.sent[stream_id]
    chaos.streams.resume()
    opened = sum(told == ("opened", Lane.MESSAGE) for told in chaos.ear.told)
    closed = sum(told == ("closed", Lane.MESSAGE) for told in chaos.ear.told)
    assert 0 <= opened - closed <= 1
    chaos.streams.end()
    assert chaos.streams.statistics() == {"incoming": 0, "outgoing": 0, "lanes": 0}
    assert all(len(sink.end_of) <= 1 for sink in chaos.ear.sinks)
