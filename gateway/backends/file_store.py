"""The FileStore in a directory, which several nodes may share. Disk I/O and the threads for it live here.

    {directory}/{owner}/{key}.json   what is known of the file
    {directory}/{owner}/{key}.part   what has come of it so far; locked (flock) while somebody writes it
    {directory}/{owner}/{key}.data   the whole file

A `.part` becomes `.data` by a rename after its bytes and its name are on the disk: there is no half `.data`.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import msgspec
import trio

from gateway.core.file_store import FileReader, FileWriter, StoreBroken, StoreBusy, StoredFile, StoreFull, Usage

T = TypeVar("T")

BLOCK: Final = 1_048_576
"""Bytes hashed at a time when an interrupted file is gone on with."""
TRIES: Final = 8
"""Times that a file vanishes between looking and locking before that is called an error."""
FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

_KEY = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)
_ENTRY = re.compile(r"([A-Za-z0-9_-]{43})\.(json|part|data)", re.ASCII)


class DirectoryFileStore:
    """A FileStore in `directory`, made when it is first written to."""

    def __init__(self, directory: Path, *, threads: int = 4, keep_free: int = 0) -> None:
        """
        Args:
            directory: where; its owner alone may read it.
            threads: calls that are at the disk at the same time; others wait.
            keep_free: bytes of its file system below which nothing new is begun.
        """
        self._directory = directory
        self._keep_free = keep_free
        self._limiter = trio.CapacityLimiter(threads)

    async def write(self, file: StoredFile, *, restart: bool) -> FileWriter | StoredFile:
        found = await self._run(partial(self._begin, file, restart))
        return _Writer(self, *found) if isinstance(found, tuple) else found

    async def open(self, owner: int, key: str) -> FileReader | None:
        found = await self._run(partial(self._open, owner, key))
        return None if found is None else _Reader(self, *found)

    async def usage(self, owner: int, *, but: str = "") -> Usage:
        return await self._run(partial(self._usage, owner, but))

    async def expire(self, *, whole: float, partial: float) -> int:
        removed = 0
        for folder in await self._run(self._folders):  # one at a time, so that others get their turn
            removed += await self._run(_expiring(folder, whole, partial))
        return removed

    async def run(self, step: Callable[[], T]) -> T:
        """Do `step` in a thread, errors of the system translated; for the writers and readers."""
        return await self._run(step)

    async def _run(self, step: Callable[[], T]) -> T:
        try:
            return await trio.to_thread.run_sync(step, limiter=self._limiter)
        except OSError as error:
            kind = StoreFull if error.errno in FULL else StoreBroken
            raise kind(os.strerror(error.errno) if error.errno else str(error)) from error

    # -- in a thread ---------------------------------------------------------------------------------------

    def _base(self, owner: int, key: str) -> Path:
        """Where a file's entries are, without their endings."""
        if owner <= 0 or _KEY.fullmatch(key) is None:
            raise ValueError(f"no file can be called {owner}/{key[:80]!r}")
        return self._directory / str(int(owner)) / key

    def _begin(self, file: StoredFile, restart: bool) -> StoredFile | tuple[StoredFile, Path, int, int, hashlib._Hash]:
        base = self._base(file.owner, file.key)
        base.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _held(base) as descriptor:
            if _with(base, ".data").exists():
                known = _read_known(base)
                if known is not None:
                    _forget(base, ".part")  # our own, made by locking
                    return known
                _forget(base, ".data")  # nobody can open it
            self._check_room(file.size)
            size = os.fstat(descriptor).st_size
            digest = hashlib.sha256()
            if restart or size > file.size or _read_known(base) != file:
                os.ftruncate(descriptor, 0)
                _write_known(base, file)
                size = 0
            else:
                _hash(descriptor, size, digest)
            return file, base, os.dup(descriptor), size, digest  # the lock is both descriptors'

    def _check_room(self, size: int) -> None:
        if self._keep_free:
            system = os.statvfs(self._directory)
            if system.f_bavail * system.f_frsize - size < self._keep_free:
                raise OSError(errno.ENOSPC, "too little would stay free")

    def _open(self, owner: int, key: str) -> tuple[StoredFile, int] | None:
        base = self._base(owner, key)
        try:
            descriptor = os.open(_with(base, ".data"), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        known = _read_known(base)
        if known is None:
            os.close(descriptor)
            return None
        return known, descriptor

    def _usage(self, owner: int, but: str) -> Usage:
        files = size = 0
        for entry, key, kind in _entries(self._directory / str(int(owner))):
            if kind != "json" and key != but:
                with suppress(FileNotFoundError):
                    size += entry.stat(follow_symlinks=False).st_size
                    files += 1
        return Usage(files=files, bytes=size)

    def _folders(self) -> list[Path]:
        try:
            with os.scandir(self._directory) as found:
                return [Path(entry.path) for entry in found if entry.name.isdecimal() and entry.is_dir()]
        except FileNotFoundError:
            return []


class _Writer:
    def __init__(
        self, store: DirectoryFileStore, file: StoredFile, base: Path, descriptor: int, size: int, digest: hashlib._Hash
    ) -> None:
        self._store = store
        self._file = file
        self._base = base
        self._descriptor = descriptor
        self._digest = digest
        self._received = size

    @property
    def received(self) -> int:
        return self._received

    async def write(self, data: bytes) -> None:
        await self._store.run(partial(self._append, data))

    async def finish(self) -> bool:
        return await self._store.run(self._finish)

    async def discard(self) -> None:
        with suppress(StoreFull, StoreBroken):
            await self._store.run(partial(_forget, self._base, ".part", ".json"))

    async def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with trio.CancelScope(shield=True), suppress(StoreFull, StoreBroken):
                await self._store.run(partial(os.close, descriptor))

    def _append(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            done = 0
            while done < len(view):
                done += os.pwrite(self._descriptor, view[done:], self._received + done)
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._descriptor, self._received)
            raise
        self._digest.update(data)
        self._received += len(data)

    def _finish(self) -> bool:
        if self._received != self._file.size or self._digest.digest() != self._file.sha256:
            _forget(self._base, ".part", ".json")
            return False
        os.fsync(self._descriptor)
        _with(self._base, ".part").rename(_with(self._base, ".data"))
        _sync_folder(self._base.parent)
        _sync_folder(self._base.parent.parent)
        return True


class _Reader:
    def __init__(self, store: DirectoryFileStore, file: StoredFile, descriptor: int) -> None:
        self._store = store
        self._file = file
        self._descriptor = descriptor

    @property
    def file(self) -> StoredFile:
        return self._file

    async def read(self, offset: int, count: int) -> bytes:
        return await self._store.run(partial(os.pread, self._descriptor, count, offset))

    async def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with trio.CancelScope(shield=True), suppress(StoreFull, StoreBroken):
                await self._store.run(partial(os.close, descriptor))


def _with(base: Path, ending: str) -> Path:
    return base.parent / (base.name + ending)


def _lock(base: Path) -> int:
    """The `.part`, locked, and certainly the one that its name leads to: another node may just have renamed it."""
    path = _with(base, ".part")
    for _ in range(TRIES):
        base.parent.mkdir(mode=0o700, exist_ok=True)  # an empty one may just have expired
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), path.stat(follow_symlinks=False)):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            raise StoreBusy("this file is being received already") from None
        except FileNotFoundError:
            pass
        os.close(descriptor)
    raise OSError(errno.ESTALE, "the file vanishes again and again")


