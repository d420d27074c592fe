"""The stub says what the extension has; the extension imports nothing of ours and nothing that waits."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from gateway import _framing

GATEWAY = Path(__file__).resolve().parents[2] / "gateway"
STUB = ast.parse((GATEWAY / "_framing.pyi").read_text())
CLASSES = {node.name: node for node in STUB.body if isinstance(node, ast.ClassDef)}
FUNCTIONS = {node.name: node for node in STUB.body if isinstance(node, ast.FunctionDef)}
CONSTANTS = {
    node.target.id for node in STUB.body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
}


def parameters(node: ast.FunctionDef) -> dict[str, Any]:
    """Names and defaults, as the stub has them."""
    names = [argument.arg for argument in node.args.args]
    defaults = [ast.literal_eval(value) for value in node.args.defaults]
    plain: list[Any] = [inspect.Parameter.empty] * (len(names) - len(defaults))
    return dict(zip(names, plain + defaults, strict=True))


def test_the_public_names() -> None:
    public = {name for name in vars(_framing) if not name.startswith("_")}
    assert public == {*CLASSES, *FUNCTIONS, *CONSTANTS}


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_a_functions_parameters(name: str) -> None:
    runtime = inspect.signature(getattr(_framing, name)).parameters
    assert {key: value.default for key, value in runtime.items()} == parameters(FUNCTIONS[name])


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_a_classs_members(name: str) -> None:
    cls = getattr(_framing, name)
    for node in CLASSES[name].body:
        if isinstance(node, ast.FunctionDef):
            assert hasattr(cls, node.name), node.name
            if not node.decorator_list and not node.name.startswith("__"):
                runtime = inspect.signature(getattr(cls, node.name)).parameters
                assert {key: value.default for key, value in runtime.items()} == parameters(node), node.name
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and name != "FrameError":
            assert hasattr(cls, node.target.id)
    stubbed = {node.name for node in CLASSES[name].body if isinstance(node, ast.FunctionDef)}
    stubbed |= {
        node.target.id
        for node in CLASSES[name].body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    assert {member for member in vars(cls) if not member.startswith("_")} <= stubbed


def test_the_extension_knows_nothing_of_the_package() -> None:
    """architecture.md: protocol stands on it, and it stands on CPython and libc alone."""
    parts = [GATEWAY / "_framing.pyx", *sorted(GATEWAY.glob("_framing_*.px[di]"))]
    assert len(parts) == 9
    for part in parts:
        found = re.findall(r"^\s*(?:from\s+(\S+)\s+)?c?import\s+(\S+)", part.read_text(), re.MULTILINE)
        for source, name in found:
            assert (source or name).split(".")[0] in ("cpython", "libc", "cython"), (part.name, source, name)
    included = re.findall(r'^include "(.+)"', parts[0].read_text(), re.MULTILINE)
    assert sorted(included) == [part.name for part in parts[1:]]
