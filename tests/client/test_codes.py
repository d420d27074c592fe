"""What each code of the table, told in each way, does to a client; and where its token comes from."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from gateway.client import (
    ClientSettings,
    Refused,
)
from gateway.protocol.codes import ANSWERED, Code, Reconnect, reconnect_after
from gateway.protocol.messages import (
    AuthRequest,
    AuthResponse,
    ErrorMessage,
    Kick,
)
from tests.client.server import Server, chat, connecting, online, states, take

NEVER = [code for code in Code if reconnect_after(code) is Reconnect.NEVER]
NEW_TOKEN = [code for code in Code if reconnect_after(code) is Reconnect.WITH_NEW_TOKEN]
BACKOFF = [code for code in Code if code and reconnect_after(code) is Reconnect.WITH_BACKOFF]


def by_auth_ack(code: int) -> ErrorMessage | AuthResponse | Kick:
    return AuthResponse(code=code, message="because")


def by_error(code: int) -> ErrorMessage | AuthResponse | Kick:
    return ErrorMessage(code=code, message="because")


def by_kick(code: int) -> ErrorMessage | AuthResponse | Kick:
    return Kick(code=code, message="because")


@pytest.mark.parametrize(
    ("told", "code"),
    [
        (told, code)
        for told in (by_auth_ack, by_error, by_kick)
        for code in NEVER
        if told is not by_error or code not in ANSWERED  # as an Error these leave the link open
    ],
)
async def test_refused_for_good_at_login(autojump_clock: MockClock, told: Callable[[int], Any], code: Code) -> None:
    server = Server()

    async def script() -> None:
        link = await server.accept()
        _, seq = await link.expect(AuthRequest)
        await link.send(told(code), seq=seq)
        link.cut()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(script)
        with pytest.raises(Refused, match=f"{int(code)} {code.label}: because") as caught:
            async with connecting(server, token=lambda: "t"):
                pass
    assert caught.value.code == code
    assert len(server.dialled) == 1


@pytest.mark.parametrize("code", NEVER)
async def test_thrown_out_for_good(autojump_clock: MockClock, code: Code) -> None:
    """Everything that waits is told, and what had come before is still handed out."""
    server = Server()
    async with online(server) as (client, link):
        await link.send(chat(1), Kick(code=code, message="because"))
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                with pytest.raises(Refused):
                    await client.send("x", to_user=1)

            nursery.start_soon(send)
            assert [d.server_seq for d in await take(client, 1)] == [1]
            with pytest.raises(Refused, match=code.label) as caught:
                await client.__anext__()
        assert caught.value.code == code
        with pytest.raises(Refused):
            client.signal(to_user=1, kind="k")
        closed = (await states(client, "closed"))[0]
        assert (closed.code, closed.reason) == (code, "because")
        assert [each async for each in client.notices] == []
        await trio.sleep(1000)
        assert len(server.dialled) == 1


@pytest.mark.parametrize("code", BACKOFF)
async def test_thrown_out_for_now(autojump_clock: MockClock, code: Code) -> None:
    server = Server()
    async with online(server) as (client, link):
        await link.send(Kick(code=code, message="later"))
        (waiting,) = await states(client, "waiting")
        assert (waiting.code, waiting.reason) == (code, "later")
        assert waiting.delay <= 0.5
        await server.welcome()
        await states(client, "online")


async def test_the_delay_the_server_asks_for_is_kept(autojump_clock: MockClock) -> None:
    server = Server()
    async with online(server) as (client, link):
        await link.send(ErrorMessage(code=Code.RATE_LIMITED, message="slow", retry_after_ms=20_000))
        link.cut()
        (waiting,) = await states(client, "waiting")
        assert 20 <= waiting.delay <= 20.5
        assert waiting.code == Code.RATE_LIMITED
        await server.welcome()


@pytest.mark.parametrize("code", NEW_TOKEN)
async def test_a_text_token_that_is_refused_ends_the_client(autojump_clock: MockClock, code: Code) -> None:
    server = Server()
    async with online(server) as (client, link):
        await link.send(Kick(code=code))
        with pytest.raises(Refused, match="a new token is needed"):
            await client.__anext__()


@pytest.mark.parametrize("kind", ["plain", "async"])
async def test_a_callable_gives_a_fresh_token_for_each_login(autojump_clock: MockClock, kind: str) -> None:
    given = iter(["one", "two", "three"])

    def plain() -> str:
        return next(given)

    async def coroutine() -> str:
        await trio.sleep(1)
        return next(given)

    server = Server()
    async with online(server, token=plain if kind == "plain" else coroutine) as (client, link):
        await link.send(Kick(code=Code.TOKEN_EXPIRED))
        (waiting,) = await states(client, "waiting")
        assert waiting.delay == 0
        after = await server.accept()
        assert (await after.log_in()).token == "two"


async def test_fresh_tokens_that_are_all_refused_end_it(autojump_clock: MockClock) -> None:
    server = Server()

    async def script() -> None:
        for _ in range(3):
            link = await server.accept()
            _, seq = await link.expect(AuthRequest)
            await link.send(AuthResponse(code=Code.USER_BANNED, message="banned"), seq=seq)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(script)
        with pytest.raises(Refused, match="4102 user_banned: banned"):
            async with connecting(server, token=lambda: "t", settings=ClientSettings(start_timeout=math.inf)):
                pass


async def test_a_token_source_that_fails_is_asked_again(autojump_clock: MockClock) -> None:
    calls = 0

    async def source() -> str:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise OSError("token service away")
        if calls == 2:
            await trio.sleep_forever()
        return "" if calls == 3 else "t"

    settings = ClientSettings(start_timeout=100)
    async with online(Server(), token=source, settings=settings) as (client, _):
        told = await states(client, "waiting", "waiting", "waiting", "online")
        assert [each.reason for each in told[:3]] == [
            "no token: OSError: token service away",
            "no token within 10 s",
            "no token: the callable gave no text",
        ]
