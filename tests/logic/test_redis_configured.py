"""The store by configuration: what a node keeps in Redis, and groups from the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

import gateway
from gateway.backends.settings_redis import RedisSettings
from gateway.cli import main
from gateway.cluster import open_store, open_thread
from gateway.config import Config, ConfigError, check
from gateway.logic.settings import LogicSettings
from gateway.logic.store import History, Post, Posted
from gateway.logic.store_redis import RedisStore

KEPT = LogicSettings(store="redis")


def test_it_needs_redis(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"logic\.store: redis needs section redis"):
        check(Config(logic=KEPT, data_dir=str(tmp_path)))


async def test_what_is_configured_is_opened(redis: RedisSettings, tmp_path: Path) -> None:
    config = Config(logic=KEPT, redis=redis, data_dir=str(tmp_path))
    for repeated in (False, True):
        async with open_thread(config) as thread, open_store(config, thread) as store:
            assert isinstance(store, RedisStore)
            [posted] = await store.write([Post(1, "m", 2, 0, "x", 0, 1)], 1)
            assert isinstance(posted, Posted)
            assert posted.repeated == repeated
            [page] = await store.read([History(2, 0, 10, 1000)])
            assert [each.msg_id for each in page.entries] == ["m"]


async def test_a_node_with_it_makes_no_file(redis: RedisSettings, tmp_path: Path) -> None:
    config = Config(logic=KEPT, redis=redis, data_dir=str(tmp_path))
    with trio.fail_after(20):
        async with gateway.open_node(config) as node:
            assert node.config.logic.store == "redis"
    assert not (tmp_path / "logic.sqlite").exists()


def test_groups_from_the_command_line(
    redis: RedisSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(f'[logic]\nstore = "redis"\n[redis]\nport = {redis.port}\nprefix = "{redis.prefix}"\n')
    monkeypatch.setenv("GATEWAY_CONFIG", str(file))
    for words in ("create 7 3 1 --name friends", "create 8", "add 7 2", "remove 7 3", "delete 8", "list"):
        assert main(["group", *words.split()]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "7 friends: 1 3",
        "8: nobody",
        "7 friends: 1 2 3",
        "7 friends: 1 2",
        "7 friends: 1 2",
    ]
    assert main(["group", "add", "9", "1"]) != 0
    assert "there is no group 9" in capsys.readouterr().err
