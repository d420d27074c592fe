"""Settings that must fit each other, and what must not be reachable by mistake (threats 22 and 29)."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from gateway import open_node
from gateway.backends.settings import JwtSettings, KeySettings
from gateway.config import Config, ConfigError, Flag, check, load
from gateway.console.settings import ConsoleSettings
from gateway.core.settings import HeartbeatSettings, LimitSettings
from gateway.transports.settings import TcpSettings

KEY = (Flag("--set", "auth.keys.a.algorithm", "HS256"), Flag("--set", "auth.keys.a.key", "k" * 32))
OUTSIDE = [
    "0.0.0.0",
    "::",
    "192.0.2.7",
    "10.0.0.1",
    "chat.example.org",
    "::ffff:192.0.2.7",
    "2001:db8::1",
    "localhost.example",
]
INSIDE = ["127.0.0.1", "127.8.8.8", "::1", "localhost", "LOCALHOST", "::ffff:127.0.0.1"]


def told(*settings: tuple[str, str], keys: bool = False) -> list[str]:
    flags = [Flag(f"--set {name}", name, text) for name, text in settings]
    try:
        load(environment={}, flags=[*flags, *(KEY if keys else ())])
    except ConfigError as error:
        return list(error.problems)
    return []


@pytest.mark.parametrize("listener", ["tcp", "websocket", "console"])
@pytest.mark.parametrize("host", OUTSIDE)
def test_development_mode_stays_on_this_machine(listener: str, host: str) -> None:
    found = told((f"{listener}.host", host), ("console.token", "t" * 16))
    assert len(found) == 1
    assert found[0].startswith(f"--set {listener}.host: {host} can be reached from outside, and without auth.keys")
    assert told((f"{listener}.host", host), ("console.token", "t" * 16), keys=True) == []


@pytest.mark.parametrize("listener", ["tcp", "websocket", "console"])
@pytest.mark.parametrize("host", INSIDE)
def test_loopback_is_this_machine(listener: str, host: str) -> None:
    assert told((f"{listener}.host", host)) == []


def test_a_listener_that_is_off_exposes_nothing() -> None:
    assert told(("tcp.host", "0.0.0.0"), ("tcp.enabled", "false")) == []


@pytest.mark.parametrize("host", OUTSIDE)
def test_t29_a_console_that_is_reached_from_outside_needs_a_token(host: str) -> None:
    (found,) = told(("console.host", host), keys=True)
    assert found == f"--set console.host: {host} can be reached from outside: set console.token, or listen on 127.0.0.1"
    assert told(("console.host", host), ("console.token", "t" * 16), keys=True) == []


@pytest.mark.parametrize("token", ["short", "t" * 15, "two words are sixteen", "t\u00e9" * 10, "t" * 15 + "\n"])
def test_t29_tokens_that_can_be_guessed_or_not_be_sent(token: str) -> None:
    (found,) = told(("console.token", token))
    assert "16 or more printable ASCII characters" in found


@pytest.mark.parametrize(
    ("name", "text", "part"),
    [
        ("node_id", "a.b", "must be 1 to 64 of the characters A-Z a-z 0-9 _ -, not 'a.b'"),
        ("node_id", "", "must be 1 to 64"),
        ("node_id", "n" * 65, "must be 1 to 64"),
        ("node_id", "a\r\nb", "not 'a\\r\\nb'"),
        ("node_id", ">", "must be 1 to 64"),
        ("region", "eu west", "or empty"),
        ("data_dir", "", "must name a directory"),
        ("tcp.host", "", "must be an IP address or a host name"),
        ("tcp.host", "256.1.1.1", "must be an IP address or a host name"),
        ("tcp.host", "1.2.3", "must be an IP address or a host name"),
        ("tcp.host", "127.0.0.1:9000", "must be an IP address or a host name"),
        ("tcp.host", "[::1]", "must be an IP address or a host name"),
        ("tcp.host", "a b", "must be an IP address or a host name"),
        ("tcp.host", "-a.example", "must be an IP address or a host name"),
        ("heartbeat.timeout", "30", "30 must be more than heartbeat.interval, 30"),
        ("heartbeat.interval", "90", "90 must be more than heartbeat.interval, 90"),
        ("limits.max_frame", "100", "must be at least limits.max_frame_before_auth"),
        ("limits.outbox_bytes", "100", "must hold at least one frame"),
        ("bus.max_payload", "65536", "must be more than limits.max_frame"),
        ("console.port", "9000", "9000 is the port of tcp already"),
        ("tcp.trusted_proxies", "10.0.0.1/8", "has host bits set"),
        ("websocket.trusted_proxies", "proxy", "must hold networks like 10.0.0.0/8"),
        ("tcp.proxy_protocol", "true", "needs tcp.trusted_proxies"),
        ("websocket.path", "ws", "must be a text that matches `^/[^\\s?#]*$`, not 'ws'"),
        ("websocket.origins", "chat.example.org", "must hold origins like https://"),
        ("websocket.origins", "https://chat.example.org/", "must hold origins like https://"),
        ("websocket.origins", "https://a.example:99999", "must hold origins like https://"),
        ("websocket.origins", "*", "must hold origins like https://"),
    ],
)
def test_what_does_not_fit(name: str, text: str, part: str) -> None:
    found = told((name, text), keys=True)
    assert len(found) == 1, found
    assert found[0].startswith(f"--set {name}: ")
    assert part in found[0]


def test_the_setting_that_somebody_set_is_the_one_to_mend() -> None:
    """Of two that do not fit, the default is not at fault."""
    assert told(("limits.max_frame_before_auth", "100000"))[0].startswith("--set limits.max_frame_before_auth: ")


def test_ports_that_do_not_collide() -> None:
    assert told(("tcp.port", "0"), ("websocket.port", "0"), ("console.port", "0")) == []
    assert told(("console.port", "9000"), ("console.host", "::1")) == []
    assert told(("console.port", "9000"), ("tcp.enabled", "false")) == []


def test_keys_that_cannot_be_used(tmp_path: Path) -> None:
    def key(**settings: str) -> list[str]:
        return told(*((f"auth.keys.k.{name}", text) for name, text in settings.items()))

    assert key(algorithm="HS256", key="short") == [
        "--set auth.keys.k.key: an HS256 secret needs at least 32 bytes, this has 5"
    ]
    missing = tmp_path / "missing.pem"
    assert key(algorithm="ES256", file=str(missing)) == [
        f"--set auth.keys.k.file: cannot read {str(missing)!r}: No such file or directory"
    ]
    assert key(algorithm="HS256") == ["--set auth.keys.k.algorithm: give either `key` or `file`"]
    assert key(algorithm="HS256", key="-----BEGIN PUBLIC KEY-----" + "x" * 40)[0].startswith("--set auth.keys.k.key: ")
    assert "expected" in told(('auth.keys."a b".algorithm', "HS256"))[0]


def test_a_config_made_in_python_is_checked_as_strictly() -> None:
    check(Config())
    for config, part in (
        (Config(tcp=TcpSettings(port=-1)), "tcp.port: expected `int` >= 0"),
        (Config(tcp=TcpSettings(host=5)), "tcp.host: expected `str`"),  # type: ignore[arg-type]
        (Config(heartbeat=HeartbeatSettings(interval=90.0)), "heartbeat.timeout: 90 must be more"),
        (Config(limits=LimitSettings(max_connections=0)), "limits.max_connections: expected `int` >= 1"),
        (Config(tcp=TcpSettings(host="0.0.0.0")), "tcp.host: 0.0.0.0 can be reached from outside"),
        (Config(console=ConsoleSettings(token="short")), "console.token: must be 16 or more"),
        (Config(auth=JwtSettings(keys={"a": KeySettings(algorithm="none", key="k")})), "auth.keys"),  # type: ignore[arg-type]
    ):
        with pytest.raises(ConfigError) as caught:
            check(config)
        assert part in str(caught.value)


async def test_an_embedded_node_is_checked_too(tmp_path: Path) -> None:
    config = Config(data_dir=str(tmp_path), tcp=TcpSettings(host="0.0.0.0", port=0))
    with pytest.raises(ConfigError, match="can be reached from outside"):
        async with open_node(config):
            raise AssertionError("it opened")


def test_every_default_fits() -> None:
    check(msgspec.convert(msgspec.to_builtins(Config()), Config))
