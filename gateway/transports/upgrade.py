"""From an HTTP/1.1 request to a WebSocket, or to a refusal that a person can read. Sans-I/O: bytes in, a verdict out.

h11 parses the request. What h11 forgives (bare line feeds, folded lines) is refused before it: whoever stands between
us and the client may have read such a request otherwise than we would (request smuggling).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import h11

from gateway.protocol.codes import Code
from gateway.protocol.websocket import SUBPROTOCOL
from gateway.transports.settings_websocket import WebSocketSettings

MAX_HEAD: Final = 16_384
"""Bytes of request line and headers together."""
MAX_HEADERS: Final = 64
RETRY_AFTER: Final = 5
"""Seconds told to whom there is no room for."""

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3
_BARE_LF: Final = re.compile(rb"(?<!\r)\n")
_ORIGIN: Final = re.compile(
    r"([a-z][a-z0-9+.-]*)://([^\s/:?#@\[\]\\]+|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?", re.IGNORECASE
)
_PORTS: Final = {"http": 80, "https": 443}
_ONCE: Final = (b"host", b"origin", b"sec-websocket-key", b"sec-websocket-version", b"content-length")
_PHRASES: Final = {
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    426: "Upgrade Required",
    503: "Service Unavailable",
}

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Accepted:
    """The client is let in."""

    response: bytes
    """What to send."""
    address: str
    """The client's IP address: the peer's own, or what a trusted proxy says."""
    rest: bytes
    """Bytes of WebSocket frames that came right behind the request."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The client is sent away."""

    response: bytes
    """What to send before closing."""
    status: int
    reason: str


class UpgradeRules:
    """Who is let in, from the settings; one per listener.

    Raises:
        ValueError: a path, an origin or a network of the settings that is none.
    """

    def __init__(self, settings: WebSocketSettings) -> None:
        if not settings.path.startswith("/") or not settings.path.isascii() or re.search(r"[\s?#]", settings.path):
            raise ValueError(f"websocket.path: {settings.path!r} is no path like '/ws'")
        self.path = settings.path.encode()
        self.origins: set[tuple[str, str, int]] = set()
        self.allow(settings.origins)
        self.proxies = tuple(_network(text) for text in settings.trusted_proxies)

    def allow(self, origins: Iterable[str]) -> None:
        """Let pages of further origins in (the chat page's, whose port is known late).

        Raises:
            ValueError: one that is none.
        """
        self.origins.update(_allowed(origin) for origin in origins)


class Upgrade:
    """One client's opening handshake."""

    __slots__ = ("_head", "_peer", "_rules")

    def __init__(self, rules: UpgradeRules, peer: str) -> None:
        self._rules = rules
        self._peer = peer
        self._head = b""

    def feed(self, data: bytes) -> Accepted | Refused | None:
        """Take bytes; None while the request is incomplete. Not to be called again after a verdict."""
        start = max(0, len(self._head) - 3)
        self._head += data
        end = self._head.find(b"\r\n\r\n", start, MAX_HEAD) + 4
        head = self._head[:end] if end > 3 else self._head[: MAX_HEAD + 1]
        if not head.startswith(b"GET "[: len(head)]):
            return refusal(400, "a WebSocket opens with an HTTP GET request")
        if _BARE_LF.search(head, max(0, start - 1)):
            return refusal(400, "lines end with CR LF")
        if end > 3:
            try:
                return self._judge(head, self._head[end:])
            except _ObjectionError as objection:
                return refusal(objection.status, objection.reason)
        if len(head) > MAX_HEAD:
            return refusal(400, f"a request has at most {MAX_HEAD} bytes before its end")
        return None

    def _judge(self, head: bytes, rest: bytes) -> Accepted | Refused:
        request = _parse(head)
        headers = _Headers(request)
        if request.target.partition(b"?")[0] != self._rules.path:
            raise _ObjectionError(404, f"WebSockets are at {self._rules.path.decode()}")
        origin = headers.one(b"origin")
        if origin is not None and parse_origin(origin) not in self._rules.origins:
            raise _ObjectionError(403, "pages of this origin may not connect")
        if b"websocket" not in headers.tokens(b"upgrade") or b"upgrade" not in headers.tokens(b"connection"):
            raise _ObjectionError(426, "this is a WebSocket endpoint: ask for an upgrade")
        if headers.one(b"sec-websocket-version") != "13":
            raise _ObjectionError(426, "the WebSocket version is 13")
        response = [
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ",
            _accept_token(headers.one(b"sec-websocket-key") or ""),
        ]
        if SUBPROTOCOL.encode() in headers.tokens(b"sec-websocket-protocol", lower=False):
            response.append(b"\r\nSec-WebSocket-Protocol: " + SUBPROTOCOL.encode())
        response.append(b"\r\n\r\n")
        address = forwarded_address(self._peer, headers.all(b"x-forwarded-for"), self._rules.proxies)
        return Accepted(b"".join(response), address, rest)


