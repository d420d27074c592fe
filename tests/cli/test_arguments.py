"""What can be typed, and the help that teaches it."""

from __future__ import annotations

import re

import pytest

from gateway import __version__
from gateway.cli.arguments import parse
from gateway.config import Flag
from gateway.config.tree import find

COMMANDS = ["run", "logic", "chat", "token", "config", "group", "books"]


def fails(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as caught:
        parse(words)
    assert caught.value.code == 2
    return capsys.readouterr().err


def test_nothing_is_run() -> None:
    assert parse([]).command.__name__ == parse(["run"]).command.__name__
    assert (
        parse(["--tcp-port", "1"]).flags
        == parse(["run", "--tcp-port", "1"]).flags
        == [Flag("--tcp-port", "tcp.port", "1")]
    )


def test_flags_are_settings_in_their_order() -> None:
    flags = parse(["--set", "tcp.port=1", "--tcp-port", "2", "--set", " region = a=b", "--data-dir", "d"]).flags
    assert flags == [
        Flag("--set tcp.port", "tcp.port", "1"),
        Flag("--tcp-port", "tcp.port", "2"),
        Flag("--set region", "region", " a=b"),
        Flag("--data-dir", "data_dir", "d"),
    ]
    assert parse(["run"]).flags == []


def test_every_short_flag_is_a_setting() -> None:
    from gateway.cli.arguments import _SHORT

    assert all(find(name.split(".")) is not None for _, name, _, _ in _SHORT)


def test_set_needs_a_value(capsys: pytest.CaptureFixture[str]) -> None:
    assert "say --set NAME=VALUE" in fails(capsys, "--set", "tcp.port")


@pytest.mark.parametrize("user", ["0", "-1", "x", "", "1.5", str(2**63), "1" * 30, "\u0661"])
def test_user_ids(capsys: pytest.CaptureFixture[str], user: str) -> None:
    assert "is no id" in fails(capsys, "token", "--user", user) or user == "-1"


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("15m", 900), ("12h", 43_200), ("7d", 604_800)])
def test_lengths_of_time(text: str, seconds: int) -> None:
    assert parse(["token", "--user", "1", "--ttl", text]).ttl == seconds


@pytest.mark.parametrize("text", ["0", "x", "1w", "-5", "1.5h", ""])
def test_no_lengths_of_time(capsys: pytest.CaptureFixture[str], text: str) -> None:
    assert fails(capsys, "token", "--user", "1", f"--ttl={text}")


def test_a_chat_needs_one_to_talk_to(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--to" in fails(capsys, "chat", "--user", "1")
    assert "not allowed with" in fails(capsys, "chat", "--user", "1", "--to", "2", "--group", "3")


def test_unknown_commands_and_flags(capsys: pytest.CaptureFixture[str]) -> None:
    assert "token" in fails(capsys, "tokn")
    assert "--tcp-prot" in fails(capsys, "--tcp-prot", "1")
    assert "--tcp-por" in fails(capsys, "--tcp-por", "1")  # no guessing from beginnings
    fails(capsys, "group")
    fails(capsys, "group", "add", "7")


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("--tcp-prot 1", "--tcp-port"),
        ("run --dta-dir x", "--data-dir"),
        ("config --jsno", "--json"),
        ("logic --console-prt=1", "--console-port"),
        ("group create 7 --nam x", "--name"),
        ("tokn --user 1", "token"),
    ],
)
def test_a_slip_is_one_line_that_says_what_was_meant(
    capsys: pytest.CaptureFixture[str], words: str, meant: str
) -> None:
    said = fails(capsys, *words.split())
    assert said.count("\n") == 1
    assert f"did you mean {meant}?" in said


def test_members_may_stand_behind_options(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ("7 1001 1002 --name x", "--name x 7 1001 1002", "7 --name x 1001 1002", "7 1001 --name x 1002"):
        found = parse(["group", "create", *words.split()])
        assert (found.group, found.members, found.name) == (7, [1001, 1002], "x")
    assert parse(["group", "create", "7", "--name", "x"]).members == []
    assert parse(["group", "add", "7", "--data-dir", "d", "1001"]).members == [1001]
    assert "'y' is no id" in fails(capsys, "group", "create", "7", "--name", "x", "y")
    assert "one word too many" in fails(capsys, "group", "delete", "7", "--data-dir", "d", "8")


def test_usage_is_what_can_be_typed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["group", "create", "--help"])
    assert capsys.readouterr().out.startswith("usage: python -m gateway group create [-h]")


def test_logic_has_a_console_port_of_its_own() -> None:
    assert parse(["logic", "--console-port", "1"]).flags == [Flag("--console-port", "logic.console_port", "1")]


@pytest.mark.parametrize(
    "words", [["--help"], ["-h"], *([each, "--help"] for each in COMMANDS), ["group", "add", "--help"]]
)
def test_help_teaches_by_example(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(words)
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    if words != ["group", "add", "--help"]:
        examples = re.findall(r"python -m gateway ?.*", shown.partition("examples:")[2])
        assert examples
    assert all(len(line) <= 120 for line in shown.splitlines())


def test_the_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--help"])
    shown = capsys.readouterr().out
    assert all(f"\n  {each} " in shown for each in COMMANDS)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"trio-gateway {__version__}\n"
