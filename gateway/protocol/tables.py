"""Structs to FlatBuffers tables and back, driven by a Struct's own annotations. For what is not hot.

Writes through the code that flatc generated. Reads only what `_framing` has verified: nothing here checks bounds.
"""

from __future__ import annotations

import types
from collections.abc import Sequence
from typing import Any, Generic, TypeVar, get_args, get_type_hints

import flatbuffers
import msgspec

T = TypeVar("T", bound=msgspec.Struct)


class Table(Generic[T]):
    """How one Struct is written as, and read from, one table of a generated module.

    The Struct's fields are the table's, in its order. `int` and `bool` are scalars, `str` is a string, `bytes` is
    [ubyte], `tuple[str, ...]` is [string], and a tuple of another Struct is a vector of that one's table, given as
    `element`. Empty texts and vectors are left out, as are scalars at their default.
    """

    def __init__(self, struct: type[T], module: types.ModuleType, name: str, element: Table[Any] | None = None) -> None:
        self.struct = struct
        self.name = name
        self._root = getattr(module, name).GetRootAs
        self._start = getattr(module, f"{name}Start")
        self._end = getattr(module, f"{name}End")
        hints = get_type_hints(struct)
        self._fields = [
            _field(hints[field], module, name, field, index, element)
            for index, field in enumerate(struct.__struct_fields__)
        ]

    def encode(self, value: T) -> bytes:
        """The whole buffer.

        Raises:
            ValueError: a number beyond the schema's type, or a text with lone surrogates.
        """
        builder = flatbuffers.Builder(256 + sum(field.room(value) for field in self._fields))
        try:
            builder.Finish(self.write(builder, value))
        except TypeError as error:  # flatbuffers' word for a number out of range
            raise ValueError(f"{self.name}: {error}") from error
        return bytes(builder.Output())

    def write(self, builder: flatbuffers.Builder, value: T) -> int:
        """Write the table; return its offset."""
        prepared = [(field, field.prepare(builder, getattr(value, field.name))) for field in self._fields]
        self._start(builder)
        for field, content in prepared:
            if content is not None:
                field.add(builder, content)
        return int(self._end(builder))

    def decode(self, data: bytes) -> T:
        """Read a buffer that was verified as this table."""
        return self.read(self._root(data))

    def read(self, table: Any) -> T:
        """Read one table object of the generated module."""
        return self.struct(**{field.name: field.read(table) for field in self._fields})


def _field(
    hint: Any, module: types.ModuleType, table: str, name: str, index: int, element: Table[Any] | None
) -> _Field:
    kinds: dict[Any, type[_Field]] = {int: _Field, bool: _Field, str: _Text, bytes: _Bytes}
    if hint in kinds:
        return kinds[hint](module, table, name, index)
    if get_args(hint) == (str, ...):
        return _Texts(module, table, name, index)
    assert element is not None
    assert get_args(hint) == (element.struct, ...)
    return _Tables(module, table, name, index, element)


class _Field:
    """A scalar, and the base of the others."""

    def __init__(self, module: types.ModuleType, table: str, name: str, index: int) -> None:
        camel = name.title().replace("_", "")
        self.name = name
        self.add = getattr(module, f"{table}Add{camel}")
        self.one = getattr(getattr(module, table), camel)
        self._slot = 4 + 2 * index

    def room(self, value: Any) -> int:
        """About how many bytes it takes beside the table: growing a builder copies all it holds."""
        return 0

    def prepare(self, builder: flatbuffers.Builder, value: Any) -> Any:
        """What `add` takes; None to leave the field out."""
        return value

    def read(self, table: Any) -> Any:
        """The field of a table object of the generated module."""
        return self.one(table)


class _Text(_Field):
    def prepare(self, builder: flatbuffers.Builder, value: str) -> Any:
        return builder.CreateString(value) if value else None

    def read(self, table: Any) -> str:
        text: bytes = self.one(table) or b""
        return text.decode()


class _Bytes(_Field):
    def room(self, value: Any) -> int:
        return len(getattr(value, self.name))

    def prepare(self, builder: flatbuffers.Builder, value: bytes) -> Any:
        return builder.CreateByteVector(value) if value else None

    def read(self, table: Any) -> bytes:
        # The generated reader knows one call per byte, or numpy: go to the table under it.
        tab = table._tab
        offset = tab.Offset(self._slot)
        start = tab.Vector(offset) if offset else 0
        return bytes(tab.Bytes[start : start + tab.VectorLen(offset)]) if offset else b""


class _Texts(_Field):
    def prepare(self, builder: flatbuffers.Builder, value: Sequence[Any]) -> Any:
        if not value:
            return None
        offsets = [self.write(builder, item) for item in value]
        builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            builder.PrependUOffsetTRelative(offset)
        return builder.EndVector()

    def write(self, builder: flatbuffers.Builder, item: Any) -> int:
        """Write one element; return its offset."""
        return int(builder.CreateString(item))

    def read(self, table: Any) -> tuple[Any, ...]:
        offset = table._tab.Offset(self._slot)
        count = table._tab.VectorLen(offset) if offset else 0
        return tuple(self.element(self.one(table, index)) for index in range(count))

    def element(self, item: Any) -> Any:
        """What one element of the generated reader means."""
        return item.decode()


class _Tables(_Texts):
    def __init__(self, module: types.ModuleType, table: str, name: str, index: int, element: Table[Any]) -> None:
        super().__init__(module, table, name, index)
        self._table = element

    def write(self, builder: flatbuffers.Builder, item: Any) -> int:
        return self._table.write(builder, item)

    def element(self, item: Any) -> Any:
        return self._table.read(item)
