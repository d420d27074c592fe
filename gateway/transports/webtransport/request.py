"""From the header fields of a request to a session, or to a refusal that a person can read. Sans-I/O."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from gateway.protocol.qpack import Headers
from gateway.protocol.websocket import SUBPROTOCOL
from gateway.transports.settings_webtransport import WebTransportSettings
from gateway.transports.upgrade import parse_origin

PROTOCOLS: Final = frozenset((b"webtransport", b"webtransport-h3"))
"""What `:protocol` is called: before draft 15, and since."""

_NAME: Final = re.compile(rb":?[!#$%&'*+\-.^_`|~0-9a-z]+")
_VALUE: Final = re.compile(rb"[^\x00\r\n]*")
_PSEUDO: Final = frozenset((b":method", b":scheme", b":authority", b":path", b":protocol"))
_CONNECTION: Final = frozenset((b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"))
_LIST_ITEM: Final = re.compile(r'\s*"((?:[^"\\]|\\["\\])*)"\s*(?:;[^,"]*)?(?:,|$)')


class MalformedRequest(Exception):
    """Not a request (RFC 9114 section 4.1.2): its stream is reset."""


class WebTransportRules:
    """Which sessions are let in, from the settings; one per endpoint.

    Raises:
        ValueError: a path or an origin of the settings that is none.
    """

    def __init__(self, settings: WebTransportSettings, origins: Iterable[str] = ()) -> None:
        """`origins`: the WebSocket listener's, which count while the settings have none of their own."""
        if not settings.path.startswith("/") or not settings.path.isascii() or re.search(r"[\s?#]", settings.path):
            raise ValueError(f"webtransport.path: {settings.path!r} is no path like '/im'")
        self.path = settings.path.encode()
        self.origins: set[tuple[str, str, int]] = set()
        self.allow(settings.origins or origins)

    def allow(self, origins: Iterable[str]) -> None:
        """Let pages of further origins in (the chat page's, whose port is known late).

        Raises:
            ValueError: one that is none.
        """
        for origin in origins:
            parsed = parse_origin(origin)
            if parsed is None:
                raise ValueError(f"webtransport.origins: {origin!r} is no origin like 'https://chat.example.org'")
            self.origins.add(parsed)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request is answered."""

    status: int
    reason: str
    """For a person, as the body; empty with 200."""
    headers: tuple[tuple[bytes, bytes], ...] = ()

    @property
    def accepted(self) -> bool:
        """Whether this opens a session."""
        return self.status == 200

    @property
    def fields(self) -> list[tuple[bytes, bytes]]:
        """The response's header fields."""
        own = [(b":status", str(self.status).encode()), *self.headers]
        if not self.accepted:
            own += [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(self.body)).encode())]
        return own

    @property
    def body(self) -> bytes:
        """The response's content."""
        return f"{self.reason}\n".encode() if self.reason else b""


def judge(headers: Headers, rules: WebTransportRules) -> Answer:
    """The answer to a request; 200 is a session, if the connection has room for one.

    Raises:
        MalformedRequest: the fields are none of a request.
    """
    fields = _fields(headers)
    method, path = fields[b":method"][0], fields.get(b":path", [b""])[0].partition(b"?")[0]
    here = rules.path.decode()
    if path != rules.path:
        return Answer(404, f"WebTransport sessions are opened at {here}; there is nothing else here")
    if method != b"CONNECT" or fields.get(b":protocol", [b""])[0] not in PROTOCOLS:
        hint = f"this is a WebTransport endpoint: open a session (new WebTransport('https://.../{here[1:]}'))"
        return Answer(405, hint, ((b"allow", b"CONNECT"),))
    origins = fields.get(b"origin", [])
    if len(origins) > 1:
        return Answer(400, "origin comes once")
    if origins and parse_origin(origins[0].decode("latin-1")) not in rules.origins:
        return Answer(403, "pages of this origin may not connect")
    more: list[tuple[bytes, bytes]] = []
    if SUBPROTOCOL in offered_protocols(fields.get(b"wt-available-protocols", [])):
        more.append((b"wt-protocol", f'"{SUBPROTOCOL}"'.encode()))
    if b"sec-webtransport-http3-draft02" in fields:
        more.append((b"sec-webtransport-http3-draft", b"draft02"))
    return Answer(200, "", tuple(more))


def offered_protocols(values: Iterable[bytes]) -> list[str]:
    """The texts of a list of strings (RFC 9651); empty when it is no such list, which is then ignored (draft, 3.3)."""
    text = ",".join(value.decode("latin-1") for value in values)
    found: list[str] = []
    at = 0
    while at < len(text):
        item = _LIST_ITEM.match(text, at)
        if item is None:
            return []
        found.append(re.sub(r"\\(.)", r"\1", item[1]))
        at = item.end()
    return found


def _fields(headers: Headers) -> dict[bytes, list[bytes]]:
    """Fields by name, checked as RFC 9114 sections 4.2 and 4.3 say."""
    fields: dict[bytes, list[bytes]] = {}
    regular = False
    for name, value in headers:
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise MalformedRequest(f"a field called {name[:64]!r}, or its value")
        if name.startswith(b":"):
            if regular or name in fields or name not in _PSEUDO:
                raise MalformedRequest(f"{name[:64]!r} is unknown, comes twice, or too late")
        elif name in _CONNECTION:
            raise MalformedRequest(f"{name.decode()} is no field of HTTP/3")
        else:
            regular = True
        fields.setdefault(name, []).append(value)
    _require(fields)
    return fields


def _require(fields: dict[bytes, list[bytes]]) -> None:
    """The pseudo-header fields that a request of its kind must have, and no other (section 4.3.1, RFC 9220)."""
    method = fields.get(b":method", [b""])[0]
    needed = {b":method", b":scheme", b":path"}
    if method == b"CONNECT" and b":protocol" not in fields:
        needed = {b":method", b":authority"}
        if b":scheme" in fields or b":path" in fields:
            raise MalformedRequest("a plain CONNECT has neither :scheme nor :path")
    elif method == b"CONNECT":
        needed = set(_PSEUDO)
    elif b":protocol" in fields:
        raise MalformedRequest(":protocol is for CONNECT")
    missing = [name for name in sorted(needed) if not fields.get(name, [b""])[0]]
    if missing:
        raise MalformedRequest(f"{missing[0].decode()} is missing")
    if not fields.get(b":authority", fields.get(b"host", [b""]))[0]:
        raise MalformedRequest(":authority is missing")
