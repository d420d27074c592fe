"""What a node makes for itself and keeps: the same after a restart, and nobody else's."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.transports.quic.keeping import SECRET_FILE, quic_secret


def test_the_secret_outlives_a_restart(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    secret = quic_secret("", folder)
    assert len(secret) == 32
    assert quic_secret("", folder) == secret
    assert (folder / SECRET_FILE).stat().st_mode & 0o777 == 0o600
    assert [path.name for path in folder.iterdir()] == [SECRET_FILE]


def test_a_configured_one_is_the_same_everywhere(tmp_path: Path) -> None:
    secret = quic_secret("x" * 32, tmp_path / "a")
    assert len(secret) == 32
    assert quic_secret("x" * 32, tmp_path / "b") == secret
    assert quic_secret("y" * 32, tmp_path / "a") != secret
    assert not (tmp_path / "a").exists()


def test_what_others_could_read_cut_or_linked_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / SECRET_FILE
    secret = quic_secret("", tmp_path)
    path.chmod(0o640)
    second = quic_secret("", tmp_path)
    assert second != secret
    path.write_bytes(second[:10])
    third = quic_secret("", tmp_path)
    assert third != second
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert quic_secret("", tmp_path) != third
    assert not path.is_symlink()


def test_where_it_cannot_be_kept_one_line_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ValueError, match=r"^secret: cannot keep one in"):
        quic_secret("", tmp_path / "file")
