"""Threats 1, 2, 33, 46 on every link of the reactor: silence, slowness, exhaustion, churn. QUIC has `test_quic`."""

import gc
import resource
from pathlib import Path

import pytest
import trio

from gateway.core.settings import LoginSettings
from gateway.protocol.codes import Code
from gateway.protocol.messages import AuthResponse
from tests.support.node import PATIENCE, SOCKET_LINKS, LinkKind, descriptors, neighbour, open_running

pytestmark = pytest.mark.parametrize("kind", SOCKET_LINKS)
QUICK = LoginSettings(link_timeout=0.4, auth_timeout=0.4)
"""The same rules in less time."""


async def ended(stream: trio.SocketStream) -> bytes:
    """What the node says until it ends the stream."""
    said = b""
    with trio.fail_after(PATIENCE):
        try:
            while data := await stream.receive_some():
                said += data
        except trio.BrokenResourceError:
            pass
    await stream.aclose()
    return said


@pytest.mark.parametrize("start", [b"", b"\x16", b"\x16\x03\x01\x02\x00\x01", b"GET /ws HT", b"\0\0\0\x10\0"])
async def test_t01_silence_and_half_a_handshake_are_closed_in_time(
    tmp_path: Path, kind: LinkKind, start: bytes
) -> None:
    async with open_running(tmp_path, kind, login=QUICK) as running:
        stream = await running.raw()
        if start:
            await stream.send_all(start)
        began = trio.current_time()
        await ended(stream)
        assert trio.current_time() - began < 10
        await running.empty()


async def test_t01_one_byte_at_a_time_does_not_extend_the_deadline(tmp_path: Path, kind: LinkKind) -> None:
    async with open_running(tmp_path, kind, login=QUICK) as running, neighbour(running):
        stream = await running.raw()
        async with trio.open_nursery() as nursery:

            async def drip() -> None:
                line = b"\0\0\0\x40\0\x01" if kind == "tcp" else b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03"
                try:
                    for number in range(10_000):
                        await stream.send_all(line[number % len(line) :][:1] if number < len(line) else b"x")
                        await trio.sleep(0.05)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    pass

            nursery.start_soon(drip)
            await ended(stream)
            nursery.cancel_scope.cancel()


async def test_t01_an_end_of_file_frees_the_descriptor_at_once(tmp_path: Path, kind: LinkKind) -> None:
    async with open_running(tmp_path, kind) as running:
        await (await running.raw()).aclose()
        await running.empty()
        before = descriptors()
        for opener in (running.raw, running.transport):
            for _ in range(5):
                await (await opener()).aclose()
        await running.empty()
        assert descriptors() <= before


async def test_t02_a_link_that_never_authenticates_is_told_4103(tmp_path: Path, kind: LinkKind) -> None:
    async with open_running(tmp_path, kind, login=QUICK) as running, neighbour(running):
        peer = await running.connect()
        with trio.fail_after(PATIENCE):
            (refusal,) = await peer.closed()
        assert isinstance(refusal, AuthResponse)
        assert refusal.code == Code.AUTH_TIMEOUT
        assert peer.close_code == (Code.AUTH_TIMEOUT if kind in ("ws", "wss") else 0)
        await peer.hang_up()


async def test_t33_running_out_of_descriptors_is_survived(tmp_path: Path, kind: LinkKind) -> None:
    async with open_running(tmp_path, kind) as running, neighbour(running):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        peers = [await running.raw() for _ in range(8)]
        with trio.fail_after(PATIENCE):
            while running.hub.admission.open < 9:
                await trio.sleep(0.01)
        resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors() + 2, hard))
        try:
            stream = await running.raw()  # our end takes the last; the node has none for it
            with trio.move_on_after(2):
                await stream.receive_some()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        await stream.aclose()
        peer = await running.seated(1001)
        await peer.hang_up()
        for each in peers:
            await each.aclose()


async def test_t46_connecting_and_leaving_a_thousand_times_leaves_nothing(tmp_path: Path, kind: LinkKind) -> None:
    """The long version, with the slope of memory, is `make soak`."""
    times = 1000 if kind in ("tcp", "ws") else 200
    async with open_running(tmp_path, kind) as running, neighbour(running):
        gc.collect()
        before = descriptors()
        limit = trio.CapacityLimiter(16)

        async def come_and_go() -> None:
            async with limit:
                await (await running.raw()).aclose()

        async with trio.open_nursery() as nursery:
            for _ in range(times):
                nursery.start_soon(come_and_go)
        await running.empty(but=1)
        assert descriptors() <= before
        assert len(running.hub.registry) == 1
        assert running.hub.admission.statistics() == {"open": 1, "addresses": 1}
