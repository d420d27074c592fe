"""Threats 25 to 27 at the node: what a client chooses never names anything of ours."""

from pathlib import Path
from typing import Any

import pytest
import trio

from gateway._framing import Upstream, parse_upstream
from gateway.protocol.codes import Code
from gateway.protocol.messages import AuthRequest, AuthResponse, ChatMessage, encode
from tests.support.node import PATIENCE, neighbour, open_running

HOSTILE = [
    "a\r\nPUB im.logic.upstream 0\r\n",
    "a\nb",
    ">",
    "*",
    "im.*",
    "a.b",
    "a b",
    "a\0b",
    "a:b",
    "{a}",
    "*{1}:x",
    "ä",
    "",
    "x" * 65,
    "x" * 4000,
]


@pytest.mark.parametrize("field", ["device_id", "platform"])
@pytest.mark.parametrize("name", HOSTILE)
async def test_t26_t27_a_hostile_name_is_refused_at_login(tmp_path: Path, field: str, name: str) -> None:
    async with open_running(tmp_path) as running, neighbour(running):
        heard: list[tuple[str, bytes]] = []
        for subject in ("im.logic.upstream", "im.access.*.downstream", "im.logic.undelivered"):
            running.hub.bus.subscribe(subject, lambda subject, data: heard.append((subject, data)))
        peer = await running.connect()
        fields: dict[str, Any] = {"device_id": "phone", "platform": "ios", field: name}
        await peer.send(AuthRequest(token=running.token(1001), **fields))
        with trio.fail_after(PATIENCE):
            (answer,) = await peer.closed()
        assert isinstance(answer, AuthResponse)
        assert answer.code == Code.INVALID_PAYLOAD
        assert heard == []
        assert await running.hub.locations.lookup([1001]) == {}
        await peer.hang_up()


async def test_t26_a_name_of_a_megabyte_is_refused_on_the_header(tmp_path: Path) -> None:
    async with open_running(tmp_path) as running, neighbour(running):
        peer = await running.connect()
        await peer.send_bytes(encode(AuthRequest(token="t", device_id="x" * 1_000_000, platform="ios"))[:4096])
        with trio.fail_after(PATIENCE):
            (error,) = await peer.closed()
        assert getattr(error, "code", 0) == Code.FRAME_TOO_LARGE
        await peer.hang_up()


@pytest.mark.parametrize("msg_id", [name for name in HOSTILE if len(name) < 100])
async def test_t26_a_hostile_message_id_goes_nowhere(tmp_path: Path, msg_id: str) -> None:
    async with open_running(tmp_path) as running, neighbour(running):
        heard: list[Upstream] = []
        running.hub.bus.subscribe("im.logic.upstream", lambda _, data: heard.append(parse_upstream(data)))
        peer = await running.seated(1001)
        await peer.send(ChatMessage(msg_id=msg_id, to_user=1002, content="x"))
        frame = await peer.frame()
        assert frame is not None
        assert getattr(frame, "code", 0) == Code.INVALID_PAYLOAD
        assert heard == []
        await peer.hang_up()


async def test_t25_a_foreign_ticket_opens_nothing(tmp_path: Path) -> None:
    async with open_running(tmp_path) as running, neighbour(running):
        owner = await running.connect()
        answer = await owner.log_in(running.token(1001))
        for ticket in (answer.session_id or "", str(running.hub.registry.of_user(1001)), "x" * 22):
            thief = await running.connect()
            await thief.send(AuthRequest(token="", device_id="phone", platform="ios", resume_ticket=ticket[:200]))
            with trio.fail_after(PATIENCE):
                (refusal,) = await thief.closed()
            assert getattr(refusal, "code", 0) == Code.TOKEN_INVALID
            await thief.hang_up()
        assert len(running.hub.registry.of_user(1001)) == 1
        await owner.hang_up()


async def test_t25_sessions_and_connections_are_named_by_the_server(tmp_path: Path) -> None:
    async with open_running(tmp_path) as running:
        sessions, ids = set(), set()
        for number in range(30):
            peer = await running.connect()
            answer = await peer.log_in(running.token(1001), f"device-{number}")
            sessions.add(answer.session_id)
            await peer.hang_up()
            await running.empty()
        for _ in range(3):
            peer = await running.seated(1001)
            (connection,) = running.hub.registry.of_user(1001)
            ids.add(connection.id)
            await peer.hang_up()
            await running.empty()
        assert len(sessions) == 30
        assert all(len(session or "") == 22 for session in sessions)  # 128 bits
        assert len(ids) == 3