@contextmanager
def _held(base: Path) -> Iterator[int]:
    descriptor = _lock(base)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _hash(descriptor: int, size: int, digest: hashlib._Hash) -> None:
    offset = 0
    while offset < size and (block := os.pread(descriptor, BLOCK, offset)):
        digest.update(block)
        offset += len(block)


def _read_known(base: Path) -> StoredFile | None:
    try:
        return msgspec.json.decode(_with(base, ".json").read_bytes(), type=StoredFile)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None


def _write_known(base: Path, file: StoredFile) -> None:
    """Replace it in one step, on the disk before its name is."""
    descriptor, draft = tempfile.mkstemp(dir=base.parent, prefix=".")
    try:
        with open(descriptor, "wb") as output:
            output.write(msgspec.json.encode(file))
            output.flush()
            os.fsync(output.fileno())
        Path(draft).rename(_with(base, ".json"))
    finally:
        Path(draft).unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _forget(base: Path, *endings: str) -> None:
    for ending in endings:
        _with(base, ending).unlink(missing_ok=True)


def _entries(folder: Path) -> Iterator[tuple[os.DirEntry[str], str, str]]:
    """(entry, key, kind) of everything in a user's folder that is ours."""
    try:
        with os.scandir(folder) as found:
            for entry in found:
                match = _ENTRY.fullmatch(entry.name)
                if match is not None:
                    yield entry, match[1], match[2]
    except FileNotFoundError:
        return


def _expiring(folder: Path, whole: float, partial: float) -> Callable[[], int]:
    return lambda: _expire(folder, whole, partial)


def _expire(folder: Path, whole: float, partial: float) -> int:
    """Remove what is too old, in one user's folder, and the folder itself when nothing is left in it."""
    now = time.time()
    kinds: dict[str, set[str]] = {}
    old: set[tuple[str, str]] = set()
    for entry, key, kind in _entries(folder):
        kinds.setdefault(key, set()).add(kind)
        with suppress(FileNotFoundError):
            age = now - entry.stat(follow_symlinks=False).st_mtime
            if age > (whole if kind == "data" else partial):
                old.add((key, kind))
    removed = 0
    for key, found in kinds.items():
        base = folder / key
        if (key, "data") in old:
            _forget(base, ".data", ".json")
            removed += 1
        elif (key, "part") in old:
            removed += _expire_partial(base, but=".json" if "data" in found else "")
        elif found == {"json"} and (key, "json") in old:
            _forget(base, ".json")  # a node died between the two
    with suppress(OSError):
        _expire_drafts(folder, now - partial)
        folder.rmdir()
    return removed


def _expire_partial(base: Path, but: str) -> int:
    with suppress(StoreBusy), _held(base):
        _forget(base, *({".part", ".json"} - {but}))
        return 1
    return 0


def _expire_drafts(folder: Path, before: float) -> None:
    for path in folder.glob(".*"):
        if path.stat().st_mtime < before:
            path.unlink(missing_ok=True)
