"""The development key: made once, by whoever is first, readable by its owner only."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.backends.dev_keys import FILE_NAME, development_key, issue_token, open_authenticator
from gateway.backends.keys import KeyRefused
from gateway.backends.settings import JwtSettings, KeySettings
from gateway.core.ports import Identity
from tests.backends.tokens import EXPIRED, GENERIC, NOW, outcome


def test_made_once_and_for_the_owner_only(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        first = development_key(tmp_path / "new" / "data")
    finally:
        os.umask(old)
    path = tmp_path / "new" / "data" / FILE_NAME
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert development_key(path.parent) == first
    assert [file.name for file in path.parent.iterdir()] == [FILE_NAME]
    assert development_key(tmp_path / "other") != first


def test_two_processes_at_once_agree(tmp_path: Path) -> None:
    """Both are held until both are ready, then race for the file."""
    program = (
        "import sys; from gateway.backends.dev_keys import development_key;"
        "print('ready', flush=True); sys.stdin.readline();"
        "print(development_key(sys.argv[1]).secret.hex())"
    )
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    try:
        for racer in racers:
            assert racer.stdout is not None
            assert racer.stdout.readline() == "ready\n"
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write("go\n")
            racer.stdin.flush()
        keys = {racer.communicate(timeout=60)[0] for racer in racers}
    finally:
        for racer in racers:
            racer.kill()
            racer.wait()
    assert len(keys) == 1
    assert keys == {development_key(tmp_path).secret.hex() + "\n"}
    assert [file.name for file in tmp_path.iterdir()] == [FILE_NAME]


def test_losing_the_race_takes_the_winners_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    winner = development_key(tmp_path)
    monkeypatch.setattr(os.path, "lexists", lambda _: False)
    assert development_key(tmp_path) == winner


@pytest.mark.parametrize("content", [b"", b"00", b"zz" * 32, b"00" * 33, b"\xff" * 64])
def test_a_file_that_holds_no_key(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / FILE_NAME
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(KeyRefused, match="delete it to get a new one"):
        development_key(tmp_path)


def test_a_file_that_others_may_read(tmp_path: Path) -> None:
    development_key(tmp_path)
    (tmp_path / FILE_NAME).chmod(0o644)
    with pytest.raises(KeyRefused, match="mode 0644"):
        development_key(tmp_path)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    development_key(tmp_path / "elsewhere")
    (tmp_path / FILE_NAME).symlink_to(tmp_path / "elsewhere" / FILE_NAME)
    with pytest.raises(KeyRefused, match="cannot keep a development key"):
        development_key(tmp_path)


def test_a_directory_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(KeyRefused, match="cannot keep a development key"):
        development_key(tmp_path / "file" / "data")


async def test_tokens_for_the_node_that_shares_the_directory(tmp_path: Path) -> None:
    key = development_key(tmp_path)
    authenticator = open_authenticator(JwtSettings(), tmp_path, clock=lambda: NOW)
    assert await outcome(authenticator, issue_token(key, 7, now=NOW, ttl=90)) == Identity(
        user_id=7, expires_at=NOW + 90
    )
    assert await outcome(authenticator, issue_token(key, 7, now=NOW, ttl=-1)) == EXPIRED
    bound = issue_token(key, 7, now=NOW, device_id="phone")
    assert await outcome(authenticator, bound, "tablet") == GENERIC
    foreign = issue_token(development_key(tmp_path / "other"), 7, now=NOW)
    assert await outcome(authenticator, foreign) == GENERIC


async def test_configured_keys_shut_the_development_key_out(tmp_path: Path) -> None:
    settings = JwtSettings(keys={"development": KeySettings(algorithm="HS256", key="s" * 32)})
    authenticator = open_authenticator(settings, tmp_path, clock=lambda: NOW)
    assert not (tmp_path / FILE_NAME).exists()
    assert await outcome(authenticator, issue_token(development_key(tmp_path), 7, now=NOW)) == GENERIC


@pytest.mark.parametrize("user_id", [0, -1, 2**63])
def test_no_token_for_an_impossible_user(tmp_path: Path, user_id: int) -> None:
    with pytest.raises(ValueError, match="a user id is a number from 1 to"):
        issue_token(development_key(tmp_path), user_id)


def test_the_secret_stays_out_of_representations(tmp_path: Path) -> None:
    key = development_key(tmp_path)
    assert key.secret.hex() not in repr(key)
    assert repr(key.secret) not in repr(key)
