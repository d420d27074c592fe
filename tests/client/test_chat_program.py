"""`python -m gateway chat`, as people use it: separate processes, a real node, terminals that are closed."""

from __future__ import annotations

import json
import os
import pty
import socket
from pathlib import Path

import pytest
import trio

from tests.client.program import Machine, Program, interrupt, started

ANNA, BO = 1001, 1002
either = pytest.mark.parametrize("kind", ["tcp", "ws"])


def missed(program: Program) -> list[str]:
    """What was shown as missed, without time and sender."""
    start = program.lines.index("-- missed while away:")
    end = next(at for at, line in enumerate(program.lines) if line.endswith(" missed") and line.startswith("-- "))
    return [line.split(" ", 2)[2] for line in program.lines[start + 1 : end]]


@either
async def test_two_chats_talk_and_the_one_that_was_closed_sees_what_it_missed(kind: str, tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    async with machine.node(), machine.chat(kind, ANNA, BO) as anna:
        async with machine.chat(kind, BO, ANNA) as bo:
            await anna.until("-- nothing missed")
            await bo.until("-- nothing missed")
            await anna.type("hej Bo")
            assert (await bo.until(f"{ANNA}: ")).endswith(f" {ANNA}: hej Bo")
            await anna.until("✓✓ read: hej Bo")
            await bo.type("hej Anna")
            assert (await anna.until(f"{BO}: ")).endswith(f" {BO}: hej Anna")
            assert await bo.leave() == 0
        await anna.type("one", "two", "three")
        for text in ("one", "two", "three"):
            await anna.until(f"✓  {text}")
        async with machine.chat(kind, BO, ANNA) as bo:
            await bo.until("-- 3 missed")
            assert missed(bo) == ["one", "two", "three"]
            await anna.until("✓✓ read: three")
            assert await bo.leave() == 0
            assert [line for line in bo.lines if not line.startswith("-- ")] == bo.lines[2:5]
        async with machine.chat(kind, BO, ANNA) as bo:
            await bo.until("-- nothing missed")
            interrupt(bo)
            assert await bo.ended() == 0
            assert bo.errors == []


@either
async def test_kill_9_of_the_node_between_sending_and_coming_back(kind: str, tmp_path: Path) -> None:
    """And kill -9 of the terminal before it. What was ticked as stored is there; the sender's chat goes on."""
    machine = Machine(tmp_path)
    async with machine.node() as first, machine.chat(kind, ANNA, BO) as anna:
        async with machine.chat(kind, BO, ANNA) as bo:
            await anna.type("before")
            await bo.until(": before")
            await anna.until("✓✓ read: before")
            await bo.kill()
        await anna.type("one", "two", "three")
        for text in ("one", "two", "three"):
            await anna.until(f"✓  {text}")
        await first.kill()
        await anna.until("connecting again in")
        await anna.type("typed while it was away")
        async with machine.node():
            async with machine.chat(kind, BO, ANNA) as bo:
                await bo.until(lambda line: ": three" in line)
                assert [line.split(" ", 2)[2] for line in bo.lines[2:5]] == ["one", "two", "three"]
                await anna.until("connected again to")
                await anna.until("✓✓ read: typed while it was away")
                assert await bo.leave() == 0
                assert sum("typed while" in line for line in bo.lines) == 1
                assert sum(line.endswith(": before") for line in bo.lines) == 0
            async with machine.chat(kind, BO, ANNA) as bo:
                await bo.until("-- nothing missed")
            assert await anna.leave() == 0


async def test_a_chat_takes_the_best_way_and_stays_over_a_kill(tmp_path: Path) -> None:
    """Without --url: QUIC, whose certificate is found beside the key. A node that was killed is found again."""
    machine = Machine(tmp_path)
    async with (
        machine.node() as node,
        started(*machine.configured(ANNA, BO)) as anna,
        started(*machine.words("tcp", BO, ANNA)) as bo,
    ):
        assert f"connected to quic://127.0.0.1:{machine.ports['quic']} (QUIC)" in await anna.until("connected")
        await bo.until("(TCP)")
        await anna.type("one")
        await bo.until("one")
        await node.kill()
        await anna.type("two")
        async with machine.node():
            await bo.until("two")
            await anna.until("connected again")
            assert await anna.leave() == await bo.leave() == 0
            assert [line.endswith("two") for line in bo.lines].count(True) == 1


async def test_for_machines(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    async with machine.node():
        async with machine.chat("tcp", ANNA, BO, "--json", "--state", str(tmp_path / "mine")) as anna:
            await anna.type("hej")
            await anna.until('"stored"')
            assert await anna.leave() == 0
            kinds = [json.loads(line)["type"] for line in anna.lines]
            assert {"sent", "state", "synced", "receipt"} == set(kinds)
        assert json.loads((tmp_path / "mine").read_text())["cursor"] == 1
        async with started(*machine.words("tcp", BO, ANNA), "--json") as bo:
            assert json.loads(await bo.until('"message"'))["content"] == "hej"


async def test_on_a_terminal(tmp_path: Path) -> None:
    """Typed lines come by the terminal's own editing; its end of input (Ctrl-D) leaves."""
    machine = Machine(tmp_path)
    async with machine.node():
        master, slave = pty.openpty()
        async with started(*machine.words("tcp", ANNA, BO), stdin=slave) as anna:
            os.close(slave)
            await anna.until("-- nothing missed")
            os.write(master, b"helo\x7f\x7fllo\n")
            await anna.until("✓  hello")
            os.write(master, b"\x04")
            assert await anna.ended() == 0
        os.close(master)


async def test_errors_are_one_line(tmp_path: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        here = ("chat", "--user", "1", "--to", "2", "--data-dir", str(tmp_path))
        async with (
            started(*here, "--url", f"tcp://127.0.0.1:{silent.getsockname()[1]}") as nobody,
            started(*here, "--url", "gopher://127.0.0.1:70") as other,
        ):
            assert await other.ended() == 2
            with trio.fail_after(5):
                while not other.errors:
                    await trio.sleep(0.01)
            assert other.lines == []
            (line,) = other.errors
            assert line.startswith(
                "chat: 'gopher://127.0.0.1:70': scheme 'gopher' is not supported; supported are quic://"
            )
            await trio.sleep(0.2)
            assert nobody.process.returncode is None  # it goes on trying for a while: the node may be starting
            interrupt(nobody)
            assert await nobody.ended() == 0


async def test_files_are_sent_and_fetched_beside_the_talk(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    content = os.urandom(300_000)
    (tmp_path / "cat pictures.zip").write_bytes(content)
    async with machine.node(), machine.chat("tcp", ANNA, BO) as anna, machine.chat("tcp", BO, ANNA) as bo:
        await anna.type(f"/send {tmp_path}/cat pictures.zip", "there you are")
        await anna.until("✓  file ")
        offer = await bo.until(f"{ANNA} sends a file: cat pictures.zip (300.0 kB); /fetch 1")
        assert offer
        for number in (1, 2):
            await bo.type("/fetch")
            path = Path((await bo.until("-- fetched: ")).removeprefix("-- fetched: "))
            assert path.name == ("cat pictures.zip" if number == 1 else "cat pictures (2).zip")
            assert await trio.Path(path).read_bytes() == content
        await bo.type("/fetch 7", "/send /no/such/file", f"/send {path} to {ANNA}")
        await bo.until("✗ /fetch: there is no file 7")
        await bo.until("✗ /send /no/such/file: ")
        await anna.until(f"{BO} sends a file: cat pictures (2).zip")
        assert await anna.leave() == 0
        assert await bo.leave() == 1  # one file of his was not sent
