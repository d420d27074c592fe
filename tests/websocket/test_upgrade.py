"""The upgrade by tables: who is let in, who is refused with which status, and that a cut request changes nothing."""

from __future__ import annotations

import pytest

from gateway.protocol.codes import Code
from gateway.transports.settings_websocket import WebSocketSettings
from gateway.transports.upgrade import MAX_HEAD, Accepted, Refused, Upgrade, UpgradeRules, parse_origin, unavailable

ORIGINS = ("https://ok.example", "http://localhost:8081", "https://[2001:db8::1]:8443")
RULES = UpgradeRules(WebSocketSettings(origins=ORIGINS, trusted_proxies=("127.0.0.0/8", "10.0.0.0/8", "2001:db8::/32")))

HEADERS = {
    "Host": "127.0.0.1:8080",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
}


def request(
    changes: dict[str, str | None] | None = None, *, line: str = "GET /ws HTTP/1.1", extra: str = "", end: str = "\r\n"
) -> bytes:
    """A good request with some headers changed (None: left out) and `extra` raw lines."""
    headers = {**HEADERS, **(changes or {})}
    lines = [line, *(f"{name}: {value}" for name, value in headers.items() if value is not None)]
    return ("".join(one + end for one in lines) + extra + end).encode("latin-1")


def judge(data: bytes, peer: str = "192.0.2.1") -> Accepted | Refused | None:
    return Upgrade(RULES, peer).feed(data)


GOOD = {
    "plain": request(),
    "origin": request({"Origin": "https://ok.example"}),
    "origin in capitals": request({"Origin": "HTTPS://OK.Example"}),
    "origin with its scheme's port": request({"Origin": "https://ok.example:443"}),
    "origin with a port": request({"Origin": "http://localhost:8081"}),
    "origin by IPv6": request({"Origin": "https://[2001:db8::1]:8443"}),
    "query": request(line="GET /ws?v=1&t=%2F HTTP/1.1"),
    "several tokens": request({"Connection": "keep-alive, Upgrade", "Upgrade": "WebSocket"}),
    "an empty body": request({"Content-Length": "0"}),
    "deflate": request({"Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits"}),
    "other subprotocols": request({"Sec-WebSocket-Protocol": "chat, IM.V1"}),
    "latin-1": request({"Cookie": "caf\xe9"}),
}


@pytest.mark.parametrize("name", GOOD)
def test_let_in(name: str) -> None:
    verdict = judge(GOOD[name] + b"\x82\x80abcd")
    assert isinstance(verdict, Accepted)
    # The key and the answer are the example of RFC 6455 section 1.3.
    assert verdict.response == (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
    )
    assert verdict.rest == b"\x82\x80abcd"
    assert verdict.address == "192.0.2.1"


def test_the_subprotocol_is_echoed_when_offered() -> None:
    for offer in ("im.v1", "chat, im.v1", "im.v1,im.v2"):
        verdict = judge(request({"Sec-WebSocket-Protocol": offer}))
        assert isinstance(verdict, Accepted)
        assert b"\r\nSec-WebSocket-Protocol: im.v1\r\n" in verdict.response
    verdict = judge(request(extra="Sec-WebSocket-Protocol: a\r\nSec-WebSocket-Protocol: im.v1\r\n"))
    assert isinstance(verdict, Accepted)
    assert b"im.v1" in verdict.response


def test_t07_no_extension_is_negotiated() -> None:
    verdict = judge(GOOD["deflate"])
    assert isinstance(verdict, Accepted)
    assert b"xtension" not in verdict.response


T09 = {
    f"origin {origin}": (request({"Origin": origin}), 403)
    for origin in (
        *(
            "null",
            "",
            "https://evil.example",
            "https://ok.example.evil",
            "https://evil-ok.example",
            "https://sub.ok.example",
        ),
        *(
            "http://ok.example",
            "https://ok.example:444",
            "https://ok.example:8443",
            "http://localhost",
            "http://localhost:80",
        ),
        *("https://ok.example/", "https://ok.example#", "https://x@ok.example", "https://ok.example@evil.example"),
        *(
            "https://ok.example https://evil.example",
            "ok.example",
            "//ok.example",
            "https:ok.example",
            "https://ok.example.",
        ),
        *("https://ok.example:0443x", "https://ok.example\\evil", "file://", "https://[2001:db8::2]:8443"),
    )
}

