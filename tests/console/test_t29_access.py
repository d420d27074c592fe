"""Threat 29: who may ask, and what those learn who may not."""

from __future__ import annotations

import pytest

from gateway.config import Config
from gateway.console.access import Doorkeeper, is_loopback
from gateway.core.metrics import Metrics
from tests.console.asking import Shown, console

TOKEN = "a-token-of-some-length"
PATHS = ("/", "/healthz", "/readyz", "/metrics", "/nope")


def test_the_default_is_loopback_without_a_token() -> None:
    assert is_loopback(Config().console.host)
    assert is_loopback(Config().tcp.host)
    assert is_loopback(Config().websocket.host)


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        TOKEN,
        f"Basic {TOKEN}",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        f"Bearer {TOKEN.upper()}",
        f"Bearer {TOKEN}, Bearer {TOKEN}",
        f"Bearer x{TOKEN}",
        "Bearer \xff\xfe",
    ],
)
async def test_without_the_token_nothing_is_answered(authorization: str | None) -> None:
    shown = Shown()
    shown.reason = "the secret reason"
    headers = {} if authorization is None else {"authorization": authorization}
    async with console(shown, token=TOKEN) as asker:
        for path in PATHS:
            answer = await asker.ask(path, **headers)
            assert (answer.status, answer.text) == (401, "a bearer token is needed here\n")
            assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_with_the_token_everything_is(scheme: str) -> None:
    async with console(Shown(), token=TOKEN) as asker:
        for path in ("/healthz", "/readyz", "/metrics"):
            assert (await asker.ask(path, authorization=f"{scheme} {TOKEN}")).status == 200
        assert (await asker.ask("/healthz", authorization=f"Bearer {TOKEN}", host="gateway.example")).status == 200


async def test_two_authorizations_are_none() -> None:
    async with console(Shown(), token=TOKEN) as asker:
        head = (
            f"GET /healthz HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {TOKEN}\r\nauthorization: Bearer x\r\n"
        )
        assert b" 401 " in await asker.send(head.encode() + b"connection: close\r\n\r\n")


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8090", "127.0.0.1.evil.example", "localhost.evil.example", "0.0.0.0", ""]
)
async def test_a_page_of_somebody_else_is_not_let_in_by_its_visitors_browser(host: str) -> None:
    """DNS rebinding: the name is theirs, the address is ours, and only Host tells."""
    async with console(Shown()) as asker:
        for path in PATHS:
            assert (await asker.ask(path, host=host)).status == 403


@pytest.mark.parametrize("host", ["localhost", "localhost:8090", "127.0.0.1", "127.0.0.1:1", "[::1]:8090", "LocalHost"])
async def test_names_of_this_machine(host: str) -> None:
    async with console(Shown()) as asker:
        assert (await asker.ask("/healthz", host=host)).status == 200


def test_a_request_without_host_is_no_browsers() -> None:
    assert Doorkeeper("").refusal({}) is None


class Broken(Shown):
    def not_ready(self) -> str:
        raise RuntimeError("a secret in a traceback")


async def test_what_goes_wrong_inside_stays_inside(caplog: pytest.LogCaptureFixture) -> None:
    async with console(Broken()) as asker:
        answer = await asker.ask("/readyz")
        assert (answer.status, answer.text) == (500, "something went wrong here; it is in the log\n")
        assert (await asker.ask("/healthz")).status == 200
    assert [each.message for each in caplog.records] == ["console_answer_failed"]


async def test_users_do_not_show() -> None:
    """The counts have no place for a user id; the exposition's labels are listed in test_metrics."""
    assert not any("user" in name for name in vars(Metrics()))
