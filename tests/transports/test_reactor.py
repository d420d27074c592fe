"""The reactor: who is called, who is not, and who gets a turn beside it."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from functools import partial

import pytest
import trio

from gateway.transports.reactor import SLICE, Reactor
from tests.transports.harness import PATIENCE, connected, descriptors, reset, running_reactor


@pytest.fixture
async def reactor() -> AsyncIterator[Reactor]:
    async with running_reactor() as made:
        yield made


@pytest.fixture
def pairs() -> Iterator[Callable[[], tuple[socket.socket, socket.socket]]]:
    """Makes Unix socket pairs: ours, the peer's."""
    with ExitStack() as stack:

        def make() -> tuple[socket.socket, socket.socket]:
            ours, peer = socket.socketpair()
            ours.setblocking(False)
            peer.setblocking(False)
            stack.enter_context(ours)
            stack.enter_context(peer)
            return ours, peer

        yield make


Pairs = Callable[[], tuple[socket.socket, socket.socket]]


async def passes(count: int) -> None:
    """So many passes of the scheduler."""
    for _ in range(count):
        await trio.lowlevel.checkpoint()


async def until(true: Callable[[], bool]) -> None:
    with trio.fail_after(PATIENCE):
        while not true():
            await trio.lowlevel.checkpoint()


async def test_calls_until_all_is_read(reactor: Reactor, pairs: Pairs) -> None:
    ours, peer = pairs()
    read: list[bytes] = []
    reactor.register(ours.fileno(), lambda: read.append(ours.recv(2)))
    peer.send(b"abcde")
    await until(lambda: b"".join(read) == b"abcde")
    assert read == [b"ab", b"cd", b"e"]
    reactor.unregister(ours.fileno())
    reactor.unregister(ours.fileno())
    peer.send(b"more")
    await passes(5)
    assert len(read) == 3


async def test_pause_and_resume(reactor: Reactor, pairs: Pairs) -> None:
    ours, peer = pairs()
    read: list[bytes] = []
    reactor.register(ours.fileno(), lambda: read.append(ours.recv(100)))
    reactor.pause(ours.fileno())
    reactor.pause(ours.fileno())
    assert reactor.statistics().paused == 1
    peer.send(b"waits")
    await passes(20)
    assert not read
    reactor.resume(ours.fileno())
    reactor.resume(ours.fileno())
    await until(lambda: read == [b"waits"])
    assert reactor.statistics().paused == 0
    reactor.pause(ours.fileno())
    reactor.unregister(ours.fileno())
    assert reactor.statistics().paused == 0


async def test_paused_from_within_its_callback(reactor: Reactor, pairs: Pairs) -> None:
    ours, peer = pairs()
    read: list[bytes] = []

    def take() -> None:
        read.append(ours.recv(1))
        reactor.pause(ours.fileno())

    reactor.register(ours.fileno(), take)
    peer.send(b"abc")
    await until(lambda: len(read) == 1)
    await passes(20)
    assert read == [b"a"]
    reactor.unregister(ours.fileno())


async def test_registering_again_replaces_and_resumes(reactor: Reactor, pairs: Pairs) -> None:
    ours, peer = pairs()
    old: list[bytes] = []
    new: list[bytes] = []
    reactor.register(ours.fileno(), lambda: old.append(ours.recv(100)))
    reactor.pause(ours.fileno())
    reactor.register(ours.fileno(), lambda: new.append(ours.recv(100)))
    peer.send(b"x")
    await until(lambda: bool(new))
    assert not old
    assert reactor.statistics().registered == 1
    reactor.unregister(ours.fileno())


async def test_a_callback_may_unregister_another_of_its_batch(reactor: Reactor, pairs: Pairs) -> None:
    made = [pairs() for _ in range(2)]
    called: list[int] = []

    def callback(number: int) -> None:
        called.append(number)
        for ours, _ in made:
            reactor.unregister(ours.fileno())

    for number, (ours, peer) in enumerate(made):
        reactor.register(ours.fileno(), partial(callback, number))
        peer.send(b"x")
    await until(lambda: bool(called))
    await passes(20)
    assert len(called) == 1


async def test_an_exception_is_contained(reactor: Reactor, pairs: Pairs, caplog: pytest.LogCaptureFixture) -> None:
    broken, to_broken = pairs()
    ours, peer = pairs()
    read: list[bytes] = []

    def fail() -> None:
        raise RuntimeError("a bug")

    reactor.register(broken.fileno(), fail)
    reactor.register(ours.fileno(), lambda: read.append(ours.recv(100)))
    to_broken.send(b"x")
    with caplog.at_level(logging.CRITICAL, "gateway.reactor"):
        await until(lambda: reactor.statistics().failures == 1)
    peer.send(b"still here")
    await until(lambda: read == [b"still here"])
    await passes(20)
    assert reactor.statistics().failures == 1
    assert reactor.statistics().registered == 1
    reactor.unregister(ours.fileno())