def refusal(status: int, reason: str) -> Refused:
    """An HTTP response that says `reason` and closes."""
    body = f"{status} {_PHRASES[status]}: {reason}\n".encode()
    head = f"HTTP/1.1 {status} {_PHRASES[status]}\r\n"
    head += f"Content-Type: text/plain; charset=utf-8\r\nContent-Length: {len(body)}\r\n"
    if status == 426:
        head += "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nConnection: Upgrade, close\r\n"
    else:
        head += "Connection: close\r\n"
    if status == 503:
        head += f"Retry-After: {RETRY_AFTER}\r\n"
    return Refused(head.encode() + b"\r\n" + body, status, reason)


def unavailable(code: int) -> bytes:
    """The whole answer to whom admission refused with `code`, given before anything of the request is read."""
    return refusal(503, Code(code).label).response


def parse_origin(text: str) -> tuple[str, str, int] | None:
    """Scheme, host and port of a serialised origin; None for `null` and whatever else is none."""
    match = _ORIGIN.fullmatch(text)
    if match is None:
        return None
    scheme, host = match[1].lower(), match[2].lower()
    return scheme, host, int(match[3]) if match[3] else _PORTS.get(scheme, 0)


def forwarded_address(peer: str, forwarded: list[str], proxies: tuple[Network, ...]) -> str:
    """The client's address: the right-most of `X-Forwarded-For` that is no proxy of ours.

    Everything left of it was written by somebody we do not know. What is no address ends the search.
    """
    known = peer
    if not proxies or not _within(peer, proxies):
        return peer
    for entry in reversed(",".join(forwarded).split(",")):
        address = _address(entry.strip())
        if address is None:
            break
        known = address
        if not _within(address, proxies):
            break
    return known


class _ObjectionError(Exception):
    """The request is refused with `status`."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class _Headers:
    """The headers of a request, by lower-case name."""

    def __init__(self, request: h11.Request) -> None:
        self._fields: dict[bytes, list[bytes]] = {}
        for name, value in request.headers:
            self._fields.setdefault(name, []).append(value)
        if len(request.headers) > MAX_HEADERS:
            raise _ObjectionError(400, f"a request has at most {MAX_HEADERS} headers")
        for name in _ONCE:
            if len(self._fields.get(name, ())) > 1:
                raise _ObjectionError(400, f"{name.decode()} comes once")
        if b"transfer-encoding" in self._fields or self._fields.get(b"content-length", [b"0"]) != [b"0"]:
            raise _ObjectionError(400, "this request has no body")

    def all(self, name: bytes) -> list[str]:
        return [value.decode("latin-1") for value in self._fields.get(name, ())]

    def one(self, name: bytes) -> str | None:
        values = self.all(name)
        return values[0] if values else None

    def tokens(self, name: bytes, *, lower: bool = True) -> set[bytes]:
        joined = b",".join(self._fields.get(name, ()))
        return {token.strip() for token in (joined.lower() if lower else joined).split(b",")}


def _parse(head: bytes) -> h11.Request:
    if b"\r\n " in head or b"\r\n\t" in head:
        raise _ObjectionError(400, "folded header lines are obsolete")
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
    connection.receive_data(head)
    try:
        request = connection.next_event()
    except h11.RemoteProtocolError as error:
        raise _ObjectionError(400, f"not an HTTP request: {error}") from None
    if not isinstance(request, h11.Request) or request.http_version != b"1.1":
        raise _ObjectionError(400, "the HTTP version is 1.1")
    return request


def _accept_token(key: str) -> bytes:
    try:
        nonce = base64.b64decode(key.encode(), validate=True)
    except (binascii.Error, ValueError):
        nonce = b""
    if len(nonce) != 16:
        raise _ObjectionError(400, "Sec-WebSocket-Key is 16 bytes in base64")
    return base64.b64encode(hashlib.sha1(key.encode() + _GUID, usedforsecurity=False).digest())


def _allowed(origin: str) -> tuple[str, str, int]:
    parsed = parse_origin(origin)
    if parsed is None:
        raise ValueError(f"websocket.origins: {origin!r} is no origin like 'https://chat.example.org'")
    return parsed


def _network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"websocket.trusted_proxies: {text!r} is no network like '10.0.0.0/8'") from None


def _address(text: str) -> str | None:
    """An address as proxies write it, perhaps with a port."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return None


def _within(address: str, networks: tuple[Network, ...]) -> bool:
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(parsed, "ipv4_mapped", None)
    return any((mapped or parsed) in network for network in networks)
