"""The extension below the pump: batches, segmentation, and what the kernel refuses."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest

from gateway._datagrams import DATAGRAM_MOST, Receiver, Sender
from gateway.transports.quic.addresses import address_bytes


@pytest.fixture(params=["127.0.0.1", "::1"])
def ends(request: pytest.FixtureRequest) -> Iterator[tuple[socket.socket, socket.socket]]:
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as ours, socket.socket(family, socket.SOCK_DGRAM) as theirs:
        for each in (ours, theirs):
            each.bind((request.param, 0))
            each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_000_000)
        yield ours, theirs


def udp() -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)


def where(sock: socket.socket) -> bytes:
    host, port = sock.getsockname()[:2]
    return address_bytes(host, port)


def waiting(sock: socket.socket) -> list[bytes]:
    """What can be received without waiting."""
    got = []
    with contextlib.suppress(BlockingIOError):
        while True:
            got.append(sock.recv(100))
    return got


def all_of(receiver: Receiver) -> list[tuple[bytes, bytes]]:
    got: list[tuple[bytes, bytes]] = []
    while batch := receiver.receive():
        got += batch
    return got


@pytest.mark.parametrize("segmenting", [True, False])
def test_what_is_sent_arrives_as_it_was(ends: tuple[socket.socket, socket.socket], segmenting: bool) -> None:
    ours, theirs = ends
    sender, receiver = Sender(ours.fileno(), segmenting=segmenting), Receiver(theirs.fileno())
    sizes = [1200] * 70 + [1199, 1200, 30, 30, 30, 1200, 1, 1200, 1200, 700, 700, 701]
    sent = [bytes([number % 256]) * size for number, size in enumerate(sizes)]
    for data in sent:
        assert sender.add(data, where(theirs))
    assert sender.pending == len(sent)
    assert sender.flush()
    assert sender.pending == 0
    assert all_of(receiver) == [(data, where(ours)) for data in sent]
    assert sender.datagrams == receiver.datagrams == len(sent)
    assert sender.octets == receiver.octets == sum(sizes)
    if segmenting and sender.segmenting:
        assert sender.segmented >= 70
        assert sender.batches == 1
    else:
        assert sender.segmented == 0


def test_several_addresses_in_one_batch(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    sender, receiver, back = Sender(ours.fileno()), Receiver(theirs.fileno()), Receiver(ours.fileno())
    for number in range(200):
        sender.add(b"%d" % number, where(theirs if number % 3 else ours))
    assert sender.flush()
    assert [data for data, _ in all_of(receiver)] == [b"%d" % number for number in range(200) if number % 3]
    assert [data for data, _ in all_of(back)] == [b"%d" % number for number in range(0, 200, 3)]


def test_what_is_too_long_is_dropped_and_counted(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    receiver = Receiver(theirs.fileno())
    for size in (DATAGRAM_MOST, DATAGRAM_MOST + 1, 5, 0):
        ours.sendto(bytes(size), theirs.getsockname())
    assert [len(data) for data, _ in all_of(receiver)] == [DATAGRAM_MOST, 5, 0]
    assert receiver.truncated == 1
    assert receiver.receive() == []


def test_a_datagram_that_the_kernel_will_not_have_holds_up_no_other() -> None:
    with udp() as ours, udp() as theirs:
        theirs.bind(("127.0.0.1", 0))
        sender, receiver = Sender(ours.fileno()), Receiver(theirs.fileno())
        sender.add(b"first", where(theirs))
        sender.add(b"to everybody", address_bytes("255.255.255.255", 9))  # EACCES
        sender.add(b"to no port", address_bytes("127.0.0.1", 0))  # EINVAL
        sender.add(bytes(66_000), where(theirs))  # EMSGSIZE
        sender.add(b"last", where(theirs))
        assert sender.flush()
        assert [data for data, _ in all_of(receiver)] == [b"first", b"last"]
        assert (sender.dropped, sender.refused, sender.datagrams) == (3, 3, 2)


def test_segmentation_that_fails_is_given_up() -> None:
    with udp() as ours, udp() as theirs:
        theirs.bind(("127.0.0.1", 0))
        sender, receiver = Sender(ours.fileno()), Receiver(theirs.fileno())
        if not sender.segmenting:
            pytest.skip("this kernel cannot segment")
        for _ in range(3):
            sender.add(bytes(1200), address_bytes("255.255.255.255", 9))
        sender.add(b"last", where(theirs))
        assert sender.flush()
        assert not sender.segmenting
        assert sender.dropped == 3
        assert [data for data, _ in all_of(receiver)] == [b"last"]


def test_a_full_kernel_is_asked_again_and_nothing_is_lost_nor_turned_around() -> None:
    """A datagram socket of the other kind, whose receiver holds up its sender."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        sender = Sender(ours.fileno(), most=2_000, segmenting=False)
        assert not sender.segmenting
        sent = [b"%d" % number for number in range(1_500)]
        for data in sent:
            assert sender.add(data, b"")
        got: list[bytes] = []
        assert not sender.flush()
        assert sender.refused == 1
        while True:
            done = sender.flush()
            got += waiting(theirs)
            if done:
                break
        assert got == sent
        assert sender.dropped == 0


def test_what_waits_is_bounded() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs:
        sender = Sender(ours.fileno(), most=10)
        assert [sender.add(b"x", b"") for _ in range(12)] == [True] * 10 + [False] * 2
        assert sender.overflowed == 2
        assert sender.flush()
        assert sender.add(b"x", b"")


def test_a_socket_that_is_gone_raises_nothing() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours:
        theirs.close()
        sender, receiver = Sender(ours.fileno()), Receiver(ours.fileno())
        sender.add(b"x", b"")
        assert sender.flush()
        assert sender.dropped == 1
        assert receiver.receive() == []


@pytest.mark.parametrize(("data", "address"), [(None, b""), ("text", b""), (b"", None), (b"", bytes(129))])
def test_what_is_no_datagram(data: object, address: object) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, pytest.raises((TypeError, ValueError)):
        Sender(sock.fileno()).add(data, address)  # type: ignore[arg-type]
