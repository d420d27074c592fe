"""The configuration explained: as TOML with its documentation, as JSON, as the page docs/configuration.md.

The words are the docstrings under the fields, read from the source that declares them, so that they have one place.
"""

from __future__ import annotations

import ast
import inspect
import json
import sys
import textwrap
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import msgspec
from msgspec import NODEFAULT

from gateway.config.loading import Loaded
from gateway.config.sources import DEFAULT, Origin
from gateway.config.tree import ROOT, Config, Place, value_at
from gateway.config.values import expectation

WIDTH = 120


# -- the words ---------------------------------------------------------------------------------------------


@cache
def _documented(module: str) -> Mapping[tuple[str, str], str]:
    """The docstrings under the fields of a module's classes, by class and field; the class's own under ''."""
    found: dict[tuple[str, str], str] = {}
    for node in ast.walk(ast.parse(inspect.getsource(sys.modules[module]))):
        if not isinstance(node, ast.ClassDef):
            continue
        found[node.name, ""] = ast.get_docstring(node) or ""
        for field, below in zip(node.body, node.body[1:], strict=False):
            match field, below:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    found[node.name, name] = inspect.cleandoc(text)
    return found


def explanation(place: Place) -> str:
    """What the docstring says of a setting or a section, on one line."""
    if place.owner is not None and (
        text := _documented(place.owner.__module__).get((place.owner.__name__, place.path[-1]))
    ):
        return " ".join(text.split())
    cls = place.section.cls if place.section is not None else None
    return " ".join(_documented(cls.__module__).get((cls.__name__, ""), "").split()) if cls is not None else ""


def default_of(place: Place) -> Any:
    """The default as plain data; NODEFAULT where there is none."""
    field = place.declared
    if field is None or field.required:
        return NODEFAULT
    value = field.default if field.default_factory is NODEFAULT else field.default_factory()
    return msgspec.to_builtins(value)


def _settings(place: Place) -> list[Place]:
    return [each for each in place.children() if each.section is None and each.table is None]


def _sections(place: Place) -> list[Place]:
    return [each for each in place.children() if each.section is not None or each.table is not None]


# -- TOML --------------------------------------------------------------------------------------------------


def as_toml(loaded: Loaded) -> str:
    """The effective configuration as TOML that can be read back, each value with its words and its source.

    Secrets stand as comments: who reads this file back must bring them anew.
    """
    return "\n".join(_toml_section(ROOT, loaded)).strip() + "\n"


def _toml_section(place: Place, loaded: Loaded) -> Iterator[str]:
    for setting in _settings(place):
        yield from _commented(f"{explanation(setting)} ({_rule(setting)})")
        yield _assignment(setting, loaded)
        yield ""
    for section in _sections(place):
        yield from _toml_subsection(section, loaded)


def _toml_subsection(section: Place, loaded: Loaded) -> Iterator[str]:
    value = value_at(loaded.config, section.path)
    if section.table is None and value is not None:
        yield ""
        yield from _commented(explanation(section))
        yield f"[{_key(section.path)}]"
        yield from _toml_section(section, loaded)
        return
    if section.table is not None and value:
        for name in value:
            entry = section.child(name)
            assert entry is not None
            yield ""
            yield from _commented(explanation(section))
            yield f"[{_key(entry.path)}]"
            yield from _toml_section(entry, loaded)
        return
    yield from _template(section)


def _template(section: Place) -> Iterator[str]:
    """How an absent section would look, as comments."""
    shown = section.child("NAME") if section.table is not None else section
    assert shown is not None
    yield ""
    yield from _commented(explanation(section))
    yield f"# [{_key(shown.path)}]"
    for setting in _settings(shown):
        yield from _commented(f"  {explanation(setting)} ({_rule(setting)})", indent="#   ")
        default = default_of(setting)
        yield f"# {setting.path[-1]} = {_toml_value(default) if default is not NODEFAULT else '...'}"
    yield ""


def _assignment(setting: Place, loaded: Loaded) -> str:
    value = msgspec.to_builtins(value_at(loaded.config, setting.path))
    origin = loaded.origins.get(setting.path, DEFAULT)
    source = "" if origin is DEFAULT else f"  # from {_printable(origin)}"
    name = _key((setting.path[-1],))
    if setting.secret and value:
        return f"# {name} = (a secret, not shown){source}"
    return f"{name} = {_toml_value(value)}{source}"


