"""Whatever a client says over HTTP/3, nothing raises, what is kept is bounded, and the accounts add up."""

from __future__ import annotations

import random

import pytest

from gateway.protocol.http3 import Capsule, close_capsule, frame, settings_frame, to_h3
from gateway.protocol.varints import varint
from gateway.transports.webtransport.session import HELD_BYTES, HELD_DATAGRAMS, HELD_STREAMS
from tests.transports.webtransport.fake import CONTROL, ORIGIN, Client, FakeSink, request

STREAMS = (0, 0, 4, 8, 12, 1, 2, 2, 6, 10, 14, 18, 5)
BEGINNINGS = [
    request(),
    request(origin=ORIGIN),
    request(origin="null"),
    request(_method="GET", _protocol="", _path="/"),
    request(_scheme=""),
    b"\x00" + settings_frame({0x33: 1}),
    settings_frame({0x33: 1}),
    b"\x02\x20",
    b"\x03\x44",
    b"\x40\x41\x00\x01",
    b"\x40\x41\x04\x02",
    b"\x40\x54\x00\x03file",
    b"\x40\x54\x08",
]
PIECES = [
    *BEGINNINGS,
    frame(0, close_capsule(4200, "bye")),
    frame(0, frame(Capsule.DRAIN_SESSION, b"")),
    frame(0, b"\x00"),
    frame(0x21, b"grease"),
    varint(1 << 40),
    b"\x00" * 9,
    b"\xff" * 17,
    b"x" * 700,
]


@pytest.mark.parametrize("seed", range(12))
def test_nothing_that_a_client_says_raises(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(25):
        client, ended = Client(), set()
        for _ in range(chance.randrange(5, 60)):
            stream_id, act = chance.choice(STREAMS), chance.random()
            data = chance.choice(PIECES)
            if chance.random() < 0.2:
                at = chance.randrange(len(data))
                data = data[:at] + bytes((data[at] ^ 1 << chance.randrange(8),)) + data[at + 1 :]
            data = data[: chance.randrange(len(data) + 1)] if chance.random() < 0.3 else data
            if act < 0.06:
                client.datagram(data)
            elif act < 0.1:
                client.stop(stream_id, to_h3(chance.randrange(5000)))
            elif act < 0.13:
                client.shake()
            elif act < 0.18 and client.http3.session.id is not None and client.http3.session.datagrams is not None:
                client.http3.session.deliver(FakeSink())
                client.http3.deliver_datagrams()
            elif stream_id not in ended:  # QUIC tells nothing further of a stream that has ended
                if act < 0.22:
                    client.reset(stream_id, 0x10C)
                    ended.add(stream_id)
                else:
                    end = chance.random() < 0.05
                    client.say(stream_id, data, end)
                    if end:
                        ended.add(stream_id)
            kept = client.http3.statistics()
            assert kept["held"] <= HELD_STREAMS
            assert kept["held_bytes"] <= HELD_BYTES
            assert len(client.http3.session.datagrams or []) <= HELD_DATAGRAMS
            assert all(account.balanced for account in client.counts.books())
        client.http3.ended(0, "gone")
        assert client.http3.statistics()["held"] == client.http3.statistics()["sending"] == 0
        assert all(account.balanced for account in client.counts.books())


def test_the_streams_of_the_random_clients_are_those_that_there_are() -> None:
    assert {each & 3 for each in STREAMS} == {0, 1, 2}
    assert CONTROL in STREAMS
