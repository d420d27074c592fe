"""`group`: the groups of the reference Logic, in its file or in Redis, also while it runs."""

from __future__ import annotations

import argparse
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from gateway.cli.failure import CommandFailed
from gateway.config import Config, load
from gateway.logic import groups
from gateway.logic.settings import STORE_FILE
from gateway.logic.store import StoreFailed

if TYPE_CHECKING:
    from gateway.backends.settings_redis import RedisSettings
    from gateway.logic.groups_redis import RedisGroups

OnFile = Callable[[Path], object]
InRedis = Callable[["RedisGroups"], Awaitable[object]]


def create(arguments: argparse.Namespace) -> int:
    """Make a group, with members."""
    group, members, name = arguments.group, arguments.members, arguments.name
    return _told(
        arguments,
        lambda path: groups.create_group(path, group, members, name=name),
        lambda redis: redis.create(group, members, name=name),
    )


def add(arguments: argparse.Namespace) -> int:
    """Add members."""
    group, members = arguments.group, arguments.members
    return _told(
        arguments, lambda path: groups.add_members(path, group, members), lambda redis: redis.add(group, members)
    )


def remove(arguments: argparse.Namespace) -> int:
    """Remove members."""
    group, members = arguments.group, arguments.members
    return _told(
        arguments, lambda path: groups.remove_members(path, group, members), lambda redis: redis.remove(group, members)
    )


def delete(arguments: argparse.Namespace) -> int:
    """Remove a group."""
    group = arguments.group
    return _told(arguments, lambda path: groups.delete_group(path, group), lambda redis: redis.delete(group))


def list(arguments: argparse.Namespace) -> int:  # named as it is typed
    """Print the groups, one a line."""
    user = arguments.user
    return _told(
        arguments, lambda path: [*groups.list_groups(path, of_user=user)], lambda redis: redis.list(of_user=user)
    )


def _told(arguments: argparse.Namespace, on_file: OnFile, in_redis: InRedis) -> int:
    config = load(arguments.config, flags=arguments.flags, files=False).config
    try:
        shared = config.logic.redis or config.redis
        if config.logic.store == "redis" and shared is not None:
            answer = trio.run(_ask_redis, shared, in_redis)
        else:
            answer = _ask_file(config, on_file)
    except (groups.GroupError, StoreFailed) as error:
        raise CommandFailed(str(error)) from None
    for group in answer if isinstance(answer, tuple | type([])) else [answer]:
        if isinstance(group, groups.Group):
            print(_line(group))
    return 0


def _ask_file(config: Config, ask: OnFile) -> object:
    path = Path(config.data_dir) / STORE_FILE
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return ask(path)
    except OSError as error:
        raise CommandFailed(f"cannot use {str(path.parent)!r}: {error.strerror}") from None


async def _ask_redis(settings: RedisSettings, ask: InRedis) -> object:
    from gateway.backends.asyncio_thread import AsyncioThread
    from gateway.logic.groups_redis import RedisGroups

    async with AsyncioThread() as thread, RedisGroups.open(settings, thread) as opened:
        return await ask(opened)


def _line(group: groups.Group) -> str:
    name = f" {group.name}" if group.name else ""
    return f"{group.group_id}{name}: {' '.join(map(str, group.members)) or 'nobody'}"
