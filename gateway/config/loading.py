"""Defaults, file, environment, flags: in this order, a later one outdoing an earlier one, into one checked Config."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from gateway.config.checks import problems
from gateway.config.sources import (
    DEFAULT,
    FILE_VARIABLE,
    ConfigError,
    Flag,
    Origin,
    Value,
    from_environment,
    from_file,
    from_flags,
)
from gateway.config.tree import Config, find, nearest
from gateway.config.values import ValueRefused, checked, expectation


class UnknownSetting(ValueRefused):
    """A name that is no setting's."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration and where each of its values that is no default came from, by path."""

    config: Config
    origins: dict[tuple[str, ...], Origin] = field(default_factory=dict)


def load(
    file: str | Path | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    flags: Sequence[Flag] = (),
    files: bool = True,
) -> Loaded:
    """Read and check the configuration.

    Args:
        file: A TOML file; the one that `GATEWAY_CONFIG` names unless given.
        environment: The process's unless given.
        flags: Outdo everything else.
        files: Whether to check the key and certificate files, too; only a node that starts needs to read them.

    Raises:
        ConfigError: with every problem found, not only the first.
    """
    environment = os.environ if environment is None else environment
    found: dict[tuple[str, ...], Any] = {}
    origins: dict[tuple[str, ...], Origin] = {}
    wrong: list[str] = []
    for value in _values(file or environment.get(FILE_VARIABLE), environment, flags):
        try:
            found[value.path] = _one(value)
            origins[value.path] = value.origin
        except UnknownSetting as unknown:
            wrong.append(f"{value.origin.label}: {unknown}")
        except ValueRefused as refused:
            wrong.append(f"{value.origin.at('.'.join(value.path))}: {refused}")
    if wrong:
        raise ConfigError(wrong)
    _require(found, origins)
    config = _converted(_nested(found))
    wrong = [f"{_culprit(names, origins)}: {text}" for names, text in problems(config, files=files)]
    if wrong:
        raise ConfigError(wrong)
    return Loaded(config, origins)


def check(config: Config) -> None:
    """Check a Config that was made in Python as strictly as one that was read.

    Raises:
        ConfigError: with every problem found.
    """
    _converted(msgspec.to_builtins(config))
    wrong = [f"{names[0]}: {text}" for names, text in problems(config, files=True)]
    if wrong:
        raise ConfigError(wrong)


def _converted(tree: Any) -> Config:
    try:
        return msgspec.convert(tree, Config)
    except msgspec.ValidationError as error:
        text, _, where = str(error).partition(" - at ")
        name = re.sub(r"^`(?:key in )?\$\.?|`$", "", where)
        raise ConfigError([f"{name or 'configuration'}: {text[:1].lower()}{text[1:]}"]) from None


def _values(file: str | Path | None, environment: Mapping[str, str], flags: Sequence[Flag]) -> Iterator[Value]:
    if file:
        yield from from_file(file)
    yield from from_environment(environment)
    yield from from_flags(flags)


def _one(value: Value) -> Any:
    place = find(value.path)
    if place is None:
        raise UnknownSetting(_unknown(value))
    if place.section is not None or place.table is not None:
        inside = next((each.name for each in place.children()), f"{place.name}.NAME.algorithm")
        raise ValueRefused(f"is a section, not a setting; set something in it, like {inside}")
    return checked(place, value)


def _unknown(value: Value) -> str:
    written, meant = ".".join(value.path), nearest(value.path)
    if value.origin.kind == "environment":
        written, meant = value.origin.label, f"GATEWAY_{meant.upper().replace('.', '__')}" if meant else ""
    advice = f"did you mean {meant!r}?" if meant else "`python -m gateway config --defaults` lists them all"
    return f"unknown setting {written[:80]!r}: {advice}"


def _require(found: dict[tuple[str, ...], Any], origins: dict[tuple[str, ...], Origin]) -> None:
    """Whoever sets anything in an optional section must set what it cannot do without."""
    wrong: list[str] = []
    for path in [*found]:
        for length in range(1, len(path)):
            section = find(path[:length])
            assert section is not None
            for each in section.children():
                missing = each.declared is not None and each.declared.required and each.path not in found
                text = f"{origins[path].at('.'.join(path))}: {each.name} must be set as well: {expectation(each)}"
                if missing and not any(f" {each.name} must" in known for known in wrong):
                    wrong.append(text)
    if wrong:
        raise ConfigError(wrong)


def _nested(found: Mapping[tuple[str, ...], Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, value in found.items():
        level = tree
        for name in path[:-1]:
            level = level.setdefault(name, {})
        level[path[-1]] = value
    return tree


def _culprit(names: Sequence[str], origins: Mapping[tuple[str, ...], Origin]) -> str:
    """The setting to mend: of those concerned, the first that somebody set."""
    by_name = {".".join(path): origin for path, origin in origins.items()}
    name = next((each for each in names if each in by_name), names[0])
    return by_name.get(name, DEFAULT).at(name)
