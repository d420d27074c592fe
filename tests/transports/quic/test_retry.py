"""T11 to T13: amplification, floods of Initials, Retry tokens."""

from __future__ import annotations

import resource
from collections.abc import Iterator

import pytest
import trio
import trio.testing
from aioquic.quic.connection import QuicConnection
from aioquic.quic.packet import QuicErrorCode
from hypothesis import given
from hypothesis import strategies as st

from gateway.transports.quic.certificates import Identity
from gateway.transports.quic.peer import QuicPeer
from gateway.transports.quic.retry import LIFETIME, RetryTokens
from gateway.transports.quic.statistics import Drop
from tests.transports.quic.client import Client, client_configuration, open_client
from tests.transports.quic.world import identity, open_world

HERE = b"\x02\x00\x30\x39\x7f\x00\x00\x01"
THERE = b"\x02\x00\x30\x39\x7f\x00\x00\x02"


# -- tokens --------------------------------------------------------------------------------------------------


@pytest.fixture
def tokens() -> RetryTokens:
    return RetryTokens(b"k" * 32)


@pytest.mark.parametrize("now", [1_000.0, 1_000.0 + LIFETIME])
def test_t13_a_token_is_good_once(tokens: RetryTokens, now: float) -> None:
    token = tokens.issue(HERE, b"original", b"retried", 1_000.0)
    assert tokens.redeem(token, HERE, b"retried", now) == b"original"
    assert tokens.redeem(token, HERE, b"retried", now) is None


@pytest.mark.parametrize(
    ("address", "retried", "now"),
    [
        (THERE, b"retried", 1_000.0),
        (HERE[:2] + b"\x30\x3a" + HERE[4:], b"retried", 1_000.0),
        (HERE, b"another", 1_000.0),
        (HERE, b"retried", 1_000.1 + LIFETIME),
        (HERE, b"retried", 999.0),
    ],
    ids=["address", "port", "connection id", "too old", "of the future"],
)
def test_t13_a_token_of_somebody_else_or_too_old(
    tokens: RetryTokens, address: bytes, retried: bytes, now: float
) -> None:
    token = tokens.issue(HERE, b"original", b"retried", 1_000.0)
    assert tokens.redeem(token, address, retried, now) is None


def test_t13_a_token_of_another_key(tokens: RetryTokens) -> None:
    token = RetryTokens(b"l" * 32).issue(HERE, b"original", b"retried", 0.0)
    assert tokens.redeem(token, HERE, b"retried", 0.0) is None


@given(st.binary(max_size=100))
def test_t13_a_made_up_token(data: bytes) -> None:
    assert RetryTokens(b"k" * 32).redeem(data, HERE, b"retried", 0.0) is None


def test_t13_used_tokens_are_remembered_as_long_as_they_live_and_bounded() -> None:
    tokens = RetryTokens(b"k" * 32, remembered=100)
    issued = [tokens.issue(HERE, b"original", b"retried", 50.0) for _ in range(150)]
    assert sum(tokens.redeem(each, HERE, b"retried", 50.0) is not None for each in issued) == 100
    late = tokens.issue(HERE, b"original", b"retried", 59.0)
    assert tokens.redeem(late, HERE, b"retried", 61.0) == b"original"
    for now in (61.0, 65.0, 68.9):
        assert tokens.redeem(late, HERE, b"retried", now) is None
    assert tokens.redeem(issued[0], HERE, b"retried", 60.0) is None
    fresh = tokens.issue(HERE, b"original", b"retried", 100.0)
    assert tokens.redeem(fresh, HERE, b"retried", 100.0) == b"original"
    assert tokens.redeem(fresh, HERE, b"retried", 101.0) is None


# -- the endpoint --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("server_id", ["", "0123456789abcdef"])
async def test_a_client_passes_a_retry(server_id: str) -> None:
    async with open_world(retry_threshold=0, server_id=server_id) as world, open_client(world.server) as client:
        await client.say(b"hello")
        await client.hear(b"hello")
        assert client.quic._retry_count == 1
        assert world.endpoint.statistics().retries == 1
        assert world.handlers[0].peer.quic._network_paths[0].is_validated


async def test_below_the_threshold_nobody_is_asked() -> None:
    async with open_world(retry_threshold=1) as world, open_client(world.server), open_client(world.server):
        assert world.endpoint.statistics().retries == 0


async def token_of(client: Client) -> bytes:
    """The client's second Initial, with the token of the Retry in it, that it is kept from sending."""
    kept: list[bytes] = []

    def keep(data: bytes) -> bytes | None:
        if client.quic._retry_count:
            kept.append(data)
            return None
        return data

    client.intercept = keep
    client.quic.connect(client.server, trio.current_time())
    await client.flush()
    await client.until(lambda: client.quic._retry_count)
    await client.flush()
    return kept[0]


async def test_t13_a_token_from_another_port_is_refused() -> None:
    async with open_world(retry_threshold=0) as world, open_client(world.server, connect=False) as client:
        initial = await token_of(client)
        async with open_client(world.server, connect=False) as thief:
            await thief.throw(initial)
            await world.until(lambda: world.endpoint.statistics().dropped[Drop.INVALID_TOKEN.value] == 1)
            assert world.endpoint.statistics().accepted == 0
            await world.until(lambda: len(client.received) == 1)


async def test_t13_a_replayed_token_is_refused_and_the_client_told() -> None:
    async with open_world(retry_threshold=0) as world, open_client(world.server, connect=False) as client:
        initial = await token_of(client)
        client.intercept = lambda data: data
        await client.throw(initial)
        await client.connected()
        world.handlers[0].peer.abort()
        await client.throw(initial)
        await world.until(lambda: world.endpoint.statistics().dropped[Drop.INVALID_TOKEN.value] == 1)
        assert world.endpoint.statistics().refusals == 1
        assert world.endpoint.statistics().accepted == 1


