"""Groups: who is in them, and messages and signals to them."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.logic import groups, store_sqlite
from gateway.logic.groups import (
    MAX_MEMBERS,
    Group,
    GroupError,
    add_members,
    create_group,
    delete_group,
    find_group,
    list_groups,
    remove_members,
)
from gateway.logic.store import StoreFailed
from gateway.protocol.codes import Code
from gateway.protocol.types import AckStatus
from tests.logic.world import open_world

STORED, REJECTED = AckStatus.STORED, AckStatus.REJECTED


def test_membership(path: Path) -> None:
    assert create_group(path, 7, [3, 1, 3], name="Team Süd").members == (1, 3)
    assert add_members(path, 7, [2, 3]).members == (1, 2, 3)
    assert remove_members(path, 7, [1, 99]).members == (2, 3)
    found = find_group(path, 7)
    assert (found.group_id, found.name, found.members) == (7, "Team Süd", (2, 3))
    assert found.created_at > 1_700_000_000_000
    create_group(path, 5, [2])
    assert [group.group_id for group in list_groups(path)] == [5, 7]
    assert [group.group_id for group in list_groups(path, of_user=3)] == [7]
    delete_group(path, 7)
    assert [group.group_id for group in list_groups(path)] == [5]
    assert create_group(path, 7).members == ()


def test_a_new_stores_file_is_its_owners_only(path: Path) -> None:
    create_group(path, 7)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("bad", [0, -1, 2**63, True])
def test_ids_out_of_range(path: Path, bad: int) -> None:
    with pytest.raises(GroupError, match="group id must be"):
        create_group(path, bad)
    with pytest.raises(GroupError, match="user id must be"):
        create_group(path, 7, [1, bad])
    assert list_groups(path) == []


def test_what_is_not_there_and_what_is(path: Path) -> None:
    for call in (
        lambda: add_members(path, 7, [1]),
        lambda: remove_members(path, 7, [1]),
        lambda: find_group(path, 7),
        lambda: delete_group(path, 7),
    ):
        with pytest.raises(GroupError, match="there is no group 7"):
            call()
    create_group(path, 7)
    with pytest.raises(GroupError, match="exists already"):
        create_group(path, 7)


@pytest.mark.parametrize("name", ["x" * 129, "a\nb", "\x1b[31m"])
def test_names_that_do_not_print(path: Path, name: str) -> None:
    with pytest.raises(GroupError, match="name"):
        create_group(path, 7, name=name)


def test_too_many_members_change_nothing(path: Path) -> None:
    create_group(path, 7, range(1, MAX_MEMBERS + 1))
    with pytest.raises(GroupError, match="at most"):
        add_members(path, 7, [MAX_MEMBERS + 1])
    assert len(find_group(path, 7).members) == MAX_MEMBERS


def test_a_file_that_is_no_store_is_said_so(tmp_path: Path) -> None:
    other = tmp_path / "notes.txt"
    other.write_text("not a database, whatever its name may be. " * 100)
    with pytest.raises(StoreFailed, match=r"notes\.txt"):
        list_groups(other)
    assert other.read_text().startswith("not a database")


async def test_a_message_reaches_every_member_but_its_sender(path: Path) -> None:
    create_group(path, 7, [1, 2, 3, 4])
    async with open_world(path) as world:
        alice, bob, carol = [await world.device(user).online() for user in (1, 2, 3)]
        stranger = await world.device(9).online()
        seq = alice.chat("g", group=7, content="all")
        await world.settle()
        assert [(at, ack.server_seq, ack.status) for at, ack in zip([seq], alice.acks, strict=True)] == [
            (seq, 1, STORED)
        ]
        assert stranger.received == []
        for device in (bob, carol):
            [chat] = device.chats
            assert (chat.from_user, chat.to_user, chat.group_id, chat.content, chat.server_seq) == (1, 0, 7, "all", 1)
        assert [chat.msg_id for chat in await world.device(4).history()] == ["g"]
        assert [chat.msg_id for chat in await alice.history()] == ["g"]


async def test_a_stranger_and_an_unknown_group_are_rejected(path: Path) -> None:
    create_group(path, 7, [1, 2])
    async with open_world(path) as world:
        bob = await world.device(2).online()
        stranger = world.device(9)
        stranger.chat("a", group=7)
        stranger.chat("b", group=8)
        stranger.chat("c", 2)
        await world.settle()
        assert [(ack.msg_id, ack.status, ack.code) for ack in stranger.acks] == [
            ("a", REJECTED, Code.INVALID_PAYLOAD),
            ("b", REJECTED, Code.INVALID_PAYLOAD),
            ("c", STORED, 0),
        ]
        assert [chat.msg_id for chat in bob.chats] == ["c"]


async def test_changes_count_from_the_next_message_while_the_node_runs(path: Path) -> None:
    create_group(path, 7, [1, 2])
    async with open_world(path) as world:
        alice = world.device(1)
        alice.chat("a", group=7)
        await world.settle()
        add_members(path, 7, [3])
        alice.chat("b", group=7)
        await world.settle()
        remove_members(path, 7, [1])
        alice.chat("c", group=7)
        alice.chat("b", group=7)
        await world.settle()
        assert [ack.status for ack in alice.acks] == [STORED, STORED, REJECTED, STORED]
        assert [chat.msg_id for chat in await world.device(3).history()] == ["b"]
        assert [chat.msg_id for chat in await world.device(2).history()] == ["a", "b"]


async def test_large_groups_are_stored_in_several_transactions(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_sqlite, "ENTRIES_PER_COMMIT", 25)
    create_group(path, 7, range(1, 11))
    create_group(path, 8, range(1, 101))
    async with open_world(path) as world:
        alice = world.device(1)
        for i in range(20):
            alice.chat(f"m{i}", group=8 if i % 5 == 4 else 7)
        await world.settle()
        assert [ack.server_seq for ack in alice.acks] == list(range(1, 21))
        for user in (1, 10):
            assert [chat.msg_id for chat in await world.device(user).history()] == [f"m{i}" for i in range(20)]
        assert [chat.msg_id for chat in await world.device(11).history()] == ["m4", "m9", "m14", "m19"]


async def test_signals_reach_members_only_and_only_from_members(path: Path) -> None:
    create_group(path, 7, [1, 2, 3])
    async with open_world(path) as world:
        alice, bob, carol, stranger = [await world.device(user).online() for user in (1, 2, 3, 9)]
        alice.signal(group=7, kind="typing")
        stranger.signal(group=7, kind="intrusion")
        alice.signal(group=8)
        await world.settle()
        assert alice.received == stranger.received == []
        for device in (bob, carol):
            assert [message for _, message in device.received] != []
            assert len(device.received) == 1


def test_the_surface() -> None:
    public = {name for name in vars(groups) if not name.startswith("_")}
    assert {"create_group", "delete_group", "add_members", "remove_members", "find_group", "list_groups"} <= public
    assert Group.__struct_fields__ == ("group_id", "name", "created_at", "members")


def test_a_directory_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreFailed, match="cannot open the message store"):
        list_groups(tmp_path / "file" / "logic.sqlite")
