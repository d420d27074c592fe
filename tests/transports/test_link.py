"""The socket links, each with and without TLS: bytes both ways, back-pressure, and every way to end."""

from __future__ import annotations

import gc
import logging
import os

import pytest
import trio
import trio.testing

from gateway.core.link import Link, LinkClosed
from gateway.transports.tls import TlsLink
from tests.transports.harness import (
    PATIENCE,
    Certificates,
    Ear,
    Pair,
    connected,
    descriptors,
    link_around,
    receive_exactly,
    reset,
    running_reactor,
)

BIG = bytes(range(256)) * 40_000
"""10 MB: more than the socket buffers of both ends hold."""


async def ends(stream: trio.abc.ReceiveStream) -> bytes:
    """What comes before the end of file."""
    data = b""
    with trio.fail_after(PATIENCE):
        while part := await stream.receive_some(65_536):
            data += part
    return data


async def stuck(pair: Pair) -> None:
    """Send until the socket takes no more."""
    with trio.fail_after(PATIENCE):
        while pair.link.send(bytes(1_000_000)):
            await trio.lowlevel.checkpoint()


async def flush_in_vain(pair: Pair) -> None:
    with pytest.raises(LinkClosed):
        await pair.link.flush()


def echo(pair: Pair) -> None:
    pair.ear.on_feed = lambda data: pair.link.send(data) or pytest.fail("the socket is full")


async def test_is_a_link(pair: Pair) -> None:
    link: Link = pair.link
    assert (link.transport, link.address, link.prefix, link.unsent) == ("tcp", "127.0.0.1", None, 0)


async def test_echo_in_order(pair: Pair) -> None:
    peer = await pair.up()
    echo(pair)
    for size in (1, 100, 16_384, 16_385, 60_000):
        data = os.urandom(size)
        with trio.fail_after(PATIENCE):
            await peer.send_all(data)
        assert await receive_exactly(peer, size) == data


async def test_nothing_is_read_before_open(plain_pair: Pair) -> None:
    await plain_pair.peer.send_all(b"early")
    await trio.testing.wait_all_tasks_blocked()
    assert not plain_pair.ear.heard
    await plain_pair.link.open()
    await plain_pair.ear.until_heard(b"early")


async def test_a_peer_that_does_not_read(pair: Pair) -> None:
    peer = await pair.up()
    with trio.fail_after(PATIENCE):
        assert not pair.link.send(BIG)
        assert pair.link.unsent > 0
        assert not pair.link.send(b"behind")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pair.link.flush)
            assert await receive_exactly(peer, len(BIG) + 6) == BIG + b"behind"
    assert pair.link.unsent == 0
    assert pair.link.send(b"again")
    assert await receive_exactly(peer, 5) == b"again"


async def test_flush_with_nothing_to_do(pair: Pair) -> None:
    await pair.up()
    with trio.fail_after(PATIENCE):
        await pair.link.flush()


async def test_a_cancelled_flush_loses_nothing(pair: Pair) -> None:
    peer = await pair.up()
    assert not pair.link.send(BIG)
    with trio.move_on_after(0.05):
        await pair.link.flush()
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pair.link.flush)
            assert await receive_exactly(peer, len(BIG)) == BIG


async def test_pause_keeps_bytes_with_the_kernel(pair: Pair) -> None:
    peer = await pair.up()
    pair.link.pause()
    pair.link.pause()
    await peer.send_all(b"one")
    await trio.testing.wait_all_tasks_blocked(0.02)
    assert not pair.ear.heard
    pair.link.resume()
    pair.link.resume()
    await pair.ear.until_heard(b"one")


async def test_pause_pushes_back_to_the_sender(plain_pair: Pair) -> None:
    await plain_pair.up()
    plain_pair.link.pause()
    with trio.move_on_after(0.3) as scope:
        await plain_pair.peer.send_all(BIG)
    assert scope.cancelled_caught
    assert not plain_pair.ear.heard


async def test_the_peer_ends(pair: Pair) -> None:
    peer = await pair.up()
    await peer.send_all(b"bye")
    before = descriptors()
    await peer.aclose()
    await pair.ear.until_told("lost")
    assert pair.ear.heard == b"bye"
    assert pair.link.fd == -1, "freed before it is told"
    assert descriptors() == before - 2
    assert pair.link.send(b"late"), "dropped"
    assert pair.link.unsent == 0
    with pytest.raises(LinkClosed):
        await pair.link.flush()
    pair.link.pause()
    pair.link.resume()
    await pair.link.say_goodbye(4400, "late")
    pair.link.abort()