async def test_t13_what_the_refused_client_hears() -> None:
    async with open_world(retry_threshold=0) as world, open_client(world.server, connect=False) as client:
        initial = await token_of(client)
        client.intercept = lambda data: data
        await client.throw(initial[:60] + bytes([initial[60] ^ 1]) + initial[61:])  # a bit of its token
        event = await client.ended()
        assert event.error_code == QuicErrorCode.INVALID_TOKEN
        assert world.endpoint.statistics().accepted == 0


async def test_a_token_for_later_of_another_server_is_no_offence() -> None:
    async with open_world() as world, open_client(world.server, token=b"of another server") as client:
        await client.say(b"hello")
        await client.hear(b"hello")


def resident() -> int:
    """Bytes of memory of this process."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


# -- floods --------------------------------------------------------------------------------------------------


def initials(count: int) -> Iterator[bytes]:
    """First packets of so many clients."""
    for _ in range(count):
        quic = QuicConnection(configuration=client_configuration())
        quic.connect(("127.0.0.1", 1), 0.0)
        yield quic.datagrams_to_send(0.0)[0][0]


async def test_t12_ten_thousand_initials_cost_less_than_ten_megabytes() -> None:
    """Each from a client of its own; packets are made from one by another destination, or it would take a minute."""
    async with open_world(handshake_timeout=60) as world, open_client(world.server) as innocent:
        endpoint = world.endpoint
        template = next(initials(1))
        now = trio.current_time()
        started = [*initials(80)]
        before = resident()
        for data in started:
            endpoint.take(data, HERE, now)
        for number in range(10_000):
            address = HERE[:4] + number.to_bytes(4, "big")
            endpoint.take(template[:6] + number.to_bytes(8, "big") + template[14:], address, now)
            if number % 500 == 0:
                endpoint._pump.flush(now)  # type: ignore[union-attr]
                await trio.lowlevel.checkpoint()
        assert resident() - before < 10_000_000
        told = endpoint.statistics()
        assert told.half_open == 64
        assert told.retries == 10_016
        await innocent.say(b"hello")
        await innocent.hear(b"hello")


async def test_t12_half_open_handshakes_are_bounded_per_address_and_in_all() -> None:
    async with open_world(retry_threshold=1_000, max_half_open=6, max_half_open_per_address=4) as world:
        now = trio.current_time()
        for data in initials(5):
            world.endpoint.take(data, HERE, now)
        assert world.endpoint.statistics().half_open == 4
        for data in initials(3):
            world.endpoint.take(data, THERE, now)
        told = world.endpoint.statistics()
        assert told.half_open == 6
        assert told.dropped[Drop.TOO_MANY_HALF_OPEN.value] == 2


# -- T11 -----------------------------------------------------------------------------------------------------


def long_chain() -> Identity:
    """A certificate whose chain alone is larger than what may answer one Initial."""
    own = identity()
    return Identity(own.chain * 16, own.key)


async def test_t11_one_initial_of_a_forged_address_gets_three_times_its_size_and_then_silence() -> None:
    async with open_world(certificate=long_chain) as world, open_client(world.server, connect=False) as victim:
        (initial,) = initials(1)
        await victim.throw(initial)
        await world.until(lambda: sum(map(len, victim.received)) > 2 * len(initial))
        (peer,) = {each for each in world.endpoint._known.values() if isinstance(each, QuicPeer)}
        for _ in range(4):
            peer.touch()
            await trio.testing.wait_all_tasks_blocked(0.02)
        assert sum(map(len, victim.received)) <= 3 * len(initial)
        await victim.throw(initial)  # and for the next one as much again: there was more to say
        await world.until(lambda: sum(map(len, victim.received)) > 3 * len(initial))
        await trio.testing.wait_all_tasks_blocked(0.02)
        assert sum(map(len, victim.received)) <= 6 * len(initial)


@pytest.mark.parametrize("retry_threshold", [0, 64])
async def test_t11_never_more_than_three_times_what_came_in(retry_threshold: int) -> None:
    open_endpoint = open_world(retry_threshold=retry_threshold)
    async with open_endpoint as world, open_client(world.server, connect=False) as client:
        client.quic.receive_datagram = lambda *_: None  # type: ignore[method-assign]
        client.quic.connect(world.server, trio.current_time())
        await client.flush()
        await world.until(lambda: client.received)
        for _ in range(30):
            await trio.sleep(0.02)
            assert sum(map(len, client.received)) <= 3 * client.sent


@pytest.mark.parametrize(
    "data",
    [
        b"\xc0\x1a\x2a\x3a\x4a\x14" + b"d" * 20 + b"\x14" + b"s" * 20 + bytes(1_200),
        b"\xc0\x1a\x2a\x3a\x4a\xff" + b"d" * 255 + b"\xff" + b"s" * 255 + bytes(1_200),
        b"\x40\xe9\x00" + bytes(40),
        b"\x40\xe9\x00" + bytes(20),
    ],
    ids=["version", "long ids of a version to come", "reset", "reset of a small one"],
)
async def test_t11_answers_without_a_connection_are_smaller_than_what_they_answer(data: bytes) -> None:
    async with open_world() as world, open_client(world.server, connect=False) as client:
        await client.throw(data)
        await world.until(lambda: client.received)
        assert len(client.received[0]) < len(data)


async def test_answers_to_strangers_are_rationed() -> None:
    async with open_world() as world:
        now = trio.current_time()
        for _ in range(1_000):
            world.endpoint.take(b"\x40\xe9\x00" + bytes(40), HERE, now)
        assert world.endpoint.statistics().resets == 200
