"""What the development console serves to browsers, and what it refuses to hand to foreign pages."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import resources

import msgspec
import pytest

from gateway.console.browser import (
    STATIC,
    TOKEN_PATH,
    BrowserPage,
    Served,
    WebTransportAddress,
    development_origins,
)

HOST = {"host": "127.0.0.1:9100"}


def issue(user_id: int) -> str:
    return f"token-of-{user_id}"


@pytest.fixture
def page() -> BrowserPage:
    return BrowserPage(console_port=9100, websocket_url="ws://127.0.0.1:8080/ws", issue_token=issue)


def asked(page: BrowserPage, query: str = "user=1001", **headers: str) -> Served:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    served = page.answer("GET", TOKEN_PATH, query, HOST | named)
    assert served is not None
    return served


@pytest.mark.parametrize("path", STATIC)
def test_every_static_path_is_served_with_its_type_and_the_policy(page: BrowserPage, path: str) -> None:
    served = page.answer("GET", path, "", HOST)
    assert served is not None
    headers = dict(served.headers)
    assert served.status == 200
    assert headers["content-type"] == STATIC[path][1]
    assert int(headers["content-length"]) == len(served.body) > 0
    assert headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'; script-src 'self'" in headers["content-security-policy"]
    assert "connect-src 'self' ws://127.0.0.1:8080;" in headers["content-security-policy"]


def test_the_page_and_its_scripts_name_only_what_is_served(page: BrowserPage) -> None:
    for path, (name, _) in STATIC.items():
        text = (resources.files("gateway.console") / "static" / name).read_text()
        if path == "/":
            named = re.findall(r'(?:src|href)="([^"]+)"', text)
            assert not re.search(r"style=|<script>|onclick", text), "the policy forbids inline code"
        else:
            named = re.findall(r'from "([^"]+)"', text) if name.endswith(".js") else []
        for reference in named:
            if not reference.startswith("data:"):
                assert "/" + reference.removeprefix("./").removeprefix("/") in STATIC, f"{name} names {reference}"


@pytest.mark.parametrize(
    "path", ["/chat", "//", "/../codes.py", "/static/chat.js", "/package.json", "/dev/token/", "/metrics"]
)
def test_no_other_path_is_ours(page: BrowserPage, path: str) -> None:
    assert page.answer("GET", path, "", HOST) is None


@pytest.mark.parametrize("path", ["/", "/chat.js", TOKEN_PATH])
@pytest.mark.parametrize(
    "host",
    [
        "evil.example:9100",
        "127.0.0.1",
        "127.0.0.1:80",
        "127.0.0.1:9100.evil.example",
        "localhost.evil.example:9100",
        "",
    ],
)
def test_a_foreign_host_is_refused_everywhere(page: BrowserPage, path: str, host: str) -> None:
    served = page.answer("GET", path, "user=1", {"host": host})
    assert served is not None
    assert served.status == 403
    assert b"token-of" not in served.body


def test_a_token_comes_with_the_address_to_use_it_at(page: BrowserPage) -> None:
    served = asked(page)
    assert msgspec.json.decode(served.body) == {
        "token": "token-of-1001",
        "url": "ws://127.0.0.1:8080/ws",
        "webTransport": None,
    }
    assert dict(served.headers)["cache-control"] == "no-store"
    assert page.answer("GET", TOKEN_PATH, "user=1", {"host": "LocalHost:9100"}) is not None


def test_where_webtransport_is_told_too_with_the_certificate_of_this_moment() -> None:
    hashes = ["aa"]
    page = BrowserPage(
        console_port=9100,
        websocket_url="ws://127.0.0.1:8080/ws",
        issue_token=str,
        webtransport=lambda: WebTransportAddress("https://127.0.0.1:8443/im", tuple(hashes)),
    )
    hashes[0] = "bb"
    served = asked(page)
    assert msgspec.json.decode(served.body)["webTransport"] == {
        "url": "https://127.0.0.1:8443/im",
        "certificateHashes": ["bb"],
    }
    policy = dict(served.headers)["content-security-policy"]
    assert "connect-src 'self' ws://127.0.0.1:8080 https://127.0.0.1:8443;" in policy


@pytest.mark.parametrize("origin", development_origins(9100))
def test_our_own_page_may_ask(page: BrowserPage, origin: str) -> None:
    assert asked(page, origin=origin, sec_fetch_site="same-origin").status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9101"},
        {"origin": "https://127.0.0.1:9100"},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
    ],
)
def test_foreign_pages_get_no_token(page: BrowserPage, headers: Mapping[str, str]) -> None:
    served = asked(page, **headers)
    assert served.status == 403
    assert b"token-of" not in served.body


@pytest.mark.parametrize(
    "query",
    [
        "",
        "user=",
        "user=0",
        "user=-1",
        "user=1.5",
        "user=1e3",
        "user=9223372036854775808",
        "user=1&user=2",
        "user=\u0661",
        "user=" + "1" * 100,
    ],
)
def test_only_a_user_id_gets_a_token(page: BrowserPage, query: str) -> None:
    assert asked(page, query).status == 400


@pytest.mark.parametrize("path", ["/", TOKEN_PATH])
def test_only_get_and_head(page: BrowserPage, path: str) -> None:
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "get"):
        served = page.answer(method, path, "user=1", HOST)
        assert served is not None
        assert served.status == 405
        assert ("allow", "GET, HEAD") in served.headers
    whole, head = page.answer("GET", path, "user=1", HOST), page.answer("HEAD", path, "user=1", HOST)
    assert whole is not None
    assert head is not None
    assert (head.headers, head.body) == (whole.headers, b"")
