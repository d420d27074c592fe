"""Threat 38: whoever is asked about tokens is gone, hangs, is slow or talks nonsense. No login gets in by that."""

from __future__ import annotations

import time
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock

from gateway.core.ports import Credentials, Identity
from gateway.core.settings import LoginSettings
from gateway.protocol.codes import Code
from gateway.protocol.messages import AuthRequest, AuthResponse
from tests.support.peer import Peer
from tests.support.world import World, open_world

LOGIN = LoginSettings(backend_timeout=1.0, max_questions=3)
MANY = 12
HEARTBEAT = b"\0\0\0\0\0\0"


class AccessService:
    """Takes `delay` seconds for an answer, or raises `error`; counts who is waiting for it."""

    def __init__(self, delay: float = 0.0, error: Exception | None = None, answer: Any = None) -> None:
        self.delay = delay
        self.error = error
        self.answer = answer
        self.waiting = self.most = 0

    async def authenticate(self, credentials: Credentials) -> Identity:
        self.waiting += 1
        self.most = max(self.most, self.waiting)
        try:
            await trio.sleep(self.delay)
        finally:
            self.waiting -= 1
        if self.error is not None:
            raise self.error
        if self.answer is not None:
            return cast("Identity", self.answer)
        return Identity(user_id=int(credentials.token), expires_at=time.time() + 3600)


async def ask(world: World, user: int) -> Peer:
    peer = await world.connect()
    await peer.send(AuthRequest(token=str(user), device_id="phone", platform="ios"))
    return peer


async def answered(peer: Peer) -> int:
    return (await peer.receive(AuthResponse)).code


async def beats(peer: Peer) -> None:
    await peer.send_bytes(HEARTBEAT)
    with trio.fail_after(1):
        assert await peer.frame() is not None


async def test_t38_hanging_it_is_asked_no_more_than_so_often_and_lets_nobody_in(autojump_clock: MockClock) -> None:
    async with open_world(login=LOGIN) as world:
        neighbour = await world.seated(999)
        service = world.hub.authenticator = AccessService(delay=3600.0)
        start = trio.current_time()
        peers = [await ask(world, user) for user in range(1, MANY + 1)]
        await beats(neighbour)
        for peer in peers:
            assert await answered(peer) == Code.AUTH_UNAVAILABLE
            assert await peer.closed() == []
        assert trio.current_time() - start <= LOGIN.backend_timeout + 0.5  # not one after another
        assert service.most == LOGIN.max_questions
        assert service.waiting == 0
        assert world.hub.metrics.sessions == 1
        assert set(await world.hub.locations.lookup(range(1, MANY + 1))) == set()
        service.delay = 0.0
        assert await answered(await ask(world, 1)) == Code.OK
        await beats(neighbour)


async def test_t38_slow_all_get_their_turn(autojump_clock: MockClock) -> None:
    async with open_world(login=LOGIN) as world:
        service = world.hub.authenticator = AccessService(delay=0.2)
        peers = [await ask(world, user) for user in range(1, MANY + 1)]
        assert [await answered(peer) for peer in peers] == [Code.OK] * MANY
        assert service.most == LOGIN.max_questions


@pytest.mark.parametrize("error", [ConnectionRefusedError(), TimeoutError(), trio.BrokenResourceError(), KeyError("x")])
async def test_t38_gone_it_lets_nobody_in(autojump_clock: MockClock, error: Exception) -> None:
    async with open_world(login=LOGIN) as world:
        neighbour = await world.seated(999)
        world.hub.authenticator = AccessService(error=error)
        for user in range(1, MANY + 1):
            peer = await ask(world, user)
            assert await answered(peer) == Code.AUTH_UNAVAILABLE
            assert await peer.closed() == []
        assert world.hub.metrics.sessions == 1
        await beats(neighbour)


@pytest.mark.parametrize("user_id", [0, -1, 2**63, True, "1", "1.>", None])
async def test_t38_an_answer_that_is_none_lets_nobody_in(autojump_clock: MockClock, user_id: Any) -> None:
    async with open_world(login=LOGIN) as world:
        world.hub.authenticator = AccessService(answer=Identity(user_id=user_id, expires_at=time.time() + 3600))
        peer = await ask(world, 1)
        assert await answered(peer) == Code.AUTH_UNAVAILABLE
        assert await peer.closed() == []
        assert world.hub.metrics.sessions == 0
