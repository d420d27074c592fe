"""The layout of connection ids, and that the kernel steers by it."""

from __future__ import annotations

import socket

import pytest

from gateway.transports.quic.connection_ids import ConnectionIds
from gateway.transports.quic.steering import steer
from tests.transports.quic.client import open_client
from tests.transports.quic.world import open_world

SERVER_ID = bytes(range(1, 9))


def test_the_layout() -> None:
    cid = ConnectionIds(b"k" * 32, worker=5).issue()
    assert (len(cid), cid[0], cid[1]) == (10, 0xE9, 5)
    balanced = ConnectionIds(b"k" * 32, worker=5, server_id=SERVER_ID).issue()
    assert (len(balanced), balanced[0], balanced[1:9], balanced[9]) == (18, 0x11, SERVER_ID, 5)


@pytest.mark.parametrize("server_id", [b"", SERVER_ID])
def test_the_first_byte_is_quic_lbs(server_id: bytes) -> None:
    cid = ConnectionIds(b"k" * 32, server_id=server_id).issue()
    assert cid[0] & 0x1F == len(cid) - 1
    assert cid[0] >> 5 == (0 if server_id else 7)


def test_no_two_are_alike() -> None:
    ids = ConnectionIds(b"k" * 32)
    assert len({ids.issue() for _ in range(10_000)}) == 10_000


def test_whose_an_id_is() -> None:
    ids = ConnectionIds(b"k" * 32, worker=1)
    cid = ids.issue()
    assert ids.is_ours(cid)
    assert ids.is_ours(cid, 2)
    assert not ConnectionIds(b"k" * 32, worker=0).is_ours(cid, 2)
    assert ConnectionIds(b"k" * 32, worker=0).is_ours(cid, 1)
    assert not ids.is_ours(cid[:-1])
    assert not ids.is_ours(b"\x00" + cid[1:])
    assert not ConnectionIds(b"k" * 32, worker=1, server_id=SERVER_ID).is_ours(cid)


def test_reset_tokens_follow_from_the_key_and_the_id_alone() -> None:
    ids = ConnectionIds(b"k" * 32)
    cid, other = ids.issue(), ids.issue()
    assert ConnectionIds(b"k" * 32, worker=3).reset_token(cid) == ids.reset_token(cid)
    assert len({ids.reset_token(cid), ids.reset_token(other), ConnectionIds(b"l" * 32).reset_token(cid)}) == 3
    assert len(ids.reset_token(cid)) == 16


@pytest.mark.parametrize(("worker", "server_id"), [(-1, b""), (256, b""), (0, b"short")])
def test_what_cannot_be_is_refused(worker: int, server_id: bytes) -> None:
    with pytest.raises(ValueError, match="must"):
        ConnectionIds(b"k" * 32, worker=worker, server_id=server_id)


@pytest.mark.parametrize("server_id", ["", SERVER_ID.hex()])
async def test_a_connection_over_ids_of_either_layout(server_id: str) -> None:
    async with open_world(server_id=server_id) as world, open_client(world.server) as client:
        await client.say(b"hello")
        await client.hear(b"hello")


@pytest.mark.parametrize("server_id", [b"", SERVER_ID])
def test_the_kernel_brings_a_datagram_to_its_worker_wherever_it_comes_from(server_id: bytes) -> None:
    workers = [ConnectionIds(b"k" * 32, worker=number, server_id=server_id) for number in range(3)]
    port = 0
    socks: list[socket.socket] = []
    try:
        for _ in workers:
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            socks.append(sock)
            sock.settimeout(5)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind(("127.0.0.1", port))
            port = sock.getsockname()[1]
        steer(socks[0], workers[0], len(workers))
        for _ in range(8):
            for ids, sock in zip(workers, socks, strict=True):
                cid = ids.issue()
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                    for packet in (
                        b"\x41" + cid + b"short",
                        b"\xe1\x00\x00\x00\x01" + bytes([len(cid)]) + cid + b"long",
                    ):
                        client.sendto(packet, ("127.0.0.1", port))
                        assert sock.recv(100) == packet
    finally:
        for sock in socks:
            sock.close()
