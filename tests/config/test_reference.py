"""What `config` prints, and that docs/configuration.md says the same as the code."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.config import Config, Flag, load
from gateway.config.reference import as_json, as_markdown, as_toml, defaults, explanation
from gateway.config.tree import ROOT, Place

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"


def everything(place: Place = ROOT) -> Iterator[Place]:
    below = [*place.children()] if place.table is None else [place.child("NAME")]
    for each in below:
        assert each is not None
        yield each
        yield from everything(each)


def test_the_page_is_what_the_code_says() -> None:
    assert PAGE.read_text() == as_markdown(), "say `make reference`"


@pytest.mark.parametrize(
    "place", [each for each in everything() if each.path[-1] != "NAME"], ids=lambda place: place.name
)
def test_every_setting_and_section_is_explained(place: Place) -> None:
    text = explanation(place)
    assert len(text) > 15
    assert text[0].isupper() or text.startswith("`")
    assert text.endswith((".", ")")), text


def test_the_defaults_can_be_read_back(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(as_toml(defaults()))
    assert load(file, environment={}).config == Config()


def test_what_is_in_effect_can_be_read_back_but_for_its_secrets(tmp_path: Path) -> None:
    texts = {
        "region": "eu",
        "data_dir": 'a "quoted" \\ d\u00eft \x7f',
        "tcp.port": "1",
        "tcp.trusted_proxies": "10.0.0.0/8,::1/128",
        "tcp.tls.certificate": "c.pem",
        'auth.keys."a.b".algorithm': "HS256",
        'auth.keys."a.b".key': "k" * 32,
        "console.token": "t" * 16,
    }
    loaded = load(
        environment={}, flags=[Flag(f"--set {name}", name, text) for name, text in texts.items()], files=False
    )
    printed = as_toml(loaded)
    assert "k" * 32 not in printed
    assert "t" * 16 not in printed
    assert '[auth.keys."a.b"]' in printed
    assert 'region = "eu"  # from flag --set region' in printed
    assert "# token = (a secret, not shown)  # from flag --set console.token" in printed
    file = tmp_path / "gateway.toml"
    file.write_text(printed)
    back = load(
        file,
        environment={"GATEWAY_CONSOLE__TOKEN": "t" * 16},
        flags=[Flag("--set", 'auth.keys."a.b".key', "k" * 32)],
        files=False,
    )
    assert back.config == loaded.config


def test_absent_sections_are_shown_as_comments() -> None:
    printed = as_toml(defaults())
    assert "# [tcp.tls]\n" in printed
    assert "# [auth.keys.NAME]\n" in printed
    assert "tls" not in tomllib.loads(printed)["tcp"]


def test_a_source_with_a_strange_name_stays_in_its_comment(tmp_path: Path) -> None:
    file = tmp_path / "a\nb = 1.toml"
    file.write_text("[tcp]\nport = 1\n")
    assert tomllib.loads(as_toml(load(file, environment={})))["tcp"]["port"] == 1


def test_json_is_for_programs() -> None:
    loaded = load(environment={"GATEWAY_TCP__PORT": "1", "GATEWAY_CONSOLE__TOKEN": "t" * 16})
    printed = json.loads(as_json(loaded))
    assert printed["tcp.port"]["value"] == 1
    assert printed["tcp.port"]["source"] == "environment GATEWAY_TCP__PORT"
    assert printed["tcp.port"]["default"] == 9000
    assert printed["tcp.port"]["rule"] == "a whole number from 0 to 65535"
    assert printed["console.token"] == {**printed["console.token"], "value": None, "secret": True}
    assert printed["websocket.origins"]["value"] == []
    assert "t" * 16 not in as_json(loaded)
