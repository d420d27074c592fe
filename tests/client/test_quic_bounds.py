"""What the client keeps of a server's, and sends before it knows: bounded. No network, no server."""

from __future__ import annotations

import datetime
import random
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from aioquic.tls import CipherSuite, SessionTicket

from gateway.client.journal import EARLY_BYTES, Journal
from gateway.client.messages import Receipt
from gateway.client.outgoing import Pending
from gateway.client.quic_engine import Engine
from gateway.client.quic_lanes import DATAGRAMS, WAITING, Framing, Lanes
from gateway.client.quic_pump import Pump
from gateway.client.settings import ClientSettings
from gateway.client.tickets import KEPT, MemoryTickets, Ticket
from gateway.client.trust import Trust
from gateway.protocol.types import AckStatus, Lane

USER = 1001


@asynccontextmanager
async def lanes() -> AsyncIterator[Lanes]:
    """Lanes of a connection that goes nowhere."""
    engine = Engine(
        alpn="x", host="h", trust=Trust(insecure=True), ticket=None, keep_ticket=lambda _: None, incoming_streams=64
    )
    async with trio.open_nursery() as nursery:
        yield Lanes(Pump(engine, socket.AF_INET, ("127.0.0.1", 9), nursery), Framing())


async def test_datagrams_that_nobody_takes_are_dropped() -> None:
    async with lanes() as each:
        for number in range(DATAGRAMS + 50):
            each.datagram(b"%d" % number)
        assert await each.receive_from() == (Lane.EPHEMERAL, b"0")
        each.datagram(b"one more has room")
        each.datagram(b"another has not")
        taken = [(await each.receive_from())[1] for _ in range(DATAGRAMS)]
        assert taken[-2:] == [b"%d" % (DATAGRAMS - 1), b"one more has room"]


async def test_streams_that_nobody_accepts_are_refused() -> None:
    async with lanes() as each:
        for number in range(WAITING + 10):
            each.received(3 + 4 * number, bytes((Lane.EPHEMERAL, number)), True)
        for number in range(WAITING):
            assert await (await each.accept_stream()).receive_some() == bytes((number,))
        with trio.move_on_after(0) as scope:
            await each.accept_stream()
        assert scope.cancelled_caught


async def test_a_stream_of_no_lane_is_refused() -> None:
    async with lanes() as each:
        each.received(3, b"\x07abc", False)
        each.received(3, b"def", True)
        with trio.move_on_after(0) as scope:
            await each.accept_stream()
        assert scope.cancelled_caught


def journal(count: int, size: int = 10) -> Journal:
    found = Journal(ClientSettings(), 0, random.random)
    found.user_id = USER
    for number in range(count):
        found.outgoing.add(Pending(f"m{number}", 1002, 0, "x" * size, 0, 1, AckStatus.STORED))
    return found


def test_early_messages_are_few_and_in_order() -> None:
    book = journal(100, 500)
    early = book.early(USER)
    assert EARLY_BYTES - 700 < len(early.messages) <= EARLY_BYTES
    assert early.last_seq == 1 + early.messages.count(b"x" * 500)
    book.outgoing.logged_in()
    frames = [book.outgoing.next_frame(seq, 1) for seq in range(100)]
    assert None not in frames  # nobody accepted any: all are written again
    assert book.outgoing.resent == early.last_seq - 1


def test_what_was_accepted_early_is_not_written_again() -> None:
    book = journal(3)
    book.early(USER)
    book.outgoing.acknowledged(Receipt(msg_id="m1", status=AckStatus.ACCEPTED), 0.0)
    book.outgoing.logged_in()
    written = [book.outgoing.next_frame(seq, 1) for seq in (5, 6, 7)]
    assert [b"m0" in (written[0] or b""), b"m2" in (written[1] or b"")] == [True, True]
    assert written[2] is None
    book.outgoing.logged_in()  # the next link, without early data: now it is
    assert sum(book.outgoing.next_frame(seq, 1) is not None for seq in range(5)) == 3


def test_nothing_goes_out_early_for_somebody_else() -> None:
    book = journal(3)
    assert book.early(USER + 1).messages == b""
    book.user_id = 0
    assert book.early(0).messages == b""
    assert book.early(USER).control


def ticket(name: bytes, valid: bool = True) -> Ticket:
    now = datetime.datetime.now(datetime.UTC)
    until = now + datetime.timedelta(hours=1 if valid else -1)
    session = SessionTicket(
        age_add=0,
        cipher_suite=CipherSuite.AES_128_GCM_SHA256,
        not_valid_after=until,
        not_valid_before=now - datetime.timedelta(hours=2),
        resumption_secret=b"",
        server_name="h",
        ticket=name,
    )
    return Ticket(session=session)


def test_tickets_serve_once_newest_first_and_few_are_kept() -> None:
    store = MemoryTickets()
    for number in range(KEPT + 2):
        store.put("a", ticket(b"%d" % number, valid=number != 4))
    store.put("b", ticket(b"other"))
    taken = [each.session.ticket for _ in range(9) if (each := store.take("a")) is not None]
    assert taken == [b"5", b"3", b"2"]
    assert store.take("b") is not None
    assert store.take("b") is None
