"""Health, readiness and what else is answered."""

from __future__ import annotations

import errno
import socket
from collections.abc import Mapping

import pytest
import trio

from gateway.console.browser import Served
from gateway.console.server import serve_console
from gateway.console.settings import ConsoleSettings
from tests.console.asking import Shown, console


async def test_health_is_being_able_to_answer() -> None:
    shown = Shown()
    shown.reason = "draining"
    async with console(shown) as asker:
        answer = await asker.ask("/healthz")
    assert (answer.status, answer.text) == (200, "ok\n")


async def test_readiness_says_why_not() -> None:
    shown = Shown()
    async with console(shown) as asker:
        answer = await asker.ask("/readyz")
        assert (answer.status, answer.text) == (200, "ready\n")
        for reason in ("draining", "the bus cannot be reached"):
            shown.reason = reason
            answer = await asker.ask("/readyz")
            assert (answer.status, answer.text) == (503, f"{reason}\n")


async def test_metrics_are_scraped_as_text() -> None:
    async with console(Shown()) as asker:
        answer = await asker.ask("/metrics", accept="application/openmetrics-text")
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "access_connections_total 0\n" in answer.text


async def test_the_index_names_what_is_here() -> None:
    async with console(Shown()) as asker:
        answer = await asker.ask("/")
    assert answer.status == 200
    assert all(path in answer.text for path in ("/healthz", "/readyz", "/metrics"))


@pytest.mark.parametrize(
    "path",
    [
        "/nope",
        "/healthz/",
        "/HEALTHZ",
        "//healthz",
        "/../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/static/chat.js",
        "/%00",
        "*",
    ],
)
async def test_anything_else_is_not_here(path: str) -> None:
    async with console(Shown()) as asker:
        assert (await asker.ask(path)).status == 404


async def test_methods() -> None:
    async with console(Shown()) as asker:
        head = await asker.ask("/healthz", "HEAD")
        assert (head.status, head.body, head.headers["content-length"]) == (200, b"", "3")
        for method in ("POST", "PUT", "DELETE", "OPTIONS", "TRACE"):
            answer = await asker.ask("/healthz", method)
            assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")


async def test_no_request_has_a_body() -> None:
    async with console(Shown()) as asker:
        assert (await asker.ask("/healthz", content_length="0")).status == 200
        assert (await asker.ask("/healthz", "POST", content_length="5000000")).status == 400
        assert (await asker.ask("/healthz", transfer_encoding="chunked")).status == 400


async def test_nothing_is_cached_or_guessed() -> None:
    async with console(Shown()) as asker:
        answer = await asker.ask("/healthz")
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "server" not in answer.headers


async def test_a_connection_is_kept_for_several_requests() -> None:
    async with console(Shown()) as asker:
        request = f"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1:{asker.port}\r\n".encode()
        received = await asker.send(request + b"\r\n" + request + b"connection: close\r\n\r\n")
    assert received.count(b"200") == 2


class OwnPage:
    def answer(self, method: str, path: str, query: str, headers: Mapping[str, str]) -> Served | None:
        if path != "/chat":
            return None
        said = f"{method} {query} {headers['x-name']}".encode()
        return Served(
            status=201, headers=(("content-type", "text/plain"), ("content-length", str(len(said)))), body=said
        )


async def test_a_page_answers_for_its_own_paths() -> None:
    async with console(Shown(), page=OwnPage()) as asker:
        answer = await asker.ask("/chat?a=b%20c", x_name="n")
        assert (answer.status, answer.text) == (201, "GET a=b%20c n")
        assert (await asker.ask("/healthz")).status == 200
        assert (await asker.ask("/")).status == 404


async def test_a_websocket_upgrade_is_refused() -> None:
    async with console(Shown()) as asker:
        answer = await asker.ask(
            "/ws",
            upgrade="websocket",
            connection="upgrade",
            sec_websocket_version="13",
            sec_websocket_key="dGhlIHNhbXBsZSBub25jZQ==",
        )
    assert answer.status >= 400


async def test_a_taken_port_is_said_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            OSError, match=rf"^\[Errno \d+\] console: cannot listen on 127.0.0.1 port {port}: Address already in use$"
        ) as caught:
            await serve_console(ConsoleSettings(port=port), Shown())
    assert caught.value.errno == errno.EADDRINUSE


async def test_a_host_that_is_none_is_said_in_one_line() -> None:
    with pytest.raises(OSError, match=r"console: cannot listen on host\.invalid port 0: "):
        await serve_console(ConsoleSettings(host="host.invalid", port=0), Shown())


async def test_ipv6() -> None:
    async with trio.open_nursery() as nursery:
        try:
            address = await nursery.start(serve_console, ConsoleSettings(host="::1", port=0), Shown())
        except OSError:
            pytest.xfail("this machine has no IPv6")
        assert address.startswith("[::1]:")
        nursery.cancel_scope.cancel()
