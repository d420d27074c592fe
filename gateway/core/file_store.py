"""The port to where files are kept. No driver lives here.

Every implementation passes the same contract suite (`tests/contracts`).
"""

from __future__ import annotations

from typing import Protocol

import msgspec


class StoredFile(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a file: whose it is, for whom, and what its bytes are. One of `to_user`, `group_id` is set."""

    owner: int
    """The user who sent it."""
    key: str
    """Its name in the store, unique for the owner: `protocol.files.file_key`."""
    to_user: int
    group_id: int
    name: str
    size: int
    sha256: bytes
    content_type: str


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What one user's files take, unfinished ones among them."""

    files: int
    bytes: int


class StoreFull(Exception):
    """There is no room for more (the disk, a quota, what must stay free)."""


class StoreBusy(Exception):
    """Somebody else is writing this very file, here or on another node."""


class StoreBroken(Exception):
    """The store cannot be used now: an I/O error, a directory that is not ours."""


class FileWriter(Protocol):
    """One file being received; nobody else writes it meanwhile. Calls do not overlap. Whoever has one closes it."""

    @property
    def received(self) -> int:
        """Bytes that are there: what came in earlier tries, and what was written."""

    async def write(self, data: bytes) -> None:
        """Append; a failure leaves `received` as it was.

        Raises:
            StoreFull, StoreBroken
        """

    async def finish(self) -> bool:
        """Make what was written the file. When True is returned it survives a power cut and can be opened.

        False: its bytes do not have the digest that was offered, and nothing of it is left.

        Raises:
            StoreFull, StoreBroken: it is not there; what was written may still be.
        """

    async def discard(self) -> None:
        """Leave nothing of it. Never raises but trio.Cancelled."""

    async def close(self) -> None:
        """Let go: what was written waits for the rest, unless it was finished or discarded. Never raises."""


class FileReader(Protocol):
    """One whole file. It stays readable until closed, also when it expires meanwhile."""

    @property
    def file(self) -> StoredFile:
        """What is known of it."""

    async def read(self, offset: int, count: int) -> bytes:
        """`count` bytes from `offset`; fewer only at the end.

        Raises:
            StoreBroken
        """

    async def close(self) -> None:
        """Let go. Never raises; idempotent."""


class FileStore(Protocol):
    """Keeps files by owner and key. Nothing waits for ever: each call is as slow as the disk is."""

    async def write(self, file: StoredFile, *, restart: bool) -> FileWriter | StoredFile:
        """Begin or go on with a file.

        Returns:
            A writer, behind the bytes of an interrupted try if that was for an equal `file` and `restart` is False;
            or, when a whole file of this owner and key is there already, what is known of that.

        Raises:
            StoreBusy, StoreFull, StoreBroken
        """

    async def open(self, owner: int, key: str) -> FileReader | None:
        """A whole file; None when there is none.

        Raises:
            StoreBroken
        """

    async def usage(self, owner: int, *, but: str = "") -> Usage:
        """What the owner's files take, without the one whose key is `but`.

        Raises:
            StoreBroken
        """

    async def expire(self, *, whole: float, partial: float) -> int:
        """Remove files that are older than so many seconds; returns how many. What is being written stays.

        Raises:
            StoreBroken
        """