T10 = {
    "two hosts": request(extra="Host: evil\r\n"),
    "no host": request({"Host": None}),
    "CL and TE": request({"Content-Length": "5", "Transfer-Encoding": "chunked"}) + b"0\r\n\r\n",
    "TE": request({"Transfer-Encoding": "chunked"}) + b"0\r\n\r\n",
    "TE, unknown": request({"Transfer-Encoding": "xchunked"}),
    "two CL": request(extra="Content-Length: 0\r\nContent-Length: 5\r\n"),
    "two CL in one": request({"Content-Length": "0, 5"}),
    "a body": request({"Content-Length": "5"}) + b"hello",
    "CL is signed": request({"Content-Length": "+0"}),
    "folded": request(extra="X-Folded: one\r\n two\r\n"),
    "folded by a tab": request(extra="X-Folded: one\r\n\ttwo\r\n"),
    "folded request line": b"GET /ws\r\n HTTP/1.1\r\nHost: a\r\n\r\n",
    "bare LF": request(end="\n"),
    "one bare LF": request(extra="X-One: 1\nX-Two: 2\r\n"),
    "a bare CR": request(extra="X-One: 1\rX-Two: 2\r\n"),
    "a NUL": request({"X-Nul": "a\x00b"}),
    "space before the colon": request(extra="X-One : 1\r\n"),
    "no name": request(extra=": 1\r\n"),
    "no colon": request(extra="nonsense\r\n"),
    "65 headers": request(extra="".join(f"X-{n}: 1\r\n" for n in range(60))),
    "64 KiB of headers": request(extra="".join(f"X-{n}: {'y' * 1000}\r\n" for n in range(64))),
    "64 KiB in one header": request({"X-Long": "y" * 65_536}),
    "64 KiB of target": request(line=f"GET /ws?{'y' * 65_536} HTTP/1.1"),
    "endless": b"GET /ws?" + b"y" * MAX_HEAD,
    "POST": request(line="POST /ws HTTP/1.1"),
    "CONNECT": request(line="CONNECT /ws HTTP/1.1"),
    "get": request(line="get /ws HTTP/1.1"),
    "HTTP/1.0": request(line="GET /ws HTTP/1.0"),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/0.9": b"GET /ws\r\n\r\n",
    "two spaces": request(line="GET  /ws HTTP/1.1"),
    "leading line break": b"\r\n" + request(),
    "TLS": bytes.fromhex("16030100c8010000c40303"),
    "a frame of ours": bytes.fromhex("0000000a000000000000"),
    "two keys": request(extra="Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"),
    "two versions": request(extra="Sec-WebSocket-Version: 13\r\n"),
    "two origins": request({"Origin": "https://ok.example"}, extra="Origin: https://ok.example\r\n"),
    "no key": request({"Sec-WebSocket-Key": None}),
    "short key": request({"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25j"}),
    "key not base64": request({"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=!"}),
}