def _printable(origin: Origin) -> str:
    return "".join(each if each.isprintable() else "?" for each in str(origin))


def _rule(setting: Place) -> str:
    default = default_of(setting)
    known = "required" if default is NODEFAULT else f"default {_toml_value(default)}"
    return f"{expectation(setting)}; {known}"


def _commented(text: str, indent: str = "# ") -> list[str]:
    return textwrap.wrap(
        text.strip(),
        WIDTH,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _key(path: tuple[str, ...]) -> str:
    return ".".join(part if _is_bare(part) else _toml_value(part) for part in path)


def _is_bare(part: str) -> bool:
    return part.isascii() and part.replace("-", "").replace("_", "").isalnum()


def _toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list | tuple):
        return f"[{', '.join(_toml_value(each) for each in value)}]"
    return repr(value)


# -- JSON --------------------------------------------------------------------------------------------------


def as_json(loaded: Loaded) -> str:
    """By name: value, source, default, rule and words of every setting there is. Secrets have the value null."""
    return json.dumps(dict(_json(ROOT, loaded)), indent=2) + "\n"


def _json(place: Place, loaded: Loaded) -> Iterator[tuple[str, dict[str, Any]]]:
    for setting in _settings(place):
        default = default_of(setting)
        value = msgspec.to_builtins(value_at(loaded.config, setting.path))
        yield (
            _key(setting.path),
            {
                "value": None if setting.secret and value else value,
                "secret": setting.secret,
                "source": str(loaded.origins.get(setting.path, DEFAULT)),
                "default": None if default is NODEFAULT else default,
                "rule": expectation(setting),
                "text": explanation(setting),
            },
        )
    for section in _sections(place):
        value = value_at(loaded.config, section.path)
        below = [section.child(name) for name in value or ()] if section.table is not None else [section]
        for each in below if value is not None else ():
            assert each is not None
            yield from _json(each, loaded)


# -- Markdown ----------------------------------------------------------------------------------------------

_PAGE = """# Configuration

<!-- Written by `make reference` from the docstrings of the settings. Do not edit. -->

Nothing has to be configured: the defaults serve one machine and open nothing to a network. What is set comes from four
sources; a later one outdoes an earlier one:

1. the defaults below;
2. a TOML file, named by `--config FILE` or by `GATEWAY_CONFIG`;
3. the environment: `GATEWAY_`, then the name in capitals with `__` for each dot: `GATEWAY_TCP__PORT=9001`,
   `GATEWAY_NODE_ID=eu-1`. Lists are separated by commas. Variables that Kubernetes makes for a Service named `gateway`
   (`GATEWAY_SERVICE_HOST`, `GATEWAY_PORT_9000_TCP`, ...) are no settings and ignored;
4. flags: `--set tcp.port=9001`, or the short ones that `python -m gateway run --help` lists.

A name that is none is refused, with the nearest one that is. Everything wrong is told at once, one line each with its
source, and the node does not start (exit code 2). `python -m gateway config` prints what is in effect and where each
value came from; `--defaults` prints the defaults, which make a file to begin with; `--json` is for programs. Secrets
are never printed.

Without `auth.keys` the node is in development mode: it accepts tokens of a key that it makes for itself in `data_dir`.
In this mode it refuses to listen on any address that is not loopback.
"""


def as_markdown() -> str:
    """The page docs/configuration.md."""
    return "\n".join([_PAGE, *_markdown_section(ROOT)]).strip() + "\n"


def _markdown_section(place: Place) -> Iterator[str]:
    title = _key(place.path).replace('"', "") if place.path else "At the top"
    yield f"## {title}\n"
    if place.path:
        yield f"{explanation(place)}\n"
    if place.optional:
        yield "Absent unless something in it is set.\n"
    yield "| setting | what it may be | default | |\n|---|---|---|---|"
    for setting in _settings(place):
        default = default_of(setting)
        shown = "required" if default is NODEFAULT else f"`{_toml_value(default)}`"
        yield f"| `{setting.path[-1]}` | {_cell(expectation(setting))} | {shown} | {_cell(explanation(setting))} |"
    yield ""
    for section in _sections(place):
        if section.table is not None:
            entry = section.child("NAME")
            assert entry is not None
            yield from _markdown_section(entry)
        else:
            yield from _markdown_section(section)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def defaults() -> Loaded:
    """What is in effect when nothing is set."""
    return Loaded(Config())
