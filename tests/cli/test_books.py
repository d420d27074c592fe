"""`books`: what consoles show, as one account."""

from __future__ import annotations

from functools import partial

import pytest
import trio

from gateway.cli import main
from gateway.cli.books import ask, read
from gateway.cli.failure import CommandFailed
from gateway.console.metrics import exposition
from gateway.core.books import Account
from gateway.core.books_cluster import between, merged
from gateway.core.metrics import Metrics
from tests.console.asking import Shown, console

NODE = [Account("frames", 3, {"heartbeat": 1, "accepted": 2}), Account("published", 2, {"upstreams": 2})]
LOGIC = [Account("logic_upstreams", 2, {"stored": 1, "waiting": 1})]


class Off(Shown):
    """A process whose books do not add up."""

    def books(self) -> list[Account]:
        return [Account("frames", 3, {"heartbeat": 1})]


def test_what_is_shown_is_read_back() -> None:
    assert read(exposition(Metrics(), NODE, ready=True).decode()) == NODE


def test_the_books_of_several_are_their_sums_and_what_is_between_them() -> None:
    assert merged([NODE, NODE])[0] == Account("frames", 6, {"heartbeat": 2, "accepted": 4})
    crossings = {account.name: account for account in between([NODE, NODE, LOGIC])}
    assert crossings["nodes_to_logic"] == Account("nodes_to_logic", 4, {"arrived": 2})
    assert crossings["nodes_to_logic"].difference == 2
    assert crossings["to_nodes"].balanced


async def test_the_command_prints_them_and_its_exit_code_says_whether_they_add_up(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with console(Shown()) as good, console(Off()) as off:
        where = [f"127.0.0.1:{good.port}", f"http://127.0.0.1:{off.port}/"]
        assert await trio.to_thread.run_sync(main, ["books", where[0]]) == 0
        assert "DOES NOT" not in (said := capsys.readouterr().out)
        assert said.splitlines()[0].split() == ["frames", "3"]
        assert await trio.to_thread.run_sync(main, ["books", *where]) == 1
        said = capsys.readouterr().out
        assert "DOES NOT ADD UP BY" in said
        assert "between them" in said


async def test_a_console_that_cannot_be_asked_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    async with console(Shown(), token="t" * 16) as shut:
        with pytest.raises(CommandFailed, match="401"):
            await trio.to_thread.run_sync(ask, f"127.0.0.1:{shut.port}")
        found = await trio.to_thread.run_sync(partial(ask, f"127.0.0.1:{shut.port}", "t" * 16))
        assert found[0].name == "frames"
    assert await trio.to_thread.run_sync(main, ["books", "127.0.0.1:1"]) == 1
    assert capsys.readouterr().err.startswith("gateway: the console at http://127.0.0.1:1 cannot be asked:")
