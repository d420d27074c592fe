"""Threats 16 to 19 and 21 from somebody with a session, over QUIC and over WebTransport, against a running node.

What each costs the connection itself is in the transport's tests; here nobody else may feel it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from gateway.protocol.codes import Code
from gateway.transports.quic.endpoint import QuicEndpoint
from tests.support.node import PATIENCE, LinkKind, RunningNode, neighbour, open_running
from tests.support.quic_peer import QuicClient
from tests.transports.quic.pair import forged, stream_frame, varint

KINDS: tuple[LinkKind, ...] = ("quic", "https")
ENOUGH = 5_000
"""Packets of an attack; each of them ends it long before."""
TRANSPORT_ERROR = 0
"""What is counted for an end without a code of an application."""


def stream(number: int) -> int:
    """One of eighty streams of the client's, none of which it uses."""
    return 4 * (10 + number % 80)


ATTACKS: dict[str, tuple[Callable[[int], bytes], int]] = {
    "t16_challenges": (lambda n: b"\x1a" + n.to_bytes(8, "big"), Code.RATE_LIMITED),
    "t16_retirements": (lambda n: b"\x19" + varint(n % 3 + 1), Code.RATE_LIMITED),
    "t17_opened_and_reset": (lambda n: b"\x04" + varint(stream(n), 7, 0), Code.RATE_LIMITED),
    "t17_stops": (lambda n: b"\x05" + varint(stream(n), 7), Code.RATE_LIMITED),
    "t18_sparse": (lambda n: stream_frame(stream(n), 262_143, b"x"), TRANSPORT_ERROR),
    "t21_acknowledgements": (lambda n: b"\x02" + varint(100_000 + n, 0, 0, 0), TRANSPORT_ERROR),
}


def endpoint(running: RunningNode) -> QuicEndpoint:
    assert running.node._quic is not None
    return running.node._quic.endpoint


async def throw(client: QuicClient, frames: bytes) -> None:
    """Send a packet that the client itself knows nothing of."""
    client._socket.sendto(forged(client.quic, frames), client.server)
    await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("attack", ATTACKS)
async def test_a_storm_ends_its_session_and_nobody_elses(tmp_path: Path, kind: LinkKind, attack: str) -> None:
    frames, code = ATTACKS[attack]
    async with open_running(tmp_path, kind) as running, neighbour(running):
        await running.seated(1001)
        client = running._quic[-1]
        client.deaf = True  # it would complain of answers to what it never asked
        ended = endpoint(running).statistics().closed
        with trio.fail_after(PATIENCE):
            for number in range(ENOUGH):
                await throw(client, frames(number))
                if endpoint(running).statistics().connections == 1:
                    break
        await running.empty(but=1)
        told = endpoint(running).statistics()
        assert {each: count - ended.get(each, 0) for each, count in told.closed.items()}[code] == 1
        assert told.connections == 1
        assert told.failures == running.hub.metrics.faults == 0


@pytest.mark.parametrize("kind", KINDS)
async def test_t19_a_flood_of_datagrams_is_dropped_and_counted(tmp_path: Path, kind: LinkKind) -> None:
    async with open_running(tmp_path, kind) as running, neighbour(running):
        peer = await running.seated(1001)
        client, metrics = running._quic[-1], running.hub.metrics
        here = b"\x00" if kind == "https" else b""  # of the session on stream 0
        heartbeat, oversize = here + bytes(6), here + b"\0\0\xff\xff\0\0" + bytes(900)
        with trio.fail_after(PATIENCE):
            while metrics.datagrams_dropped < 500:
                for data in (heartbeat, oversize, b"\x05" + bytes(6) if here else b"x"):  # the last: of no session
                    await throw(client, b"\x31" + varint(len(data)) + data)
        assert metrics.datagrams > 0
        await peer.send_bytes(bytes(6))
        assert await peer.frame() is not None
        assert endpoint(running).statistics().connections == 2
