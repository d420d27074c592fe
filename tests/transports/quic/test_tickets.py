"""The tickets that a node has issued: single use, bounded in number and age."""

from __future__ import annotations

import datetime

import pytest
from aioquic.tls import CipherSuite, SessionTicket

from gateway.transports.quic.tickets import Tickets, name_of


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def ticket(label: bytes) -> SessionTicket:
    now = datetime.datetime.now(datetime.UTC)
    return SessionTicket(
        age_add=1,
        cipher_suite=CipherSuite.AES_128_GCM_SHA256,
        not_valid_after=now + datetime.timedelta(days=1),
        not_valid_before=now,
        resumption_secret=b"s" * 32,
        server_name="",
        ticket=label,
    )


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_ticket_serves_once(clock: Clock) -> None:
    tickets = Tickets(10, clock=clock)
    first = ticket(b"a")
    tickets.keep(first)
    assert tickets.redeem(b"a") is first
    assert tickets.redeem(b"a") is None
    assert tickets.statistics() == {"kept": 0, "issued": 1, "redeemed": 1, "refused": 1}


def test_a_name_is_known_to_both_sides_and_opens_nothing(clock: Clock) -> None:
    tickets = Tickets(10, clock=clock)
    name = tickets.keep(ticket(b"a"))
    assert name == name_of(b"a")
    assert tickets.redeem(name.encode()) is None


def test_the_oldest_goes_when_there_are_too_many(clock: Clock) -> None:
    tickets = Tickets(3, clock=clock)
    for label in (b"a", b"b", b"c", b"d", b"e"):
        tickets.keep(ticket(label))
        assert len(tickets) <= 3
    assert tickets.redeem(b"a") is None
    assert tickets.redeem(b"b") is None
    assert tickets.redeem(b"c") is not None


def test_what_is_too_old_is_refused_and_dropped(clock: Clock) -> None:
    tickets = Tickets(10, lifetime=60.0, clock=clock)
    tickets.keep(ticket(b"a"))
    tickets.keep(ticket(b"b"))
    clock.now += 59.0
    assert tickets.redeem(b"a") is not None
    clock.now += 1.0
    assert tickets.redeem(b"b") is None
    tickets.keep(ticket(b"c"))
    clock.now += 61.0
    tickets.keep(ticket(b"d"))
    assert len(tickets) == 1


def test_none_are_issued_without_room() -> None:
    assert not Tickets(0).enabled
    assert Tickets(1).enabled
