"""The terminal chat behind `python -m gateway chat`.

    code = trio.run(chat, ChatOptions(urls=["tcp://127.0.0.1:9000"], token=token, user=1002, to=1001, state=path))

Knows no configuration and makes no token: whoever calls it does.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import msgspec
import trio

from gateway.client.chat_files import ChatFiles
from gateway.client.chat_input import read_lines
from gateway.client.chat_screen import Screen, screen
from gateway.client.chat_state import ChatState, StateUnreadable, open_state
from gateway.client.client import Client, connect
from gateway.client.endpoint import parse_urls
from gateway.client.errors import ClientError, SendTimeout, UnsupportedTransport
from gateway.client.files import file_of
from gateway.client.messages import OfferedFile, Receipt, Synced
from gateway.client.settings import ClientSettings
from gateway.client.token import TokenSource
from gateway.client.trust import Trust
from gateway.protocol.ids import checked_name, new_message_id

DONE, FAILED, MISUSED = 0, 1, 2
RECEIVED = "received"
"""Where fetched files are put, in the data directory."""
LAST_WORDS = 10.0
"""Seconds after the end of input in which what was typed may be acknowledged and what was missed be shown."""


class ChatOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line says."""

    urls: Sequence[str]
    """One, or several ways to the same server, best first."""
    token: TokenSource
    """A text, or a callable that makes a fresh one for each login."""
    user: int
    to: int = 0
    group: int = 0
    device: str = ""
    """`terminal-{user}` when not given."""
    data_dir: Path = Path(".gateway")
    state: Path | None = None
    """The file that remembers what was shown; one in `data_dir` when not given."""
    json: bool = False
    trust: Trust | None = None
    settings: ClientSettings = ClientSettings()


async def chat(options: ChatOptions) -> int:
    """Talk until the end of input, Ctrl-C or SIGTERM.

    Returns:
        0; 1 when there was no connection, it was ended for good, or something typed was not acknowledged;
        2 when the options cannot be. Each failure is one line on standard error.
    """
    try:
        device = checked_name(options.device or f"terminal-{options.user}", "the device")
        urls = [each.url for each in parse_urls(options.urls)]
        if options.user <= 0 or (options.to > 0) == (options.group > 0):
            raise ValueError("say who you are, and either whom or which group you talk to")
        if options.state is not None:
            state = ChatState(options.state, urls, options.user, device)
            state.load()
        else:
            state = open_state(options.data_dir, urls, options.user, device)
    except (UnsupportedTransport, ValueError, StateUnreadable) as error:
        return _failed(error, MISUSED)
    try:
        await _until_signal(_Talk(options, device, state))
    except BrokenPipeError:  # nobody reads any more
        return DONE
    except (ClientError, OSError) as error:
        return _failed(error, FAILED)
    return DONE


def _failed(error: Exception, code: int) -> int:
    print(f"chat: {error}", file=sys.stderr, flush=True)
    return code


async def _until_signal(talk: _Talk) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:

            async def leave() -> None:
                async for _ in signals:
                    nursery.cancel_scope.cancel()

            nursery.start_soon(leave)
            await talk.run()
            nursery.cancel_scope.cancel()
    if talk.failure is not None:
        raise talk.failure


class _Talk:
    """One run of the chat: three tasks that print deliveries, print notices, and send lines."""

    def __init__(self, options: ChatOptions, device: str, state: ChatState) -> None:
        self._options = options
        self._device = device
        self._state = state
        self._screen: Screen = screen(user=options.user, machines=options.json)
        self._files = ChatFiles(self._screen, options.data_dir / RECEIVED, to=options.to, group=options.group)
        self._synced = trio.Event()
        self._lost = 0
        self.failure: Exception | None = None

    async def run(self) -> None:
        """Raises nothing but trio.Cancelled; `failure` is what ended it."""
        options = self._options
        connecting = connect(
            options.urls,
            token=options.token,
            device_id=self._device,
            platform="terminal",
            cursor=self._state.cursor,
            trust=options.trust,
            settings=options.settings,
        )
        try:
            async with connecting as client, trio.open_nursery() as nursery:
                self._files.begin(nursery)
                for task in (self._show_notices, self._show_deliveries):
                    nursery.start_soon(self._guarded, task, client, nursery.cancel_scope)
                await self._guarded(self._send_lines, client, nursery.cancel_scope)
                nursery.cancel_scope.cancel()
        except (ClientError, OSError) as error:
            self.failure = self.failure or error

    async def _guarded(
        self, task: Callable[[Client], Awaitable[None]], client: Client, scope: trio.CancelScope
    ) -> None:
        try:
            await task(client)
        except (ClientError, OSError) as error:
            self.failure = self.failure or error
            scope.cancel()

    async def _show_deliveries(self, client: Client) -> None:
        async for delivery in client:
            file = file_of(delivery)
            if file is None:
                self._screen.delivery(delivery)
            else:
                self._files.offered(file)
            self._state.save(client.cursor)
            if not self._options.json:
                await client.mark_read(delivery)

    async def _show_notices(self, client: Client) -> None:
        async for notice in client.notices:
            if isinstance(notice, OfferedFile):
                self._files.offered(notice)
                continue
            self._screen.notice(notice)
            if isinstance(notice, Receipt):
                self._state.save(client.cursor)  # our own messages have places, too
            elif isinstance(notice, Synced):
                self._synced.set()

    async def _send_lines(self, client: Client) -> None:
        if sys.stdin is not None:
            async for line in read_lines(sys.stdin.fileno()):
                if line.strip() and not self._files.command(line, client):
                    await self._send(client, line)
        await self._files.wait_idle()
        with trio.move_on_after(LAST_WORDS):
            await client.wait_acknowledged()
            await self._synced.wait()
            while client.statistics().buffered:
                await trio.sleep(0.01)
        self._lost += len(client.unacknowledged)
        if self._lost:
            raise ClientError(f"{self._lost} of your messages were not acknowledged")
        if self._files.failed:
            raise ClientError(f"{self._files.failed} of your files were not sent")

    async def _send(self, client: Client, line: str) -> None:
        msg_id = new_message_id()
        self._screen.sent(msg_id, line)
        try:
            await client.send(line, to_user=self._options.to, group_id=self._options.group, msg_id=msg_id, wait=None)
        except (ValueError, SendTimeout) as error:
            self._lost += 1
            self._screen.failed(line, str(error))
