"""What was Stored is there: after a restart, after kill -9, and whoever opens the file together with us."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
import trio

from gateway.logic.database import connect
from gateway.logic.groups import create_group, list_groups
from gateway.protocol.types import AckStatus
from tests.logic.world import open_world

ROOT = Path(__file__).parents[2]


def child(*args: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.logic.crash_child", *args],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("lines", [1, 90, 333])
async def test_kill_9_after_stored_loses_nothing(path: Path, lines: int) -> None:
    with child("talk", str(path)) as process:
        assert process.stdout is not None
        said = list(itertools.islice(process.stdout, lines))
        process.send_signal(signal.SIGKILL)
        said += process.stdout.readlines()
        assert process.wait(20) == -signal.SIGKILL
    assert len(said) >= lines
    stored = [line.split() for line in said if line.endswith("\n")]
    async with open_world(path) as world:
        for user in range(1, 6):
            history = await world.device(user).history()
            assert [chat.server_seq for chat in history] == list(range(1, len(history) + 1))
            mine = {(chat.msg_id, chat.server_seq) for chat in history if chat.from_user == user}
            assert {(msg_id, int(seq)) for who, msg_id, seq in stored if int(who) == user} <= mine
            # what was stored and not acknowledged is acknowledged when it is sent again, at its old place
            last = max(mine, key=lambda each: each[1])
            device = world.device(user)
            device.chat(last[0], user % 5 + 1)
            await world.settle()
            assert [(ack.msg_id, ack.server_seq) for ack in device.acks] == [last]


async def test_a_restart_goes_on_where_it_was(path: Path) -> None:
    for round_ in range(3):
        async with open_world(path) as world:
            alice, bob = world.device(1), await world.device(2).online()
            alice.chat(f"m{round_}", 2)
            alice.chat("m0", 2)
            await world.settle()
            assert [(ack.msg_id, ack.status) for ack in alice.acks] == [
                (f"m{round_}", AckStatus.STORED),
                ("m0", AckStatus.STORED),
            ]
            assert alice.acks[0].server_seq == round_ + 1
            assert alice.acks[1].server_seq == 1
            assert [chat.server_seq for chat in bob.chats] == [round_ + 1]


def test_many_processes_open_a_new_store_at_once(path: Path) -> None:
    path.parent.mkdir()
    processes = [child("open", str(path), str(user)) for user in range(2, 6)]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        create_group(path, 7, [1, 2])
        for process in processes:
            out, err = process.communicate(timeout=60)
            assert out == "ok\n", err
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert [group.group_id for group in list_groups(path)] == [7]

    async def check() -> None:
        async with open_world(path) as world:
            history = await world.device(1).history()
            assert [chat.server_seq for chat in history] == [1, 2, 3, 4]
            assert {chat.from_user for chat in history} == {2, 3, 4, 5}

    trio.run(check)


def test_many_threads_open_a_new_store_at_once(tmp_path: Path) -> None:
    """The same race, tried more often."""

    def open_them(path: Path) -> None:
        with ThreadPoolExecutor(8) as pool:
            for done in [pool.submit(create_group, path, group, [group]) for group in range(1, 9)]:
                done.result(60)

    for round_ in range(10):
        path = tmp_path / f"{round_}.sqlite"
        open_them(path)
        assert [each.group_id for each in list_groups(path)] == list(range(1, 9))


def test_a_commit_waits_for_the_disk(path: Path) -> None:
    """kill -9 cannot show this: what the kernel has been given survives the process anyway."""
    with closing(connect(path)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
