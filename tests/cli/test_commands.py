"""token, config and group, called as functions: output, errors in one line, exit codes."""

from __future__ import annotations

import json
import os
import time
import tomllib
from pathlib import Path

import pytest

from gateway.backends.dev_keys import open_authenticator
from gateway.cli import main
from gateway.config import load
from gateway.core.ports import AuthRefused, Credentials, Identity


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings of the machine's, and a working directory of its own."""
    for name in [each for each in os.environ if each.startswith("GATEWAY_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def failure(capsys: pytest.CaptureFixture[str], *words: str, code: int = 1) -> str:
    assert main(words) == code
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("gateway: ")
    assert "Traceback" not in told.err
    return told.err


async def identity(token: str, device: str = "phone", *words: str) -> Identity:
    config = load(*words, environment={}).config
    credentials = Credentials(token=token, device_id=device, platform="ios", address="127.0.0.1")
    return await open_authenticator(config.auth, config.data_dir).authenticate(credentials)


async def test_a_token_is_printed_alone_and_is_good(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["token", "--user", "1001", "--ttl", "1h"]) == 0
    token = capsys.readouterr().out
    assert token.count("\n") == 1
    who = await identity(token.strip())
    assert who.user_id == 1001
    assert abs(who.expires_at - time.time() - 3600) < 60


async def test_a_token_for_one_device(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["token", "--user", "1001", "--device", "phone"]) == 0
    token = capsys.readouterr().out.strip()
    assert (await identity(token)).user_id == 1001
    with pytest.raises(AuthRefused):
        await identity(token, "tablet")
    assert "a device's name is" in failure(capsys, "token", "--user", "1", "--device", "a b")


async def test_a_token_by_a_configured_secret(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "g.toml").write_text(
        f'[auth]\nissuer = "us"\naudience = "chat"\n[auth.keys.a]\nalgorithm = "HS256"\nkey = "{"a" * 32}"\n'
        f'[auth.keys.b]\nalgorithm = "HS256"\nkey = "{"b" * 32}"\n'
    )
    assert "--kid a or --kid b" in failure(capsys, "token", "--user", "1", "--config", "g.toml")
    assert "there is no HS256 key 'c'" in failure(capsys, "token", "--user", "1", "--config", "g.toml", "--kid", "c")
    assert main(["token", "--user", "7", "--config", "g.toml", "--kid", "b"]) == 0
    assert (await identity(capsys.readouterr().out.strip(), "phone", "g.toml")).user_id == 7
    assert not (tmp_path / ".gateway").exists()


def test_no_token_without_a_secret(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from tests.backends.tokens import ED_KEY, pem

    (tmp_path / "key.pem").write_bytes(pem(ED_KEY.public_key()))
    public = ["--set", "auth.keys.a.algorithm=EdDSA", "--set", "auth.keys.a.file=key.pem"]
    assert "only has public keys" in failure(capsys, "token", "--user", "1", *public)


def test_a_key_that_cannot_be_trusted_is_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["token", "--user", "1", "--data-dir", "d"]) == 0
    capsys.readouterr()
    (tmp_path / "d" / "development.key").chmod(0o644)
    assert "can be read by others" in failure(capsys, "token", "--user", "1", "--data-dir", "d")


def test_wrong_configuration_is_exit_2_and_one_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (
        ["token", "--user", "1"],
        ["config"],
        ["group", "list"],
        ["run"],
        ["chat", "--user", "1", "--to", "2"],
    ):
        told = failure(capsys, *words, "--set", "tcp.prot=1", "--set", "log.level=loud", code=2)
        assert told == (
            "gateway: --set tcp.prot: unknown setting 'tcp.prot': did you mean 'tcp.port'?\n"
            "gateway: --set log.level: must be debug, info, warning or error, not 'loud'\n"
        )


def test_config_prints_what_is_in_effect(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_REGION", "eu")
    assert main(["config", "--tcp-port", "1"]) == 0
    shown = capsys.readouterr().out
    assert tomllib.loads(shown)["tcp"]["port"] == 1
    assert 'region = "eu"  # from environment GATEWAY_REGION' in shown
    assert main(["config", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["region"]["value"] == "eu"
    assert main(["config", "--defaults"]) == 0
    assert 'region = ""' in capsys.readouterr().out
    assert main(["config", "--markdown"]) == 0
    assert capsys.readouterr().out.startswith("# Configuration\n")


def test_groups(capsys: pytest.CaptureFixture[str]) -> None:
    def done(*words: str) -> str:
        assert main(["group", *words]) == 0
        return capsys.readouterr().out

    assert done("list") == ""
    assert done("create", "7", "1001", "1002", "--name", "friends") == "7 friends: 1001 1002\n"
    assert done("create", "8") == "8: nobody\n"
    assert done("add", "8", "1003", "1001") == "8: 1001 1003\n"
    assert done("remove", "7", "1002") == "7 friends: 1001\n"
    assert done("list") == "7 friends: 1001\n8: 1001 1003\n"
    assert done("list", "--user", "1003") == "8: 1001 1003\n"
    assert done("delete", "7") == ""
    assert "there is no group 7" in failure(capsys, "group", "add", "7", "1")
    assert "exists already" in failure(capsys, "group", "create", "8")


def test_groups_where_no_store_can_be(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "cannot use 'file'" in failure(capsys, "group", "list", "--data-dir", "file")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "logic.sqlite").write_text("this is no database, and never was one\n" * 100)
    assert "logic.sqlite" in failure(capsys, "group", "list", "--data-dir", "d")


def test_a_chat_that_cannot_be(capsys: pytest.CaptureFixture[str]) -> None:
    chat = ("chat", "--user", "1", "--to", "2")
    assert "--url tcp://" in failure(capsys, *chat, "--tcp-port", "0", "--set", "websocket.port=0")
    assert "cannot use 'none.pem'" in failure(capsys, *chat, "--ca", "none.pem")
