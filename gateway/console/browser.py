"""The chat page and the browser client, as the console serves them in development mode. No socket and no ASGI here.

Everything that a page needs is in the package and named in `STATIC`; no path of a request ever reaches the file
system. Tokens are handed out to whoever can reach the loopback console from a page of its own: never wire this up
where keys are configured.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from importlib import resources
from types import MappingProxyType
from urllib.parse import parse_qs, urlsplit

import msgspec

from gateway.backends.jwt import LARGEST_USER_ID

TOKEN_PATH = "/dev/token"
SCRIPT, STYLE, TEXT = "text/javascript; charset=utf-8", "text/css; charset=utf-8", "text/plain; charset=utf-8"
HTML, JSON = "text/html; charset=utf-8", "application/json"

STATIC: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "/": ("index.html", HTML),
        "/chat.js": ("chat.js", SCRIPT),
        "/chat.css": ("chat.css", STYLE),
        "/gateway-client.js": ("gateway-client.js", SCRIPT),
        "/delivery.js": ("delivery.js", SCRIPT),
        "/dial.js": ("dial.js", SCRIPT),
        "/host.js": ("host.js", SCRIPT),
        "/race.js": ("race.js", SCRIPT),
        "/webtransport.js": ("webtransport.js", SCRIPT),
        "/wire.js": ("wire.js", SCRIPT),
        "/wires.js": ("wires.js", SCRIPT),
        "/message.js": ("message.js", SCRIPT),
        "/flatbuffers.js": ("flatbuffers.js", SCRIPT),
        "/flatbuffers.LICENSE.txt": ("flatbuffers.LICENSE.txt", TEXT),
    }
)
"""Path to (file in `static/`, content type): all there is."""

_USER = re.compile(r"[1-9][0-9]{0,18}")


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """A whole HTTP response."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


class WebTransportAddress(msgspec.Struct, frozen=True, rename="camel"):
    """Where pages open WebTransport, and which certificate they are to believe there."""

    url: str
    certificate_hashes: tuple[str, ...] = ()
    """SHA-256 in hex, for `serverCertificateHashes`; empty where a public authority vouches for it."""


def development_origins(port: int) -> tuple[str, ...]:
    """The origins that the page has on a loopback console at `port`; the listeners for pages must allow them."""
    return (f"http://127.0.0.1:{port}", f"http://localhost:{port}", f"http://[::1]:{port}")


class BrowserPage:
    """Answers for the paths of `STATIC` and for `TOKEN_PATH`; made once, in development mode only."""

    def __init__(
        self,
        *,
        console_port: int,
        websocket_url: str,
        issue_token: Callable[[int], str],
        webtransport: Callable[[], WebTransportAddress] | None = None,
    ) -> None:
        """`websocket_url` is what pages connect to (`ws://127.0.0.1:8080/ws`); `issue_token` makes a user's token;
        `webtransport` says, each time, where and with which certificate pages may try WebTransport first."""
        self._origins = frozenset(development_origins(console_port))
        self._hosts = frozenset(origin.removeprefix("http://") for origin in self._origins)
        self._websocket_url = websocket_url
        self._issue_token = issue_token
        self._webtransport = webtransport
        self._headers = _security_headers(websocket_url, *([webtransport().url] if webtransport else []))
        folder = resources.files("gateway.console") / "static"
        self._files = {path: (kind, (folder / name).read_bytes()) for path, (name, kind) in STATIC.items()}

    def answer(self, method: str, path: str, query: str, headers: Mapping[str, str]) -> Served | None:
        """The response to a request, or None when the path is not ours. `headers` has lower-case names.

        A foreign Host is refused on every path: a name that somebody points at 127.0.0.1 (DNS rebinding) makes
        their page same-origin with us, and only Host tells.
        """
        if path != TOKEN_PATH and path not in self._files:
            return None
        if headers.get("host", "").lower() not in self._hosts:
            return self._refusal(403, "this console answers to 127.0.0.1 and localhost only")
        if method not in ("GET", "HEAD"):
            return self._refusal(405, "only GET is served here", ("allow", "GET, HEAD"))
        served = self._token(query, headers) if path == TOKEN_PATH else self._served(200, *self._files[path])
        return served if method == "GET" else msgspec.structs.replace(served, body=b"")

    def _token(self, query: str, headers: Mapping[str, str]) -> Served:
        origin = headers.get("origin")
        site = headers.get("sec-fetch-site", "none")  # "none": an address bar, or no browser at all
        if (origin is not None and origin not in self._origins) or site not in ("same-origin", "none"):
            return self._refusal(403, "tokens are for pages of this console only")
        users = parse_qs(query, max_num_fields=4).get("user", []) if len(query) <= 64 else []
        if len(users) != 1 or not _USER.fullmatch(users[0]) or int(users[0]) > LARGEST_USER_ID:
            return self._refusal(400, f"say ?user=N with N from 1 to {LARGEST_USER_ID}")
        told = {
            "token": self._issue_token(int(users[0])),
            "url": self._websocket_url,
            "webTransport": self._webtransport() if self._webtransport is not None else None,
        }
        return self._served(200, JSON, msgspec.json.encode(told))

    def _refusal(self, status: int, reason: str, *more: tuple[str, str]) -> Served:
        return self._served(status, TEXT, f"{reason}\n".encode(), *more)

    def _served(self, status: int, kind: str, body: bytes, *more: tuple[str, str]) -> Served:
        own = (("content-type", kind), ("content-length", str(len(body))))
        return Served(status=status, headers=(*own, *self._headers, *more), body=body)


def _security_headers(*urls: str) -> tuple[tuple[str, str], ...]:
    """`urls`: where the page may connect, beside the console."""
    origins = " ".join(f"{parts.scheme}://{parts.netloc}" for parts in map(urlsplit, urls))
    policy = (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; "
        f"connect-src 'self' {origins}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return (
        ("cache-control", "no-store"),
        ("content-security-policy", policy),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
        ("referrer-policy", "no-referrer"),
        ("x-content-type-options", "nosniff"),
    )
