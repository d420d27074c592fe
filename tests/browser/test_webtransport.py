"""WebTransport in a real browser: the chat page, falling back, close codes both ways, streams that the server opens."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.browser.chromium import Browser
from tests.browser.node import NodeProcess
from tests.browser.pages import serving_pages
from tests.browser.test_chat import mine, theirs


def test_two_pages_talk_over_webtransport(node: NodeProcess, first: Browser, second: Browser) -> None:
    alice, bob = first.chat(node.console, 1001, 1002), second.chat(node.console_by_name, 1002, 1001)
    for page, user in ((alice, 1001), (bob, 1002)):
        page.await_state("ready")
        assert page.text("#state") == f"Connected as {user} over WebTransport"
    alice.say("hello")
    bob.await_messages(theirs("hello"))
    alice.await_ticks("read")
    bob.driver.find_element("id", "text").send_keys("thinking")
    alice.until("says who types", lambda: alice.text("#typing") == "User 1002 is typing…")
    bob.say(" aloud")
    alice.await_messages(mine("hello"), theirs("thinking aloud"))
    assert first.complaints() == second.complaints() == []


@pytest.mark.parametrize("how", ["closed", "a black hole"])
def test_a_page_falls_back_to_websocket_where_udp_is(how: str, tmp_path: Path, first: Browser, second: Browser) -> None:
    with serving_pages() as pages, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as hole:
        hole.bind(("127.0.0.1", 0))
        port = hole.getsockname()[1]
        if how == "closed":
            hole.close()
        node = NodeProcess(tmp_path, origins=(pages.origin,))
        try:
            node.start()
            url = f"https://127.0.0.1:{port}/im"
            pages.serve(node.websocket, url, lambda user: node.token(user, 600.0))
            page = first.chat(pages.origin, 1001, 1002)
            page.await_state("ready")
            assert page.text("#state") == "Connected as 1001 over WebSocket"
            other = second.chat(node.console, 1002, 1001)
            other.await_state("ready")
            assert other.text("#state") == "Connected as 1002 over WebTransport"
            page.say("by another way")
            other.await_messages(theirs("by another way"))
            remembered = first.driver.execute_script("return JSON.stringify({ ...localStorage })")
            assert '\\"kind\\":\\"websocket\\"' in remembered
        finally:
            node.kill()


CLOSE_CODES = """
const [user, done] = arguments;
(async () => {
  const { webTransport: { url, certificateHashes } } = await (await fetch(`/dev/token?user=${user}`)).json();
  const bytes = (hex) => Uint8Array.from(hex.match(/../g), (pair) => parseInt(pair, 16));
  const serverCertificateHashes = certificateHashes.map((hex) => ({ algorithm: "sha-256", value: bytes(hex) }));
  const opened = async () => {
    const session = new WebTransport(url, { serverCertificateHashes, protocols: ["im.v1"] });
    await session.ready;
    return session;
  };
  const ours = await opened();
  ours.close({ closeCode: 4403, reason: "nothing heard" });
  const theirs = await opened();
  const control = await theirs.createBidirectionalStream();
  const writer = control.writable.getWriter();
  await writer.write(Uint8Array.of(1, 0xff, 0xff, 0xff, 0xff, 0, 1));
  const { closeCode, reason } = await theirs.closed;
  const wrong = (await (await opened()).createUnidirectionalStream()).getWriter();
  wrong.write(Uint8Array.of(9)).catch(() => {});
  const stopped = await wrong.closed.then(() => null, (error) => error.streamErrorCode);
  done({ closeCode, reason, stopped, protocol: theirs.protocol ?? null });
})().catch((error) => done({ error: String(error) }));
"""


def test_close_codes_arrive_in_both_directions(node: NodeProcess, first: Browser) -> None:
    first.driver.get(node.console)
    told: dict[str, Any] = first.driver.execute_async_script(CLOSE_CODES, 1001)
    assert told["closeCode"] == 4001, told
    assert told["reason"]
    assert told["stopped"] == 4002, "an unknown lane, by the code of the stream"
    closed = re.findall(r'"session_closed_by_client", "code": (\d+), "reason": "([^"]*)"', node.said())
    assert ("4403", "nothing heard") in closed
    assert told["protocol"] in ("im.v1", None), "None: a browser without the option"


def test_the_page_shows_the_code_of_its_end(node: NodeProcess, first: Browser) -> None:
    older = first.chat(node.console, 1001, 1002)
    older.await_state("ready")
    assert older.text("#state").endswith("over WebTransport")
    first.new_window()
    newer = first.chat(node.console, 1001, 1002)
    newer.await_state("ready")
    older.focus()
    older.until("stops with the reason", lambda: older.state() == ("stopped", 4200))


SERVER_STREAMS = """
const [url, hash, done] = arguments;
(async () => {
  const value = Uint8Array.from(hash.match(/../g), (pair) => parseInt(pair, 16));
  const session = new WebTransport(url, { serverCertificateHashes: [{ algorithm: "sha-256", value }] });
  await session.ready;
  const text = async (readable) => new Response(readable).text();
  const { value: asked } = await session.incomingBidirectionalStreams.getReader().read();
  const question = await text(asked.readable);
  const writer = asked.writable.getWriter();
  await writer.write(new TextEncoder().encode(`answer to ${question}`));
  await writer.close();
  const { value: told } = await session.incomingUnidirectionalStreams.getReader().read();
  const echoed = await text(told);
  const draining = session.draining ? await session.draining.then(() => true) : null;
  const datagrams = (session.datagrams.createWritable?.() ?? session.datagrams.writable).getWriter();
  const again = setInterval(() => datagrams.write(new TextEncoder().encode("parting")).catch(() => {}), 50);
  const { closeCode, reason } = await session.closed;
  clearInterval(again);
  done({ echoed, draining, closeCode, reason });
})().catch((error) => done({ error: String(error) }));
"""


def test_streams_that_the_server_opens_work_in_both_directions(tmp_path: Path, first: Browser) -> None:
    with serving_pages() as pages:
        command = [sys.executable, "-m", "tests.browser.session_server", str(tmp_path), pages.origin]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            try:
                assert server.stdout is not None
                url, fingerprint = server.stdout.readline().split()
                first.driver.get(pages.origin)
                told = first.driver.execute_async_script(SERVER_STREAMS, url, fingerprint)
            finally:
                server.kill()
    assert (told["closeCode"], told["reason"]) == (4202, "parting"), told
    assert told["echoed"] == "\x03ANSWER TO QUESTION"
    assert told["draining"] in (True, None)


FOREIGN = """
const [url, hash, done] = arguments;
const value = Uint8Array.from(hash.match(/../g), (pair) => parseInt(pair, 16));
const session = new WebTransport(url, { serverCertificateHashes: [{ algorithm: "sha-256", value }] });
session.closed.catch(() => {});
session.ready.then(() => done("let in"), () => done("refused"));
"""


def test_t09_a_page_of_a_foreign_origin_is_refused(tmp_path: Path, node: NodeProcess, first: Browser) -> None:
    first.driver.get(node.console)
    told = first.driver.execute_async_script(
        "const done = arguments[0]; fetch('/dev/token?user=1').then(async (answer) => done(await answer.json()))"
    )
    with serving_pages() as pages:
        first.driver.get(pages.origin)
        address = told["webTransport"]
        assert first.driver.execute_async_script(FOREIGN, address["url"], address["certificateHashes"][0]) == "refused"