async def test_a_half_closed_peer_gets_what_it_asked_for(plain_pair: Pair) -> None:
    peer = await plain_pair.up()
    assert isinstance(peer, trio.SocketStream)
    echo(plain_pair)
    await peer.send_all(b"hello")
    await peer.send_eof()
    assert await ends(peer) == b"hello"
    await plain_pair.ear.until_told("lost")


async def test_the_peer_resets(pair: Pair) -> None:
    await pair.up()
    reset(pair.peer.socket)
    reason = await pair.ear.until_told("lost")
    assert reason == "Connection reset by peer"
    assert pair.link.fd == -1


async def test_the_peer_resets_while_paused(pair: Pair) -> None:
    await pair.up()
    pair.link.pause()
    reset(pair.peer.socket)
    await pair.ear.until_told("lost")


async def test_the_peer_resets_while_flushing(pair: Pair) -> None:
    await pair.up()
    await stuck(pair)
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(flush_in_vain, pair)
            await trio.testing.wait_all_tasks_blocked()
            reset(pair.peer.socket)
    await pair.ear.until_told("lost")


async def test_send_on_a_dead_socket_is_no_error(plain_pair: Pair) -> None:
    """Before the reactor has had its turn to tell."""
    await plain_pair.up()
    plain_pair.link.pause()
    plain_pair.link.shutdown()
    assert not plain_pair.link.send(b"data")
    with trio.fail_after(PATIENCE), pytest.raises(LinkClosed, match="Broken pipe"):
        await plain_pair.link.flush()


async def test_abort_frees_the_descriptor_at_once_and_tells_nothing(pair: Pair) -> None:
    peer = await pair.up()
    await peer.send_all(b"unread")
    before = descriptors()
    pair.link.abort()
    assert descriptors() == before - 1
    pair.link.abort()
    await trio.testing.wait_all_tasks_blocked(0.01)
    assert not pair.ear.told
    assert pair.reactor.statistics().registered == 0


async def test_abort_while_flushing(pair: Pair) -> None:
    peer = await pair.up()
    await stuck(pair)
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(flush_in_vain, pair)
            await trio.testing.wait_all_tasks_blocked()
            pair.link.abort()
    # What was cut short does not look complete.
    with pytest.raises((trio.BrokenResourceError, OSError)):
        await ends(peer)


async def test_abort_from_within_feed(pair: Pair) -> None:
    peer = await pair.up()
    pair.ear.on_feed = lambda _data: pair.link.abort()
    await peer.send_all(b"x" * 50_000)
    await pair.ear.until(lambda: pair.link.fd == -1)
    await trio.testing.wait_all_tasks_blocked()
    assert not pair.ear.told


async def test_44_an_exception_in_feed_ends_this_link_alone(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    peer = await pair.up()

    def fail(_data: bytes) -> None:
        raise RuntimeError("a bug")

    pair.ear.on_feed = fail
    with caplog.at_level(logging.CRITICAL, "gateway.link"):
        await peer.send_all(b"x")
        assert await pair.ear.until_told("close") == 4401
    await peer.send_all(b"y")
    await trio.testing.wait_all_tasks_blocked(0.01)
    assert pair.ear.heard == b"x"
    assert pair.link.send(b"last words")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pair.link.say_goodbye, 4401, "")
        assert await ends(peer) == b"last words"
        await peer.aclose()


async def test_goodbye_waits_until_the_peer_ends_too(pair: Pair) -> None:
    peer = await pair.up()
    assert not pair.link.send(BIG)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pair.link.say_goodbye, 4400, "bye")
        await trio.testing.wait_all_tasks_blocked()
        await peer.send_all(b"crossing" * 1000)  # unread bytes would make the kernel send RST and lose our last words
        assert await ends(peer) == BIG
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert nursery.child_tasks, "the peer has not ended"
        await peer.send_all(b"still crossing") if pair.tls is None else None
        await peer.aclose()
    assert not pair.ear.told
    assert not pair.ear.heard


