"""Files in the terminal chat: `/send PATH [to USER]` and `/fetch [NUMBER]`, each beside the talk.

What others send is numbered as it is shown, and fetched to a folder of its own under a name that is free there.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import trio

from gateway.client.bell import Bell
from gateway.client.chat_screen import Screen
from gateway.client.client import Client
from gateway.client.errors import ClientError
from gateway.client.messages import OfferedFile
from gateway.protocol.files import name_problem

REMEMBERED: Final = 1000
"""Files that can still be fetched by their number."""

_SEND = re.compile(r"/send\s+(?P<path>.+?)(?:\s+to\s+(?P<user>[1-9][0-9]{0,18}))?\s*", re.ASCII)
_FETCH = re.compile(r"/fetch(?:\s+(?P<number>[0-9]{1,9}))?\s*", re.ASCII)


class ChatFiles:
    """What was offered, and what is under way."""

    def __init__(self, screen: Screen, folder: Path, *, to: int, group: int) -> None:
        self._screen = screen
        self._folder = folder
        self._to = to
        self._group = group
        self._offered: dict[int, OfferedFile] = {}
        self._numbers: dict[str, int] = {}
        self._count = 0
        self._nursery: trio.Nursery | None = None
        self._running = 0
        self._ended = Bell()
        self.failed = 0
        """Files of ours that were not sent."""

    def begin(self, nursery: trio.Nursery) -> None:
        """Where transfers run; they raise nothing."""
        self._nursery = nursery

    async def wait_idle(self) -> None:
        """Return when none is under way: each is given up when it stands still."""
        while self._running:
            await self._ended.wait()

    def offered(self, file: OfferedFile) -> None:
        """Show it, once."""
        if file.reference in self._numbers:
            return
        self._count += 1
        self._numbers[file.reference] = self._count
        self._offered[self._count] = file
        if len(self._offered) > REMEMBERED:
            oldest = self._offered.pop(next(iter(self._offered)))
            del self._numbers[oldest.reference]
        self._screen.file(self._count, file)

    def command(self, line: str, client: Client) -> bool:
        """Do what a line says, if it is one of ours."""
        if (send := _SEND.fullmatch(line)) is not None:
            user = int(send["user"] or 0)
            self._start(self._send, client, Path(send["path"]).expanduser(), user)
        elif (fetch := _FETCH.fullmatch(line)) is not None:
            self._start(self._fetch, client, int(fetch["number"] or self._count))
        else:
            return False
        return True

    def _start(self, transfer: Callable[..., Awaitable[None]], *args: object) -> None:
        async def run() -> None:
            try:
                await transfer(*args)
            finally:
                self._running -= 1
                self._ended.ring()

        assert self._nursery is not None
        self._running += 1
        self._nursery.start_soon(run)

    async def _send(self, client: Client, path: Path, user: int) -> None:
        to, group = (user, 0) if user else (self._to, self._group)
        try:
            sent = await client.send_file(path, to_user=to, group_id=group)
        except (ClientError, OSError, ValueError) as error:
            self.failed += 1
            self._screen.failed(f"/send {path}", str(error))
        else:
            self._screen.file_done(str(path), sent.reference, fetched=False)

    async def _fetch(self, client: Client, number: int) -> None:
        file = self._offered.get(number)
        if file is None:
            self._screen.failed("/fetch", f"there is no file {number}")
            return
        try:
            path = free_path(self._folder, file.name)
            await client.fetch(file, path)
        except (ClientError, OSError, ValueError) as error:
            self._screen.failed(f"/fetch {number}", str(error))
        else:
            self._screen.file_done(str(path), file.reference, fetched=True)


def free_path(folder: Path, name: str) -> Path:
    """Where a file of this name can be put. Its name is somebody else's word: never a path, never hidden.

    Raises:
        ValueError: it cannot be a file's name.
    """
    problem = name_problem(name)
    if problem:
        raise ValueError(problem)
    name = name.lstrip(".") or "file"
    stem, dot, ending = name.rpartition(".")
    stem, ending = (stem, dot + ending) if stem else (name, "")
    path, count = folder / name, 1
    while path.exists():
        count += 1
        path = folder / f"{stem} ({count}){ending}"
    return path
