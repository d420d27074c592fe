"""The enumerations are the schema's."""

from __future__ import annotations

from enum import IntEnum

import pytest

from gateway.protocol.types import AckStatus, Action, MsgType
from tests.framing.schema import ENUMS


@pytest.mark.parametrize("enum", [MsgType, AckStatus, Action])
def test_names_and_numbers(enum: type[IntEnum]) -> None:
    ours = {member.name.replace("_", "").lower(): member.value for member in enum}
    assert ours == {name.lower(): number for name, number in ENUMS[enum.__name__].items()}
