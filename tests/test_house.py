"""Rules of the house that no other tool checks."""

import re
import subprocess
from pathlib import Path

import pytest
from msgspec import structs

import gateway
from gateway.config import Config
from gateway.core.settings import Settings

ROOT = Path(__file__).parent.parent
LONGEST = 500
"""Lines of a file: beyond it, ask whether it holds two ideas."""


def tracked(*patterns: str) -> list[Path]:
    """Files of the project; outside a checkout, those that lie about."""
    listed = subprocess.run(["git", "ls-files", *patterns], cwd=ROOT, capture_output=True, text=True, check=False)
    names = listed.stdout.split() if listed.returncode == 0 and listed.stdout else []
    found = [ROOT / name for name in names] or [path for pattern in patterns for path in ROOT.rglob(pattern)]
    return [path for path in found if path.exists()]


def test_the_extensions_import_nothing_of_ours() -> None:
    sources = [path for pattern in ("_*.pyx", "_*.pxi") for path in (ROOT / "gateway").glob(pattern)]
    assert sources
    for source in sources:
        imports = re.findall(r"^\s*(?:from|c?import)\s+(\S+)", source.read_text(), re.MULTILINE)
        assert not [name for name in imports if name.startswith(("gateway", ".")) or name in {"trio", "socket", "time"}]


def test_no_file_holds_more_than_it_should() -> None:
    long = {
        path.name: lines
        for path in tracked("*.py", "*.pyx", "*.pxi", "*.js")
        if "fbs" not in path.parts and path.name not in {"flatbuffers.js", "message.js"}
        if (lines := len(path.read_text().splitlines())) > LONGEST
    }
    assert not long


@pytest.mark.parametrize("name", gateway.__all__)
def test_the_public_surface_is_there(name: str) -> None:
    assert getattr(gateway, name) is not None


def test_the_public_surface_is_pinned() -> None:
    assert sorted(gateway.__all__) == [
        "BusSettings",
        "Config",
        "ConfigError",
        "ConsoleSettings",
        "DrainSettings",
        "FileSettings",
        "HeartbeatSettings",
        "Incoming",
        "JwtSettings",
        "KeySettings",
        "LimitSettings",
        "LogSettings",
        "LogicSettings",
        "LoginPolicy",
        "LoginSettings",
        "NatsSettings",
        "NatsTlsSettings",
        "Node",
        "QuicSettings",
        "RedisSettings",
        "RedisTlsSettings",
        "Refused",
        "TcpSettings",
        "TlsSettings",
        "WebSocketSettings",
        "WebTransportSettings",
        "__version__",
        "open_node",
    ]
    sections = {type(value).__name__ for value in structs.asdict(Config()).values() if isinstance(value, Settings)}
    assert {*sections, "RedisSettings"} <= {*gateway.__all__}
    with pytest.raises(AttributeError, match="no attribute 'Gateway'"):
        _ = gateway.Gateway  # type: ignore[attr-defined]