async def test_others_get_their_turn_while_sockets_are_always_ready(reactor: Reactor, pairs: Pairs) -> None:
    made = [pairs() for _ in range(200)]  # more than one batch of the poll
    called = dict.fromkeys(range(len(made)), 0)

    def never_reads(number: int) -> None:
        called[number] += 1

    for number, (ours, peer) in enumerate(made):
        reactor.register(ours.fileno(), partial(never_reads, number))
        peer.send(b"x")
    with trio.fail_after(PATIENCE):
        await passes(50)
    assert min(called.values()) > 0
    assert max(called.values()) - min(called.values()) <= 2, "the kernel's ready list rotates"
    for ours, _ in made:
        reactor.unregister(ours.fileno())


async def test_a_slow_callback_ends_the_slice(reactor: Reactor, pairs: Pairs) -> None:
    made = [pairs() for _ in range(10)]
    turns: list[str] = []

    def slow(sock: socket.socket) -> None:
        time.sleep(SLICE)
        turns.append("callback")
        sock.recv(100)

    for ours, peer in made:
        reactor.register(ours.fileno(), partial(slow, ours))
        peer.send(b"x")
    with trio.fail_after(PATIENCE):
        while turns.count("callback") < 10:
            turns.append("other")
            await trio.lowlevel.checkpoint()
    text = "".join(turn[0] for turn in turns)
    assert "ccc" not in text  # a pass runs its tasks in any order
    for ours, _ in made:
        reactor.unregister(ours.fileno())


async def test_a_batch_that_was_cut_short_goes_on_with_who_is_left(reactor: Reactor) -> None:
    """Also for what epoll tells once only: the error of a paused descriptor."""
    slow, to_slow = connected()
    broken, to_broken = connected()
    told: list[str] = []

    def block() -> None:
        time.sleep(2 * SLICE)
        told.append("slow")
        slow.recv(100)

    reactor.register(slow.fileno(), block)
    reactor.register(broken.fileno(), lambda: told.append("broken"))
    reactor.pause(broken.fileno())
    to_slow.send(b"x")
    reset(to_broken)
    await until(lambda: len(told) >= 2)
    await passes(20)
    assert sorted(told) == ["broken", "slow"]
    for sock in (slow, broken):
        reactor.unregister(sock.fileno())
        sock.close()
    to_slow.close()


async def test_a_paused_peer_that_resets_is_told_once(reactor: Reactor) -> None:
    ours, peer = connected()
    calls: list[int] = []
    reactor.register(ours.fileno(), lambda: calls.append(1))
    reactor.pause(ours.fileno())
    reset(peer)
    await until(lambda: bool(calls))
    polls = reactor.statistics().polls
    await passes(50)
    assert len(calls) == 1
    assert reactor.statistics().polls <= polls + 1, "an error must not be reported for ever"
    reactor.unregister(ours.fileno())
    ours.close()


async def test_a_paused_peer_that_ends_is_not_told_and_does_not_spin(reactor: Reactor) -> None:
    ours, peer = connected()
    calls: list[bytes] = []
    reactor.register(ours.fileno(), lambda: calls.append(ours.recv(100)))
    reactor.pause(ours.fileno())
    peer.send(b"last words")
    peer.close()
    await passes(50)
    assert not calls
    assert reactor.statistics().polls <= 2
    reactor.resume(ours.fileno())
    await until(lambda: len(calls) >= 2)
    assert calls[:2] == [b"last words", b""]
    reactor.unregister(ours.fileno())
    ours.close()


async def test_after_the_end_nothing_is_left(pairs: Pairs) -> None:
    before = descriptors()
    reactor = Reactor()
    ours, _peer = pairs()
    with trio.move_on_after(0):
        reactor.register(ours.fileno(), lambda: None)
        reactor.pause(ours.fileno())
        await reactor.run()
    assert descriptors() == before + 2
    reactor.pause(ours.fileno())
    reactor.resume(ours.fileno())
    reactor.unregister(ours.fileno())
    reactor.register(ours.fileno(), lambda: None)
    assert reactor.statistics().registered == 0
    with pytest.raises(RuntimeError, match="make a new one"):
        await reactor.run()
