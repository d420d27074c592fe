"""What the console answers: a table of paths, and the ASGI side of it. The HTTP server is in `server`.

A new page is one entry of `routes`, or a `page` that answers for its own paths.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from gateway._version import __version__
from gateway.console.access import Doorkeeper
from gateway.console.browser import TEXT, Served
from gateway.console.metrics import CONTENT_TYPE, exposition
from gateway.core.books import Account, table
from gateway.core.metrics import Metrics

if TYPE_CHECKING:
    from gateway.transports.quic.statistics import QuicStatistics

log = logging.getLogger("gateway.console")

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class Provider(Protocol):
    """What the console shows: a Node, or a Logic in a process of its own."""

    @property
    def metrics(self) -> Metrics | None:
        """The counts of a node, read where they stand; None for what is none."""

    def books(self) -> Sequence[Account]:
        """Its accounts, now."""

    def quic_statistics(self) -> QuicStatistics | None:
        """The counts of its UDP port, if it has one."""

    def bus_statistics(self) -> Any:
        """Those of its bus, if that keeps any; else None."""

    def not_ready(self) -> str:
        """Why nobody should be sent here now; empty when they should."""


class Page(Protocol):
    """Answers for paths of its own."""

    def answer(self, method: str, path: str, query: str, headers: Mapping[str, str]) -> Served | None:
        """The response, or None when the path is not its own. `headers` has lower-case names."""


class Console:
    """The ASGI application."""

    def __init__(self, provider: Provider, *, token: str = "", page: Page | None = None) -> None:
        """With `token`, every request must carry it; without, every request must name a loopback host."""
        self._provider = provider
        self._doorkeeper = Doorkeeper(token)
        self._page = page
        self.routes: dict[str, Callable[[], Served]] = {
            "/healthz": self._healthz,
            "/readyz": self._readyz,
            "/metrics": self._metrics,
            "/books": self._books,
        }
        if page is None:
            self.routes["/"] = self._index

    # -- the answers ---------------------------------------------------------------------------------------

    def answer(self, method: str, path: str, query: str, headers: Mapping[str, str]) -> Served:
        """The whole response to one request. `headers` has lower-case names."""
        refused = self._doorkeeper.refusal(headers)
        if refused is not None:
            return _text(*refused, *((("www-authenticate", "Bearer"),) if refused[0] == 401 else ()))
        if headers.get("content-length", "0") != "0" or "transfer-encoding" in headers:
            return _text(400, "no request here has a body", ("connection", "close"))
        if self._page is not None and (served := self._page.answer(method, path, query, headers)) is not None:
            return served
        route = self.routes.get(path)
        if route is None:
            return _text(404, f"nothing is here; try {', '.join(self.routes)}")
        if method not in ("GET", "HEAD"):
            return _text(405, "only GET is served here", ("allow", "GET, HEAD"))
        return route()

    def _healthz(self) -> Served:
        """Alive: whoever can answer this turns its loop. What is wrong outside is readiness."""
        return _text(200, "ok")

    def _readyz(self) -> Served:
        reason = self._provider.not_ready()
        return _text(503, reason) if reason else _text(200, "ready")

    def _metrics(self) -> Served:
        ready = not self._provider.not_ready()
        provider = self._provider
        beside = provider.quic_statistics(), provider.bus_statistics()
        shown = exposition(provider.metrics, provider.books(), *beside, ready=ready)
        return _served(200, CONTENT_TYPE, shown)

    def _books(self) -> Served:
        """What came and what became of it, for a person."""
        return _text(200, table(self._provider.books()))

    def _index(self) -> Served:
        return _text(200, f"trio-gateway {__version__}: {' '.join(self.routes)}")

    # -- ASGI ----------------------------------------------------------------------------------------------

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request. What goes wrong in an answer is logged here and told as 500, without details."""
        if scope["type"] != "http":
            await send({"type": "websocket.close"})  # before accepting: the server answers 403
            return
        try:
            served = self.answer(
                scope["method"], scope["path"], scope["query_string"].decode("latin-1"), _headers(scope["headers"])
            )
        except Exception:
            log.exception("console_answer_failed")
            served = _text(500, "something went wrong here; it is in the log")
        headers = [(name.encode(), value.encode("latin-1")) for name, value in served.headers]
        await send({"type": "http.response.start", "status": served.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else served.body})


def _headers(raw: list[tuple[bytes, bytes]]) -> dict[str, str]:
    """Names to values; a name given twice has its values joined, so that no reader can pick the other one."""
    headers: dict[str, str] = {}
    for name, value in raw:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return headers


def _text(status: int, text: str, *more: tuple[str, str]) -> Served:
    return _served(status, TEXT, f"{text}\n".encode(), *more)


def _served(status: int, kind: str, body: bytes, *more: tuple[str, str]) -> Served:
    own = (("content-type", kind), ("content-length", str(len(body))))
    careful = (("cache-control", "no-store"), ("x-content-type-options", "nosniff"))
    return Served(status=status, headers=(*own, *careful, *more), body=body)
