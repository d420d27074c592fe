"""Where settings come from: a TOML file, the environment, flags. Each gives raw values with their origin; none is
judged here beyond being readable at all.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.config.tree import find

PREFIX = "GATEWAY_"
FILE_VARIABLE = "GATEWAY_CONFIG"
"""Names the file when no flag does."""

_NOT_OURS = re.compile(
    r"GATEWAY_(?:CONFIG|COVERAGE|SERVICE_HOST|SERVICE_PORT(?:_\w+)?|PORT(?:_\d+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)?)"
)
"""Ours but no setting, the build's, and those that Kubernetes gives every pod beside a Service named `gateway`."""


class ConfigError(Exception):
    """The configuration cannot be used. Each problem is one line that names its source and says what would do."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(map(_one_line, problems))
        super().__init__("\n".join(self.problems))


def _one_line(text: str) -> str:
    """Names of files and settings may hold anything; a line of ours is one line."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value was found."""

    kind: str
    """`default`, `file`, `environment` or `flag`."""
    label: str = ""
    """The file's path, the variable's name, or the flag as it was written."""

    def at(self, name: str) -> str:
        """How an error about the setting `name` begins."""
        if self.kind == "default":
            return name
        return f"{self.label}: {name}" if self.kind == "file" else self.label

    def __str__(self) -> str:
        return f"{self.kind} {self.label}".rstrip()


DEFAULT = Origin("default")


@dataclass(frozen=True, slots=True)
class Value:
    """One raw value. `text` says that it is a string to be read by its setting's type."""

    path: tuple[str, ...]
    raw: Any
    origin: Origin
    text: bool = False


@dataclass(frozen=True, slots=True)
class Flag:
    """A setting given on the command line: `Flag("--tcp-port", "tcp.port", "9001")`."""

    label: str
    name: str
    text: str


def from_file(path: str | Path) -> Iterator[Value]:
    """The values of a TOML file, in its order.

    Raises:
        ConfigError: it cannot be read, or is no TOML.
    """
    try:
        with Path(path).open("rb") as file:
            content = tomllib.load(file)
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError([f"{path}: {_why(error)}"]) from None
    yield from _flatten((), content, Origin("file", str(path)))


def _why(error: Exception) -> str:
    match error:
        case OSError():
            return f"cannot be read: {error.strerror}"
        case tomllib.TOMLDecodeError():
            return f"is no TOML: {str(error)[:1].lower()}{str(error)[1:]}"
        case UnicodeDecodeError():
            return "is no TOML: not UTF-8"
        case RecursionError():
            return "is nested too deeply"
        case _:
            return f"cannot be read: {error}"


def _flatten(path: tuple[str, ...], content: Mapping[str, Any], origin: Origin) -> Iterator[Value]:
    """Down to settings; what is no place in the tree is given whole, to be complained about once."""
    for name, raw in content.items():
        here = (*path, name)
        place = find(here)
        if place is not None and isinstance(raw, dict) and (place.section is not None or place.table is not None):
            yield from _flatten(here, raw, origin)
        else:
            yield Value(here, raw, origin)


def from_environment(environment: Mapping[str, str]) -> Iterator[Value]:
    """`GATEWAY_TCP__PORT=9001` is `tcp.port`; names are compared in lower case."""
    for variable in sorted(environment):
        if variable.startswith(PREFIX) and _NOT_OURS.fullmatch(variable) is None:
            path = tuple(variable.removeprefix(PREFIX).lower().split("__"))
            yield Value(path, environment[variable], Origin("environment", variable), text=True)


def from_flags(flags: Iterable[Flag]) -> Iterator[Value]:
    """The values of flags; a later one outdoes an earlier one.

    Raises:
        ConfigError: a name that is none.
    """
    for flag in flags:
        yield Value(split_name(flag.name, flag.label), flag.text, Origin("flag", flag.label), text=True)


def split_name(name: str, label: str) -> tuple[str, ...]:
    """`auth.keys."2026.1".file` into its parts, as TOML reads keys.

    Raises:
        ConfigError: it is no TOML key.
    """
    try:
        content: Any = tomllib.loads(f"{name} = 0") if "=" not in name and "\n" not in name else {}
    except tomllib.TOMLDecodeError:
        content = {}
    path: tuple[str, ...] = ()
    while isinstance(content, dict) and content:
        ((part, content),) = content.items()
        path = (*path, part)
    if not path:
        raise ConfigError([f"{label}: {name!r} is no setting's name; write it like tcp.port=9001"])
    return path
