"""UserEvent and Undelivered: there and back, and verified before they are read."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway._framing import FrameError
from gateway.protocol.envelopes import Envelope, Undelivered, UserEvent
from tests.framing import reference, writer
from tests.framing.schema import TABLES
from tests.framing.strategies import fields


@pytest.mark.parametrize("struct", [UserEvent, Undelivered])
@given(st.data())
@settings(deadline=None, max_examples=60, derandomize=True, database=None)
def test_there_and_back(struct: type[Envelope], data: st.DataObject) -> None:
    values: dict[str, Any] = data.draw(fields(struct.__name__))
    envelope = struct(**values)
    encoded = envelope.encode()
    assert reference.envelope_verdict(struct.__name__, encoded) == ""
    assert struct.decode(encoded) == envelope
    assert struct.decode(writer.table(struct.__name__, values, newer=2)) == envelope


@pytest.mark.parametrize("struct", [UserEvent, Undelivered])
def test_fields_are_the_schemas(struct: type[Envelope]) -> None:
    assert struct.__struct_fields__ == tuple(field.name for field in TABLES[struct.__name__])


def test_nothing_is_read_that_was_not_verified() -> None:
    good = UserEvent(kind="online", user_id=1, node_id="n", data=b"data").encode()
    for size in range(len(good) - 8):
        with pytest.raises(FrameError) as caught:
            UserEvent.decode(good[:size])
        assert caught.value.code == 4000
    with pytest.raises(FrameError):
        UserEvent.decode(good.replace(b"online", b"\xffnline"))
    with pytest.raises(ValueError, match="UserEvent"):
        UserEvent(user_id=2**63).encode()
