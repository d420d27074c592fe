"""Pages of a test's own on loopback: the chat page with addresses that the test chooses, and an empty one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from gateway.console.browser import BrowserPage, WebTransportAddress


class PageServer:
    """Serves until the block ends. `page` may be set later than the port is known."""

    def __init__(self, port: int) -> None:
        self.origin = f"http://127.0.0.1:{port}"
        self.port = port
        self.page: BrowserPage | None = None

    def serve(self, websocket_url: str, webtransport_url: str, issue_token: Callable[[int], str]) -> None:
        """From now on: the chat page, with these addresses."""
        self.page = BrowserPage(
            console_port=self.port,
            websocket_url=websocket_url,
            issue_token=issue_token,
            webtransport=lambda: WebTransportAddress(webtransport_url, ("00" * 32,)),
        )


@contextmanager
def serving_pages() -> Iterator[PageServer]:
    """A page server on a port of its own; without a `page`, every path is an empty one."""
    holder: list[PageServer] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            page = holder[0].page
            parts = urlsplit(self.path)
            headers = {name.lower(): value for name, value in self.headers.items()}
            served = page.answer("GET", parts.path, parts.query, headers) if page is not None else None
            self.send_response(served.status if served else 200 if page is None else 404)
            body = served.body if served else b"<!doctype html><title>empty</title>"
            for name, value in served.headers if served else (("content-type", "text/html"),):
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        holder.append(PageServer(server.server_address[1]))
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield holder[0]
        finally:
            server.shutdown()
            thread.join()
