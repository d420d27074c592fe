"""Files across a cluster whose nodes share a directory: NATS carries the word, the directory the bytes."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from gateway.backends.asyncio_thread import AsyncioThread
from gateway.backends.settings_redis import RedisSettings
from gateway.client import FileFailed, file_of
from gateway.logic.groups_redis import RedisGroups
from gateway.protocol.codes import Code
from tests.cluster.world import PATIENCE, World

ANNA, BO, CLEO = 1001, 1002, 1003


@pytest.mark.slow
async def test_what_is_sent_on_one_node_is_fetched_on_the_other(world: World, tmp_path: Path) -> None:
    source = tmp_path / "holiday.jpg"
    source.write_bytes(bytes(range(256)) * 8192)
    with trio.fail_after(PATIENCE):
        async with (
            world.client(ANNA, "node-1") as anna,
            world.client(BO, "node-2") as bo,
            world.client(CLEO, "node-2") as cleo,
        ):
            await anna.send_file(source, to_user=BO)
            file = file_of(await bo.__anext__())
            assert file is not None
            await bo.fetch(file, tmp_path / "got")
            with pytest.raises(FileFailed) as refused:
                await cleo.fetch(file, tmp_path / "stolen")
            assert refused.value.code == Code.INVALID_PAYLOAD
            redis = RedisSettings(port=world.cluster.redis_port)
            async with AsyncioThread() as thread, RedisGroups.open(redis, thread) as groups:
                await groups.create(7, [ANNA, BO])
            await bo.send_file(source, group_id=7)
            file = file_of(await anna.__anext__())
            assert file is not None
            await anna.fetch(file, tmp_path / "got too")
            with pytest.raises(FileFailed):
                await cleo.fetch(file, tmp_path / "stolen")
    assert (tmp_path / "got").read_bytes() == (tmp_path / "got too").read_bytes() == source.read_bytes()
