"""The promises of FileStore as tests. Whoever implements FileStore derives from FileStoreContract."""

from __future__ import annotations

import hashlib

import msgspec
import pytest

from gateway.core.file_store import FileStore, FileWriter, StoreBusy, StoredFile
from gateway.protocol.files import file_key

CONTENT = bytes(range(256)) * 500


def stored(content: bytes = CONTENT, *, owner: int = 1001, file_id: str = "f-1", **fields: object) -> StoredFile:
    """A file as it is offered."""
    file = StoredFile(
        owner=owner,
        key=file_key(file_id),
        to_user=1002,
        group_id=0,
        name="a.bin",
        size=len(content),
        sha256=hashlib.sha256(content).digest(),
        content_type="",
    )
    return msgspec.structs.replace(file, **fields)


async def begin(store: FileStore, file: StoredFile, *, restart: bool = False) -> FileWriter:
    """A writer: the file is not there yet."""
    writer = await store.write(file, restart=restart)
    assert not isinstance(writer, StoredFile)
    return writer


async def put(store: FileStore, file: StoredFile, content: bytes = CONTENT) -> bool:
    """Write a file whole."""
    writer = await begin(store, file)
    try:
        await writer.write(content[writer.received :])
        return await writer.finish()
    finally:
        await writer.close()


class FileStoreContract:
    """Needs fixture `store` (empty) and `other` (the same files, as another node sees them)."""

    async def test_what_is_written_can_be_read(self, store: FileStore, other: FileStore) -> None:
        file = stored()
        writer = await begin(store, file)
        assert writer.received == 0
        for start in range(0, len(CONTENT), 50_000):
            await writer.write(CONTENT[start : start + 50_000])
            assert writer.received == min(len(CONTENT), start + 50_000)
        assert await store.open(file.owner, file.key) is None  # not before it is whole
        assert await writer.finish()
        await writer.close()
        for each in (store, other):
            reader = await each.open(file.owner, file.key)
            assert reader is not None
            assert reader.file == file
            assert await reader.read(0, len(CONTENT)) == CONTENT
            assert await reader.read(len(CONTENT) - 3, 10) == CONTENT[-3:]
            await reader.close()
            await reader.close()
            assert await each.write(file, restart=False) == file
            assert await each.usage(file.owner) == msgspec.structs.replace(
                await store.usage(1), files=1, bytes=len(CONTENT)
            )
        assert (await store.usage(file.owner, but=file.key)).files == 0

    async def test_an_empty_file_is_a_file(self, store: FileStore) -> None:
        assert await put(store, stored(b""), b"")
        reader = await store.open(1001, file_key("f-1"))
        assert reader is not None
        assert await reader.read(0, 10) == b""
        await reader.close()

    async def test_what_is_not_there_is_none(self, store: FileStore) -> None:
        assert await store.open(1001, file_key("no such file")) is None
        assert (await store.usage(1001)).files == 0
        assert await store.expire(whole=0, partial=0) == 0

    async def test_an_interrupted_file_goes_on_where_it_stopped(self, store: FileStore, other: FileStore) -> None:
        file = stored()
        writer = await begin(store, file)
        await writer.write(CONTENT[:70_000])
        await writer.close()
        again = await begin(other, file)
        assert again.received == 70_000
        await again.write(CONTENT[70_000:])
        assert await again.finish()
        await again.close()

    async def test_begun_anew_or_for_other_bytes_it_begins_with_the_first(self, store: FileStore) -> None:
        first, second = stored(), stored(CONTENT[:9], name="b.bin")
        for file, restart in ((first, True), (second, False)):
            writer = await begin(store, first)
            await writer.write(CONTENT[:70_000])
            await writer.close()
            writer = await begin(store, file, restart=restart)
            assert writer.received == 0
            await writer.close()

    async def test_other_bytes_than_the_digest_says_leave_nothing(self, store: FileStore) -> None:
        for content in (b"x" * len(CONTENT), CONTENT[:-1]):
            assert not await put(store, stored(), content)
            assert (await store.usage(1001)).files == 0
        assert await put(store, stored())

    async def test_discarded_it_is_gone(self, store: FileStore) -> None:
        writer = await begin(store, stored())
        await writer.write(b"abc")
        await writer.discard()
        await writer.close()
        assert (await store.usage(1001)).files == 0
        assert (await begin(store, stored())).received == 0

    async def test_one_writes_at_a_time(self, store: FileStore, other: FileStore) -> None:
        writer = await begin(store, stored())
        for each in (store, other):
            with pytest.raises(StoreBusy):
                await each.write(stored(), restart=True)
            assert await each.expire(whole=-1, partial=-1) == 0
        await writer.close()
        await writer.close()
        await (await begin(other, stored())).close()

    async def test_users_do_not_meet(self, store: FileStore) -> None:
        assert await put(store, stored(b"mine"), b"mine")
        assert await put(store, stored(b"yours", owner=1002), b"yours")
        for owner, content in ((1001, b"mine"), (1002, b"yours")):
            reader = await store.open(owner, file_key("f-1"))
            assert reader is not None
            assert await reader.read(0, 99) == content
            await reader.close()
            assert (await store.usage(owner)).bytes == len(content)

    async def test_old_ones_expire_and_stay_readable_for_who_reads_them(self, store: FileStore) -> None:
        await put(store, stored())
        partial = await begin(store, stored(file_id="f-2"))
        await partial.write(b"abc")
        await partial.close()
        assert await store.expire(whole=3600, partial=3600) == 0
        reader = await store.open(1001, file_key("f-1"))
        assert reader is not None
        assert await store.expire(whole=3600, partial=-1) == 1
        assert (await store.usage(1001)).files == 1
        assert await store.expire(whole=-1, partial=3600) == 1
        assert await reader.read(0, 5) == CONTENT[:5]
        await reader.close()
        assert await store.open(1001, file_key("f-1")) is None
        assert (await store.usage(1001)).files == 0
