"""Where settings come from, which source wins, and how each mistake is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.backends.settings import KeySettings
from gateway.config import Config, ConfigError, Flag, load

TYPO = "unknown setting 'tcp.prot': did you mean 'tcp.port'?"


def problems(
    text: str = "", *, tmp_path: Path | None = None, flags: tuple[Flag, ...] = (), **environment: str
) -> list[str]:
    file = None
    if tmp_path is not None:
        file = tmp_path / "gateway.toml"
        file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(file, environment=environment, flags=flags)
    assert str(caught.value) == "\n".join(caught.value.problems)
    assert all("\n" not in each for each in caught.value.problems)
    return [each.replace(f"{tmp_path}/", "") for each in caught.value.problems]


def setting(name: str, text: str) -> Flag:
    return Flag(f"--set {name}", name, text)


def test_nothing_set_is_all_defaults() -> None:
    loaded = load(environment={})
    assert loaded.config == Config()
    assert loaded.origins == {}


def test_a_later_source_outdoes_an_earlier_one(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text('region = "eu"\n[tcp]\nport = 1\nbacklog = 11\n[limits]\nmax_connections = 111\n')
    environment = {"GATEWAY_TCP__PORT": "2", "GATEWAY_TCP__BACKLOG": "22", "GATEWAY_CONFIG": str(file)}
    loaded = load(
        environment=environment, flags=[Flag("--tcp-port", "tcp.port", "3"), Flag("--tcp-port", "tcp.port", "4")]
    )
    config = loaded.config
    assert (config.tcp.port, config.tcp.backlog, config.limits.max_connections, config.region) == (4, 22, 111, "eu")
    sources = {".".join(path): str(origin) for path, origin in loaded.origins.items()}
    assert sources == {
        "tcp.port": "flag --tcp-port",
        "tcp.backlog": "environment GATEWAY_TCP__BACKLOG",
        "limits.max_connections": f"file {file}",
        "region": f"file {file}",
    }


def test_a_named_file_outdoes_the_variable(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("[tcp]\nport = 1\n")
    (tmp_path / "b.toml").write_text("[tcp]\nport = 2\n")
    loaded = load(tmp_path / "b.toml", environment={"GATEWAY_CONFIG": str(tmp_path / "a.toml")})
    assert loaded.config.tcp.port == 2


def test_a_typo_is_answered_with_the_nearest_name(tmp_path: Path) -> None:
    assert problems("[tcp]\nprot = 1\n", tmp_path=tmp_path) == [f"gateway.toml: {TYPO}"]
    assert problems(flags=(setting("tcp.prot", "1"),)) == [f"--set tcp.prot: {TYPO}"]
    assert problems(GATEWAY_TCP__PROT="1") == [
        "GATEWAY_TCP__PROT: unknown setting 'GATEWAY_TCP__PROT': did you mean 'GATEWAY_TCP__PORT'?"
    ]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("tpc.port", "tcp.port"),
        ("websocket.orgins", "websocket.origins"),
        ("hearbeat.timeout", "heartbeat.timeout"),
        ("heartbeat.time_out", "heartbeat.timeout"),
        ("limits.max_conections", "limits.max_connections"),
        ("nodeid", "node_id"),
        ("node-id", "node_id"),
        ("port", "tcp.port"),
        ("policy", "login.policy"),
        ("auth.key", "auth.keys"),
        ("auth.keys.main.algoritm", "auth.keys.main.algorithm"),
        ("tcp.tls.cert", "tcp.tls.certificate"),
        ("log_level", "log.level"),
    ],
)
def test_the_nearest_name(written: str, meant: str) -> None:
    assert problems(flags=(setting(written, "1"),))[0].endswith(f"did you mean {meant!r}?")


def test_a_name_like_no_other_is_told_where_the_names_are() -> None:
    assert "`python -m gateway config --defaults` lists them" in problems(flags=(setting("zzz", "1"),))[0]


def test_a_misspelt_section_is_told_once(tmp_path: Path) -> None:
    found = problems("[tpc]\nport = 1\nhost = 'x'\n", tmp_path=tmp_path)
    assert found == ["gateway.toml: unknown setting 'tpc': did you mean 'tcp'?"]


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("tcp.port", "abc", "must be a whole number from 0 to 65535, not 'abc'"),
        ("tcp.port", "70000", "must be a whole number from 0 to 65535, not '70000'"),
        ("tcp.port", "-1", "must be a whole number from 0 to 65535, not '-1'"),
        ("tcp.port", "80.5", "must be a whole number from 0 to 65535, not '80.5'"),
        ("tcp.port", "", "must be a whole number from 0 to 65535, not ''"),
        ("tcp.enabled", "maybe", "must be true or false, not 'maybe'"),
        ("heartbeat.interval", "0", "must be a number above 0 and up to 31536000, not '0'"),
        ("heartbeat.interval", "nan", "must be a number above 0 and up to 31536000, not 'nan'"),
        ("heartbeat.interval", "inf", "must be a number above 0 and up to 31536000, not 'inf'"),
        ("log.level", "loud", "must be debug, info, warning or error, not 'loud'"),
        ("login.policy", "any", "must be multi_device, single_device or single_per_platform, not 'any'"),
        ("tcp", "1", "is a section, not a setting; set something in it, like tcp.enabled"),
        ("auth.keys", "1", "is a section, not a setting; set something in it, like auth.keys.NAME.algorithm"),
        ("websocket.origins", "[1]", "must be a list of texts, not '[1]'"),
        ("websocket.origins", "[", "must be a list of texts, not '['"),
        ("limits.message_rate", "x" * 5000, f"must be a number above 0 and up to 1000000000, not '{'x' * 76}..."),
    ],
)
def test_values_of_the_wrong_kind(name: str, text: str, told: str) -> None:
    assert problems(flags=(setting(name, text),)) == [f"--set {name}: {told}"]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("port = '9000'", "tcp.port: must be a whole number from 0 to 65535, not '9000'"),
        ("port = true", "tcp.port: must be a whole number from 0 to 65535, not true"),
        ("port = [1]", "tcp.port: must be a whole number from 0 to 65535, not [1]"),
        ("port = { a = 1 }", "tcp.port: must be a whole number from 0 to 65535, not {'a': 1}"),
        ("host = 1", "tcp.host: must be a text, not 1"),
        ("enabled = 1", "tcp.enabled: must be true or false, not 1"),
        ("trusted_proxies = '10.0.0.0/8'", "tcp.trusted_proxies: must be a list of texts, not '10.0.0.0/8'"),
    ],
)
def test_a_file_must_use_tomls_own_types(line: str, told: str, tmp_path: Path) -> None:
    assert problems(f"[tcp]\n{line}\n", tmp_path=tmp_path) == [f"gateway.toml: {told}"]


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    found = problems(
        "node = 1\n[tcp]\nport = -1\n", tmp_path=tmp_path, flags=(setting("log.level", "x"),), GATEWAY_TCP__PORT="x"
    )
    assert [each.split(":")[0] for each in found] == [
        "gateway.toml",
        "gateway.toml",
        "GATEWAY_TCP__PORT",
        "--set log.level",
    ]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"[tcp\n", "is no TOML: "),
        (b"a = 1\na = 2\n", "is no TOML: "),
        (b"a = \xff\n", "is no TOML: not UTF-8"),
        (b"a = " + b"[" * 5000, "is nested too deeply"),
    ],
)
def test_files_that_are_no_toml(content: bytes, told: str, tmp_path: Path) -> None:
    (tmp_path / "gateway.toml").write_bytes(content)
    with pytest.raises(ConfigError, match=told):
        load(tmp_path / "gateway.toml", environment={})


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for path, told in ((tmp_path / "none", "No such file"), (tmp_path, "Is a directory"), ("a\0b", "null byte")):
        with pytest.raises(ConfigError, match=told):
            load(path, environment={})


def test_lists_from_text() -> None:
    for text in ("http://a.example, http://b.example", '["http://a.example", "http://b.example"]'):
        config = load(environment={"GATEWAY_WEBSOCKET__ORIGINS": text}).config
        assert config.websocket.origins == ("http://a.example", "http://b.example")
    assert load(environment={"GATEWAY_WEBSOCKET__ORIGINS": ""}).config.websocket.origins == ()


@pytest.mark.parametrize("text", ["1", "true", "null", "1e3"])
def test_texts_that_look_like_something_else_stay_texts(text: str) -> None:
    assert load(environment={"GATEWAY_NODE_ID": text}).config.node_id == text


def test_what_kubernetes_sets_for_a_service_named_gateway_is_no_setting() -> None:
    environment = {
        "GATEWAY_SERVICE_HOST": "10.0.0.1",
        "GATEWAY_SERVICE_PORT": "9000",
        "GATEWAY_SERVICE_PORT_TCP": "9000",
        "GATEWAY_PORT": "tcp://10.0.0.1:9000",
        "GATEWAY_PORT_9000_TCP": "tcp://10.0.0.1:9000",
        "GATEWAY_PORT_9000_TCP_ADDR": "10.0.0.1",
        "PATH": "/bin",
    }
    assert load(environment=environment).config == Config()
    assert "GATEWAY_PORTS" in problems(GATEWAY_PORTS="1")[0]


def test_keys_from_several_sources_are_put_together(tmp_path: Path) -> None:
    """The secret need not stand in the file."""
    file = tmp_path / "gateway.toml"
    file.write_text('[auth.keys.main]\nalgorithm = "HS256"\n[auth.keys."2026.1"]\nalgorithm = "HS256"\n')
    config = load(
        file,
        environment={"GATEWAY_AUTH__KEYS__MAIN__KEY": "m" * 32},
        flags=[setting('auth.keys."2026.1".key', "n" * 32)],
    ).config
    assert config.auth.keys == {
        "main": KeySettings(algorithm="HS256", key="m" * 32),
        "2026.1": KeySettings(algorithm="HS256", key="n" * 32),
    }
    assert not config.development


def test_what_an_optional_section_cannot_do_without() -> None:
    assert problems(flags=(setting("tcp.tls.key", "k.pem"), setting("tcp.tls.minimum_version", "1.2"))) == [
        "--set tcp.tls.key: tcp.tls.certificate must be set as well: a text"
    ]
    assert problems(GATEWAY_AUTH__KEYS__A__FILE="x") == [
        "GATEWAY_AUTH__KEYS__A__FILE: auth.keys.a.algorithm must be set as well: HS256, EdDSA, ES256 or RS256"
    ]


@pytest.mark.parametrize("name", ["", "a b", "=", "a\n[tcp]\nport", "tcp..port", ".", "'", "tcp.port = 1 #"])
def test_flags_that_name_nothing(name: str) -> None:
    (told,) = problems(flags=(setting(name, "1"),))
    assert "is no setting's name" in told


def test_a_secret_is_not_quoted_when_it_is_wrong(tmp_path: Path) -> None:
    found = problems("[console]\ntoken = 123456789123\n", tmp_path=tmp_path)
    assert found == ["gateway.toml: console.token: must be a text"]
    found = problems(flags=(setting("console.token", "letmein"),))
    assert "letmein" not in found[0]
    assert "16 or more" in found[0]


def test_secrets_stay_out_of_representations() -> None:
    flags = [
        setting("console.token", "t" * 20),
        setting("auth.keys.a.algorithm", "HS256"),
        setting("auth.keys.a.key", "k" * 40),
    ]
    loaded = load(environment={}, flags=flags)
    assert "t" * 20 not in repr(loaded)
    assert "k" * 40 not in repr(loaded)
    assert "token='[secret]'" in repr(loaded)