REFUSED = {
    **T09,
    **{name: (data, 400) for name, data in T10.items()},
    "other path": (request(line="GET / HTTP/1.1"), 404),
    "longer path": (request(line="GET /ws/ HTTP/1.1"), 404),
    "path in capitals": (request(line="GET /WS HTTP/1.1"), 404),
    "path escaped": (request(line="GET /%77s HTTP/1.1"), 404),
    "absolute": (request(line="GET http://127.0.0.1:8080/ws HTTP/1.1"), 404),
    "no upgrade": (request({"Upgrade": None}), 426),
    "h2c": (request({"Upgrade": "h2c"}), 426),
    "connection closes": (request({"Connection": "close"}), 426),
    "version 8": (request({"Sec-WebSocket-Version": "8"}), 426),
    "no version": (request({"Sec-WebSocket-Version": None}), 426),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    data, status = REFUSED[name]
    verdict = judge(data)
    assert isinstance(verdict, Refused)
    assert verdict.status == status
    head, _, body = verdict.response.partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"close" in head
    assert b"Content-Type: text/plain" in head
    assert f"Content-Length: {len(body)}".encode() in head
    assert body.decode() == f"{head[9:].partition(chr(13).encode())[0].decode()}: {verdict.reason}\n"
    if status == 426:
        assert b"\r\nSec-WebSocket-Version: 13" in head


def test_no_room() -> None:
    response = unavailable(Code.NODE_FULL)
    assert response.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert b"\r\nRetry-After: 5\r\n" in response
    assert response.endswith(b"\r\n\r\n503 Service Unavailable: node_full\n")


@pytest.mark.parametrize(
    "data", [GOOD["plain"], T10["one bare LF"], T10["folded"], REFUSED["other path"][0], T10["TLS"]]
)
def test_every_cut_point_gives_the_same(data: bytes) -> None:
    whole = judge(data)
    assert whole is not None
    for at in range(1, len(data)):
        upgrade = Upgrade(RULES, "192.0.2.1")
        assert (upgrade.feed(data[:at]) or upgrade.feed(data[at:])) == whole
    upgrade = Upgrade(RULES, "192.0.2.1")
    assert next(v for v in (upgrade.feed(data[i : i + 1]) for i in range(len(data))) if v is not None) == whole


def test_what_is_kept_is_bounded() -> None:
    upgrade = Upgrade(RULES, "192.0.2.1")
    sent = 0
    assert upgrade.feed(b"GET /ws?") is None
    while upgrade.feed(b"y" * 1000) is None:
        sent += 1000
    assert sent <= MAX_HEAD


FORWARDED = {
    "": "127.0.0.1",
    "203.0.113.7": "203.0.113.7",
    "203.0.113.7:4711": "203.0.113.7",
    "2001:DB9::7": "2001:db9::7",
    "[2001:db9::7]:4711": "2001:db9::7",
    "1.1.1.1, 203.0.113.7": "203.0.113.7",
    "1.1.1.1, 203.0.113.7, 10.1.2.3": "203.0.113.7",
    "10.1.2.3": "10.1.2.3",
    "10.9.9.9, 10.1.2.3": "10.9.9.9",
    "1.1.1.1, unknown": "127.0.0.1",
    "1.1.1.1, evil\t, 10.1.2.3": "10.1.2.3",
    "999.1.1.1": "127.0.0.1",
}


@pytest.mark.parametrize("text", FORWARDED)
def test_forwarded_for_from_a_trusted_proxy(text: str) -> None:
    verdict = judge(request({"X-Forwarded-For": text}), "127.0.0.1")
    assert isinstance(verdict, Accepted)
    assert verdict.address == FORWARDED[text]


def test_forwarded_for_is_read_over_several_headers() -> None:
    extra = "X-Forwarded-For: 1.1.1.1\r\nX-Forwarded-For: 203.0.113.9, 10.0.0.1\r\n"
    verdict = judge(request(extra=extra), "::ffff:127.0.0.1")
    assert isinstance(verdict, Accepted)
    assert verdict.address == "203.0.113.9"


@pytest.mark.parametrize("peer", ["192.0.2.1", "fe80::1%eth0", "no address", ""])
def test_forwarded_for_from_anybody_else_is_ignored(peer: str) -> None:
    verdict = judge(request({"X-Forwarded-For": "203.0.113.7"}), peer)
    assert isinstance(verdict, Accepted)
    assert verdict.address == peer


def test_origins_are_parsed_exactly() -> None:
    assert parse_origin("https://A.example") == ("https", "a.example", 443)
    assert parse_origin("http://a:80") == ("http", "a", 80)
    assert parse_origin("chrome-extension://abcdef") == ("chrome-extension", "abcdef", 0)
    assert parse_origin("null") is None


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (WebSocketSettings(path="ws"), "path"),
        (WebSocketSettings(path="/w s"), "path"),
        (WebSocketSettings(origins=("ok.example",)), "origins"),
        (WebSocketSettings(origins=("*",)), "origins"),
        (WebSocketSettings(trusted_proxies=("10.0.0.0/33",)), "trusted_proxies"),
    ],
)
def test_settings_that_cannot_be_followed(settings: WebSocketSettings, said: str) -> None:
    with pytest.raises(ValueError, match=f"websocket.{said}"):
        UpgradeRules(settings)
