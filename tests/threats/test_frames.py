"""Threats 3 to 6 against a running node on every link: lengths, cuts, disorder, bombs."""

import random
import struct
from pathlib import Path

import pytest
import trio

from gateway.core.settings import LimitSettings
from gateway.protocol.codes import Code
from gateway.protocol.messages import (
    AuthRequest,
    AuthResponse,
    ChatMessage,
    ErrorMessage,
    Kick,
    MessageAck,
    SyncRequest,
    encode,
)
from gateway.protocol.types import AckStatus, MsgType
from tests.framing.bombs import shared_empty_table, shared_table
from tests.support.node import LINKS, PATIENCE, LinkKind, neighbour, open_running
from tests.support.peer import Peer

pytestmark = pytest.mark.parametrize("kind", LINKS)


def chat(msg_id: str, text: str = "hello") -> bytes:
    return encode(ChatMessage(msg_id=msg_id, to_user=1002, content=text), seq=7, timestamp=1)


async def told(peer: Peer) -> list[int]:
    """The codes that were told until the node closed."""
    with trio.fail_after(PATIENCE):
        said = await peer.closed()
    await peer.hang_up()
    return [each.code for each in said if isinstance(each, ErrorMessage | Kick)]


@pytest.mark.parametrize("length", [8_193, 65_536, 1 << 24, 1 << 31, (1 << 32) - 1])
async def test_t03_a_length_over_the_limit_is_refused_on_the_header(
    tmp_path: Path, kind: LinkKind, length: int
) -> None:
    async with open_running(tmp_path, kind) as running, neighbour(running):
        peer = await running.connect()
        await peer.send_bytes(struct.pack(">IH", length, MsgType.AUTH))
        assert await told(peer) == [Code.FRAME_TOO_LARGE]


async def test_t03_the_limit_is_exact_after_auth(tmp_path: Path, kind: LinkKind) -> None:
    frame = chat("m-1", "x" * 4000)
    limit = len(frame) - 6
    limits = LimitSettings(max_frame=limit, max_frame_before_auth=2048)
    async with open_running(tmp_path, kind, limits=limits) as running, neighbour(running):
        exact, over = await running.seated(1001), await running.seated(1002)
        await exact.send_bytes(frame)
        assert (await exact.receive(MessageAck)).status == AckStatus.ACCEPTED
        await over.send_bytes(struct.pack(">IH", limit + 1, MsgType.MESSAGE))
        assert await told(over) == [Code.FRAME_TOO_LARGE]
        await exact.hang_up()


async def test_t04_however_it_is_cut_the_result_is_the_same(tmp_path: Path, kind: LinkKind) -> None:
    async with open_running(tmp_path, kind) as running, neighbour(running):
        stream = b"".join(chat(f"m-{number}", "x" * number * 50) for number in range(8)) + b"\0\0\0\0\0\0"
        chance = random.Random(4)
        cuts = [[len(stream)], [1] * 200 + [len(stream)], [chance.randrange(1, 300) for _ in range(400)]]
        for user, sizes in enumerate(cuts, 2000):
            peer = await running.seated(user)
            position = 0
            for size in sizes:
                if position < len(stream):
                    await peer.send_bytes(stream[position : position + size])
                    position += size
            accepted: list[str] = []
            with trio.fail_after(PATIENCE):
                while len(accepted) < 8:
                    ack = await peer.receive(MessageAck)
                    if ack.status == AckStatus.ACCEPTED:
                        accepted.append(ack.msg_id)
            assert accepted == [f"m-{number}" for number in range(8)]
            await peer.hang_up()


@pytest.mark.parametrize(
    "unknown",
    [
        struct.pack(">IH", 0, 5_000),
        struct.pack(">IH", 0, 13),
        encode(AuthResponse()),
    ],
)
async def test_t05_an_unknown_type_is_answered_and_the_link_stays(
    tmp_path: Path, kind: LinkKind, unknown: bytes
) -> None:
    async with open_running(tmp_path, kind) as running, neighbour(running):
        peer = await running.seated(1001)
        await peer.send_bytes(unknown)
        assert (await peer.receive(ErrorMessage)).code == Code.UNKNOWN_TYPE
        await peer.send_bytes(chat("m-1"))
        assert (await peer.receive(MessageAck)).status == AckStatus.ACCEPTED
        await peer.hang_up()


async def test_t05_disorder_is_told_by_the_table(tmp_path: Path, kind: LinkKind) -> None:
    auth = encode(AuthRequest(token="t", device_id="phone", platform="ios"))
    version = encode(AuthRequest(token="t", device_id="phone", platform="ios", protocol_version=9))
    mismatch = struct.pack(">IH", len(auth) - 6, MsgType.SYNC) + auth[6:]
    async with open_running(tmp_path, kind) as running, neighbour(running):
        for start, seated, code in (
            (chat("m-1"), False, Code.OUT_OF_ORDER),
            (encode(SyncRequest()), False, Code.OUT_OF_ORDER),
            (auth, True, Code.OUT_OF_ORDER),
            (mismatch, True, Code.TYPE_MISMATCH),
            (struct.pack(">IH", 12, MsgType.MESSAGE) + b"\xff" * 12, True, Code.MALFORMED_FRAME),
        ):
            peer = await running.seated(1001) if seated else await running.connect()
            await peer.send_bytes(start)
            assert await told(peer) == [code]
            if kind in ("ws", "wss"):
                assert peer.close_code == code
        peer = await running.connect()
        await peer.send_bytes(version)
        with trio.fail_after(PATIENCE):
            (answer,) = await peer.closed()
        assert getattr(answer, "code", 0) == Code.VERSION_UNSUPPORTED
        await peer.hang_up()


async def test_t06_bombs_and_mutants_end_their_own_connection_only(tmp_path: Path, kind: LinkKind) -> None:
    chance = random.Random(6)
    async with open_running(tmp_path, kind) as running, neighbour(running):
        for msg_type, body in (shared_empty_table(8_000), shared_table(4_000, b"x" * 8_000)):
            peer = await running.seated(1001)
            await peer.send_bytes(struct.pack(">IH", len(body), MsgType.MESSAGE) + body)
            assert await told(peer) in ([Code.MALFORMED_FRAME], [Code.TYPE_MISMATCH]), msg_type
        for _ in range(40):
            mutant = bytearray(chat("m-1", "some text"))
            for _ in range(chance.randrange(1, 8)):
                mutant[chance.randrange(6, len(mutant))] = chance.randrange(256)
            peer = await running.seated(1001)
            await peer.send_bytes(bytes(mutant) + b"\0\0\0\0\0\0")
            with trio.fail_after(PATIENCE):
                assert await peer.frame() is not None  # an answer, or the reason for the close
            await peer.hang_up()
