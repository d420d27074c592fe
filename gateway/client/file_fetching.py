"""Fetching a file: to a part beside where it is to be, checked, and gone on with over reconnections and restarts."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import trio

from gateway.client.backoff import Backoff
from gateway.client.connection import Connection
from gateway.client.errors import FileFailed
from gateway.client.files import Fetching, Lost, worth_another_try
from gateway.client.journal import Journal, wall_ms
from gateway.client.messages import OfferedFile
from gateway.protocol.codes import Code
from gateway.protocol.messages import FileAck, encode

RETRY: Final = 0.5
"""Seconds: the bound of the first pause after a refusal that may pass."""
PART: Final = ".part"
"""What the unfinished file is called, behind its name."""


class FileFetcher:
    """Fetches one file, once."""

    def __init__(
        self, journal: Journal, online: Callable[[], Awaitable[Connection]], file: OfferedFile, path: Path
    ) -> None:
        """`online` waits for a connection with a session, and raises what ended the client."""
        self._journal = journal
        self._online = online
        self._path = path
        self._part = path.with_name(path.name + PART)
        self._file = file
        self._fetching = Fetching(file, journal.settings.file_patience)
        self._descriptor = -1
        self._digest = hashlib.sha256()
        self._written = 0

    async def run(self) -> None:
        """Until it is at its place, with the bytes that its sender promised.

        Raises:
            FileFailed: refused, or nothing moved for too long, or other bytes came; what came of it is gone then.
            FileExistsError: there is something at its place already.
            OSError: it cannot be written.
            ClientClosed, Refused: the client has ended.
        """
        if self._path.exists():
            raise FileExistsError(f"{self._path} exists already")
        try:
            await trio.to_thread.run_sync(self._open)
            with (
                self._journal.files.fetching(self._fetching),
                self._fetching.patiently(f"fetching {self._file.name!r}"),
            ):
                await self._attempts()
                await trio.to_thread.run_sync(self._finish)
        finally:
            if self._descriptor >= 0:
                os.close(self._descriptor)

    async def _attempts(self) -> None:
        backoff = Backoff(RETRY, self._journal.settings.backoff_cap, self._journal.random)
        while True:
            connection = await self._online()
            self._fetching.begin_at(connection, self._written)
            try:
                await self._attempt(connection)
            except Lost:
                if connection.online:
                    await trio.sleep(backoff.delay())
            except FileFailed as failure:
                if not worth_another_try(failure):
                    raise
                await trio.sleep(backoff.delay())
            else:
                return

    async def _attempt(self, connection: Connection) -> None:
        fetching = self._fetching
        ask = FileAck(file_id=self._file.reference, received=self._written)
        connection.control(encode(ask, seq=connection.next_seq(), timestamp=wall_ms()))
        while True:
            await fetching.until(lambda: fetching.has_news)
            data = fetching.take()
            if self._written + len(data) > self._file.size:
                self._part.unlink(missing_ok=True)
                raise FileFailed("more bytes came than its sender promised", code=Code.INVALID_PAYLOAD)
            if data:
                await trio.to_thread.run_sync(self._append, data)
                fetching.moved()
            elif fetching.ended:
                return
            elif fetching.overflowed:
                enough = FileAck(file_id=self._file.reference, code=Code.SLOW_CONSUMER)
                connection.control(encode(enough, seq=connection.next_seq(), timestamp=wall_ms()))
                raise Lost

    # -- in a thread ---------------------------------------------------------------------------------------

    def _open(self) -> None:
        """What is there of it counts, if it is not too much."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._descriptor = os.open(self._part, flags, 0o600)
        if os.fstat(self._descriptor).st_size > self._file.size:
            os.ftruncate(self._descriptor, 0)
        while block := os.pread(self._descriptor, 1 << 20, self._written):
            self._digest.update(block)
            self._written += len(block)

    def _append(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            count = os.pwrite(self._descriptor, view, self._written)
            self._digest.update(view[:count])
            self._written += count
            view = view[count:]

    def _finish(self) -> None:
        if self._written != self._file.size or self._digest.digest() != self._file.sha256:
            self._part.unlink(missing_ok=True)
            raise FileFailed("other bytes came than its sender promised", code=Code.INVALID_PAYLOAD)
        os.fsync(self._descriptor)
        os.link(self._part, self._path)  # unlike a rename it replaces nothing
        self._part.unlink()