async def test_goodbye_resumes_a_paused_link(pair: Pair) -> None:
    peer = await pair.up()
    pair.link.pause()
    await peer.send_all(b"unread")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pair.link.say_goodbye, 4400, "bye")
        assert await ends(peer) == b""
        await peer.aclose()
    assert not pair.ear.heard


async def test_goodbye_to_a_peer_that_resets(pair: Pair) -> None:
    await pair.up()
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pair.link.say_goodbye, 4400, "bye")
            await trio.testing.wait_all_tasks_blocked()
            reset(pair.peer.socket)


async def test_goodbye_to_a_peer_that_never_reads_is_cut_by_the_caller(pair: Pair) -> None:
    await pair.up()
    await stuck(pair)
    with trio.move_on_after(0.02) as scope:
        await pair.link.say_goodbye(4303, "slow")
    assert scope.cancelled_caught
    pair.link.abort()
    assert pair.link.fd == -1


async def test_abort_ends_a_goodbye(pair: Pair) -> None:
    await pair.up()
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pair.link.say_goodbye, 4400, "bye")
            await trio.testing.wait_all_tasks_blocked()
            pair.link.abort()


async def test_open_after_abort(pair: Pair) -> None:
    pair.link.abort()
    with pytest.raises(LinkClosed):
        await pair.link.open()


@pytest.mark.parametrize("encrypted", [False, True])
async def test_45_cancelled_anywhere_leaves_nothing(encrypted: bool, tls: Certificates) -> None:
    """The link's whole life under a connection that is cancelled at its nth pass of the scheduler."""
    before = descriptors()
    async with running_reactor() as reactor:
        for passes in range(40):
            ours, theirs = connected()
            link = link_around(ours, reactor, tls if encrypted else None)
            peer = trio.SocketStream(trio.socket.from_stdlib_socket(theirs))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_talk, peer, tls if encrypted else None)
                with trio.CancelScope() as scope:
                    nursery.start_soon(_cancel_after, scope, passes)
                    try:
                        link.attach(Ear())
                        await link.open()
                        link.send(BIG)
                        await link.flush()
                        await link.say_goodbye(4400, "")
                    finally:
                        link.abort()
                assert link.fd == -1
                nursery.cancel_scope.cancel()
            await trio.aclose_forcefully(peer)
        assert reactor.statistics().registered == 0
    assert descriptors() == before


async def _talk(peer: trio.SocketStream, tls: Certificates | None) -> None:
    stream: trio.abc.Stream = peer
    if tls is not None:
        stream = trio.SSLStream(peer, tls.client, server_hostname="localhost", https_compatible=True)
    try:
        while await stream.receive_some(1_000_000):
            pass
        await stream.aclose()
    except trio.BrokenResourceError:
        pass


async def _cancel_after(scope: trio.CancelScope, passes: int) -> None:
    for _ in range(passes):
        await trio.lowlevel.checkpoint()
    scope.cancel()


@pytest.mark.parametrize("encrypted", [False, True])
async def test_46_links_come_and_go_and_nothing_is_kept(encrypted: bool, tls: Certificates) -> None:
    async with running_reactor() as reactor:

        async def come_and_go(rounds: int) -> None:
            for _ in range(rounds):
                ours, theirs = connected()
                link = link_around(ours, reactor, tls if encrypted else None)
                ear = Ear()
                link.attach(ear)
                theirs.send(b"\x16\x03\x01 half a hello")
                theirs.close()
                try:
                    await link.open()
                    await ear.until_told("lost")
                except LinkClosed:
                    link.abort()

        await come_and_go(20)
        before = descriptors()
        gc.collect()
        objects = len(gc.get_objects())
        gc.disable()
        try:
            await come_and_go(300)
            kept = len(gc.get_objects()) - objects
        finally:
            gc.enable()
        assert kept < 300, "less than one object for each: no cycle keeps a link"
        assert descriptors() == before
        assert reactor.statistics().registered == 0


def test_a_link_is_lean() -> None:
    """No dict per link: ten thousands of them are idle."""
    ours, theirs = connected()
    with ours, theirs:
        link = TlsLink.__new__(TlsLink)
        with pytest.raises(AttributeError):
            link.anything = 1  # type: ignore[attr-defined]
