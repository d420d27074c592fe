"""`group`: the groups of the embedded Logic, in its store, also while the node runs."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from gateway.cli.failure import CommandFailed
from gateway.config import load
from gateway.logic import groups
from gateway.logic.settings import STORE_FILE
from gateway.logic.store import StoreFailed


def create(arguments: argparse.Namespace) -> int:
    """Make a group, with members."""
    return _told(
        arguments, lambda path: groups.create_group(path, arguments.group, arguments.members, name=arguments.name)
    )


def add(arguments: argparse.Namespace) -> int:
    """Add members."""
    return _told(arguments, lambda path: groups.add_members(path, arguments.group, arguments.members))


def remove(arguments: argparse.Namespace) -> int:
    """Remove members."""
    return _told(arguments, lambda path: groups.remove_members(path, arguments.group, arguments.members))


def delete(arguments: argparse.Namespace) -> int:
    """Remove a group."""
    return _told(arguments, lambda path: groups.delete_group(path, arguments.group))


def list(arguments: argparse.Namespace) -> int:  # named as it is typed
    """Print the groups, one a line."""
    return _told(arguments, lambda path: [*groups.list_groups(path, of_user=arguments.user)])


def _told(arguments: argparse.Namespace, ask: Callable[[Path], object]) -> int:
    path = Path(load(arguments.config, flags=arguments.flags, files=False).config.data_dir) / STORE_FILE
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        answer = ask(path)
    except (groups.GroupError, StoreFailed) as error:
        raise CommandFailed(str(error)) from None
    except OSError as error:
        raise CommandFailed(f"cannot use {str(path.parent)!r}: {error.strerror}") from None
    for group in answer if isinstance(answer, tuple | type([])) else [answer]:
        if isinstance(group, groups.Group):
            print(_line(group))
    return 0


def _line(group: groups.Group) -> str:
    name = f" {group.name}" if group.name else ""
    return f"{group.group_id}{name}: {' '.join(map(str, group.members)) or 'nobody'}"
