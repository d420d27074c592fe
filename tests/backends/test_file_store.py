"""The directory of files (and its double in memory): the contract, and what only a disk can do to it."""

import errno
import os
import time
from pathlib import Path

import pytest

from gateway.backends.file_store import DirectoryFileStore
from gateway.backends.memory_files import MemoryFileStore
from gateway.core.file_store import FileStore, StoreBroken, StoreFull
from gateway.protocol.files import file_key
from tests.contracts.file_store import CONTENT, FileStoreContract, begin, put, stored


class TestDirectory(FileStoreContract):
    @pytest.fixture
    async def store(self, tmp_path: Path) -> FileStore:
        return DirectoryFileStore(tmp_path / "files")

    @pytest.fixture
    async def other(self, tmp_path: Path) -> FileStore:
        return DirectoryFileStore(tmp_path / "files")


class TestMemory(FileStoreContract):
    @pytest.fixture
    async def store(self) -> FileStore:
        return MemoryFileStore()

    @pytest.fixture
    async def other(self, store: FileStore) -> FileStore:
        return store


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


async def test_nobody_else_on_the_machine_may_read_it(tmp_path: Path) -> None:
    store = DirectoryFileStore(tmp_path / "files")
    await put(store, stored())
    for path in (tmp_path / "files").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


async def test_a_key_is_never_a_path(tmp_path: Path) -> None:
    store = DirectoryFileStore(tmp_path / "files")
    for key in ("", "..", "../../" + "a" * 37, "a" * 42 + "/", "a" * 42 + "\0", "a" * 43 + "\n", "a" * 44):
        with pytest.raises(ValueError, match="no file can be called"):
            await store.open(1001, key)
        with pytest.raises(ValueError, match="no file can be called"):
            await store.write(stored(key=key), restart=False)
    with pytest.raises(ValueError, match="no file can be called"):
        await store.open(-1, file_key("f"))
    assert not (tmp_path / "files").exists()


async def test_a_link_put_in_its_way_is_not_followed(tmp_path: Path) -> None:
    store = DirectoryFileStore(tmp_path / "files")
    await put(store, stored())
    data = next((tmp_path / "files").rglob("*.data"))
    victim = tmp_path / "victim"
    victim.write_bytes(b"secret")
    data.unlink()
    data.symlink_to(victim)
    with pytest.raises(StoreBroken):
        await store.open(1001, file_key("f-1"))
    (data.parent / f"{file_key('f-2')}.part").symlink_to(victim)
    with pytest.raises(StoreBroken):
        await store.write(stored(file_id="f-2"), restart=True)
    assert victim.read_bytes() == b"secret"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
async def test_a_full_disk_is_said_and_nothing_is_counted_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    store = DirectoryFileStore(tmp_path / "files")
    writer = await begin(store, stored())
    await writer.write(CONTENT[:1000])
    real = os.pwrite
    calls = iter([10])  # ten bytes still fit

    def full(descriptor: int, data: memoryview, offset: int) -> int:
        for room in calls:
            return real(descriptor, data[:room], offset)
        raise OSError(number, "full")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(StoreFull):
        await writer.write(CONTENT[1000:])
    assert writer.received == 1000
    monkeypatch.undo()
    await writer.close()
    writer = await begin(store, stored())
    assert writer.received == 1000
    await writer.write(CONTENT[1000:])
    assert await writer.finish()
    await writer.close()


async def test_what_must_stay_free_stays_free(tmp_path: Path) -> None:
    tight = DirectoryFileStore(tmp_path / "files", keep_free=2**53)
    with pytest.raises(StoreFull):
        await tight.write(stored(), restart=False)
    await (await begin(DirectoryFileStore(tmp_path / "files", keep_free=1), stored())).close()


async def test_a_disk_that_fails_at_the_end_leaves_no_half_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = DirectoryFileStore(tmp_path / "files")
    writer = await begin(store, stored())
    await writer.write(CONTENT)

    def broken(descriptor: int) -> None:
        raise OSError(errno.EIO, "no")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(StoreBroken):
        await writer.finish()
    monkeypatch.undo()
    await writer.close()
    assert await store.open(1001, file_key("f-1")) is None
    assert (await begin(store, stored())).received == len(CONTENT)


async def test_a_directory_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    (tmp_path / "files").write_bytes(b"")
    store = DirectoryFileStore(tmp_path / "files")
    with pytest.raises(StoreBroken):
        await store.write(stored(), restart=False)


async def test_what_a_dead_node_left_is_dealt_with(tmp_path: Path) -> None:
    store = DirectoryFileStore(tmp_path / "files")
    await put(store, stored())
    folder = tmp_path / "files" / "1001"
    key = file_key("f-1")
    (folder / f"{key}.json").write_bytes(b"{torn")
    assert await store.open(1001, key) is None  # nobody can say whose it is
    assert await put(store, stored())
    (folder / f"{key}.part").write_bytes(b"beside the whole")
    (folder / f"{file_key('f-3')}.json").write_bytes(b"{}")
    (folder / ".draft").write_bytes(b"")
    long_ago = time.time() - 7200
    for path in folder.iterdir():
        os.utime(path, (long_ago, long_ago))
    assert await store.expire(whole=10_000, partial=3600) == 1
    assert names(folder) == [f"{key}.data", f"{key}.json"]
    assert await store.expire(whole=3600, partial=3600) == 1
    assert not folder.exists()


async def test_a_part_shorter_than_its_digest_begins_from_what_is_there(tmp_path: Path) -> None:
    """After a power cut the end of a `.part` may be missing: what counts is what is there."""
    store = DirectoryFileStore(tmp_path / "files")
    writer = await begin(store, stored())
    await writer.write(CONTENT[:50_000])
    await writer.close()
    part = next((tmp_path / "files").rglob("*.part"))
    os.truncate(part, 40_000)
    writer = await begin(store, stored())
    assert writer.received == 40_000
    await writer.write(CONTENT[40_000:])
    assert await writer.finish()
    await writer.close()
