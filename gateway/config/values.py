"""From a raw value to a checked one, and from what is wrong with it to words. One setting at a time."""

from __future__ import annotations

import tomllib
from functools import cache
from typing import Any, get_args, get_type_hints

import msgspec
from msgspec import inspect as types

from gateway.config.sources import Value
from gateway.config.tree import Place


class ValueRefused(ValueError):
    """A value that its setting cannot have; says what it can."""


def checked(place: Place, value: Value) -> Any:
    """The value of a setting as plain data (numbers, texts, lists), of its type and within its range.

    Raises:
        ValueRefused: in words for one line; a secret is not quoted.
    """
    field = place.declared
    assert field is not None
    type_ = _python_type(place)
    raw = _parse(place, value.raw) if value.text else value.raw
    try:
        converted = msgspec.convert(raw, type_, strict=not (value.text and isinstance(raw, str)))
    except msgspec.ValidationError:
        shown = "" if place.secret else f", not {_shown(value.raw)}"
        raise ValueRefused(f"must be {expectation(place)}{shown}") from None
    return msgspec.to_builtins(converted)


def _python_type(place: Place) -> Any:
    """The annotation as it stands in the Struct, for msgspec to convert to."""
    assert place.owner is not None
    return _hints(place.owner)[place.path[-1]]


@cache
def _hints(owner: type) -> dict[str, Any]:
    return get_type_hints(owner, include_extras=True)


def _parse(place: Place, text: str) -> Any:
    """A text from the environment or a flag, as far as its type wants more than a text."""
    if not isinstance(place.plain, types.ListType | types.VarTupleType | types.SetType):
        return text
    if not text.lstrip().startswith("["):
        return [each.strip() for each in text.split(",") if each.strip()]
    try:
        return tomllib.loads(f"list = {text}")["list"]
    except tomllib.TOMLDecodeError:
        raise ValueRefused(f"must be {expectation(place)}, not {_shown(text)}") from None


def _shown(raw: Any) -> str:
    text = repr(raw) if isinstance(raw, str) else str(raw)
    text = "true" if raw is True else "false" if raw is False else text
    return text if len(text) <= 80 else f"{text[:77]}..."


def expectation(place: Place) -> str:
    """What a setting may be, in words: `a whole number from 0 to 65535`."""
    match place.plain:
        case types.BoolType():
            return "true or false"
        case types.IntType() as number:
            return f"a whole number{_range(number)}"
        case types.FloatType() as number:
            return f"a number{_range(number)}"
        case types.LiteralType():
            return _choice([str(each) for each in get_args(_python_type(place))])  # in the order of the source
        case types.EnumType(cls=enum):
            return _choice([str(each.value) for each in enum])
        case types.ListType() | types.VarTupleType() | types.SetType():
            return "a list of texts"
        case types.StrType(pattern=str(pattern)):
            return f"a text that matches `{pattern}`"
        case _:
            return "a text"


def _choice(choices: list[str]) -> str:
    return choices[0] if len(choices) == 1 else f"{', '.join(choices[:-1])} or {choices[-1]}"


def _range(number: types.IntType | types.FloatType) -> str:
    if number.gt is not None and number.le is not None:
        return f" above {number.gt:g} and up to {number.le:.15g}"
    low = number.ge if number.ge is not None else number.gt
    high = number.le
    if low is not None and high is not None:
        return f" from {low:g} to {high:.15g}" if high < 2**53 else f" from {low:g} on"
    return ""
