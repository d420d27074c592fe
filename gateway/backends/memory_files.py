"""The FileStore in memory: the test double of the directory, with the same promises but those about power cuts."""

from __future__ import annotations

import hashlib
import time

import msgspec
import trio

from gateway.core.file_store import FileReader, FileWriter, StoreBusy, StoredFile, StoreFull, Usage

Key = tuple[int, str]


class _Kept:
    __slots__ = ("at", "content", "file", "whole", "writing")

    def __init__(self, file: StoredFile) -> None:
        self.file = file
        self.content = bytearray()
        self.whole = False
        self.writing = False
        self.at = time.monotonic()


class MemoryFileStore:
    """Keeps files for as long as it lives itself; `room` is how many bytes it takes in all."""

    def __init__(self, *, room: int = 2**40) -> None:
        self.room = room
        self._kept: dict[Key, _Kept] = {}

    async def write(self, file: StoredFile, *, restart: bool) -> FileWriter | StoredFile:
        await trio.lowlevel.checkpoint()
        kept = self._kept.get((file.owner, file.key))
        if kept is not None and kept.whole:
            return kept.file
        if kept is not None and kept.writing:
            raise StoreBusy("this file is being received already")
        if kept is None or restart or kept.file != file:
            kept = self._kept[file.owner, file.key] = _Kept(file)
        kept.writing = True
        return _Writer(self, kept)

    async def open(self, owner: int, key: str) -> FileReader | None:
        await trio.lowlevel.checkpoint()
        kept = self._kept.get((owner, key))
        return _Reader(kept) if kept is not None and kept.whole else None

    async def usage(self, owner: int, *, but: str = "") -> Usage:
        await trio.lowlevel.checkpoint()
        mine = [kept for (user, key), kept in self._kept.items() if user == owner and key != but]
        return Usage(files=len(mine), bytes=sum(len(kept.content) for kept in mine))

    async def expire(self, *, whole: float, partial: float) -> int:
        await trio.lowlevel.checkpoint()
        now = time.monotonic()
        old = [
            key
            for key, kept in self._kept.items()
            if not kept.writing and now - kept.at > (whole if kept.whole else partial)
        ]
        for key in old:
            del self._kept[key]
        return len(old)

    @property
    def size(self) -> int:
        """Bytes in all files."""
        return sum(len(kept.content) for kept in self._kept.values())

    def forget(self, kept: _Kept) -> None:
        """Remove one; for the writers."""
        self._kept.pop((kept.file.owner, kept.file.key), None)


class _Writer:
    def __init__(self, store: MemoryFileStore, kept: _Kept) -> None:
        self._store = store
        self._kept = kept

    @property
    def received(self) -> int:
        return len(self._kept.content)

    async def write(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        if self._store.size + len(data) > self._store.room:
            raise StoreFull("no room")
        self._kept.content += data
        self._kept.at = time.monotonic()

    async def finish(self) -> bool:
        await trio.lowlevel.checkpoint()
        file = self._kept.file
        digest = hashlib.sha256(self._kept.content).digest()
        if len(self._kept.content) != file.size or digest != file.sha256:
            self._store.forget(self._kept)
            return False
        self._kept.whole = True
        return True

    async def discard(self) -> None:
        await trio.lowlevel.checkpoint()
        self._store.forget(self._kept)

    async def close(self) -> None:
        self._kept.writing = False


class _Reader:
    def __init__(self, kept: _Kept) -> None:
        self._kept = kept

    @property
    def file(self) -> StoredFile:
        return msgspec.structs.replace(self._kept.file)

    async def read(self, offset: int, count: int) -> bytes:
        await trio.lowlevel.checkpoint()
        return bytes(self._kept.content[offset : offset + count])

    async def close(self) -> None:
        """Nothing to let go."""
