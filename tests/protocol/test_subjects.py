"""Subjects and names: exactly the protocol's, and nothing else gets in (threat 26)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway._framing import is_name
from gateway.protocol.ids import checked_name, new_message_id, new_session_id
from gateway.protocol.subjects import LOGIC_QUEUE, Subjects

EVIL = [
    "", ".", "a.b", "*", ">", "a b", "a\r\nPUB x 1\r\ny", "a\n", "\t", "a\0", "é", "x" * 65, "x" * 2**20, "{1}", "a:b",
    " a", "a ", "\N{ARABIC-INDIC DIGIT ONE}", "\ud800",
]  # fmt: skip


def test_the_subjects_of_the_protocol() -> None:
    subjects = Subjects("im")
    assert subjects.upstream == "im.logic.upstream"
    assert subjects.undelivered == "im.logic.undelivered"
    assert subjects.broadcast == "im.access.broadcast"
    assert subjects.downstream("node-1") == "im.access.node-1.downstream"
    assert subjects.user_event(1001) == "im.user.1001.event"
    assert subjects.user_events == "im.user.*.event"
    assert LOGIC_QUEUE == "logic-group"
    assert Subjects().prefix == "im"
    assert Subjects("test_2").upstream == "test_2.logic.upstream"


@pytest.mark.parametrize("text", EVIL)
def test_t26_no_other_text_becomes_part_of_a_subject(text: str) -> None:
    with pytest.raises(ValueError, match="the subject prefix must be 1 to 64 characters") as caught:
        Subjects(text)
    assert len(str(caught.value)) < 600
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="a node id must be"):
        Subjects().downstream(text)


def test_t26_only_a_positive_int64_is_a_user() -> None:
    wrong: Any
    for wrong in (0, -1, 2**63, 10**5000, True, 1.0, "1", None):
        with pytest.raises(ValueError, match="a user id must be a whole number from 1 to 2"):
            Subjects().user_event(wrong)


@given(st.integers(1, 2**63 - 1))
def test_the_user_of_a_subject(user_id: int) -> None:
    subjects = Subjects("im")
    assert subjects.user_of(subjects.user_event(user_id)) == user_id


@pytest.mark.parametrize(
    "subject",
    [
        "", "im.user.1", "im.user..event", "im.user.0.event", "im.user.01.event", "im.user.-1.event",
        "im.user.1 .event",
        "im.user.+1.event", "im.user.1_0.event", "im.user.9223372036854775808.event", "xx.user.1.event",
        "im.user.\N{ARABIC-INDIC DIGIT ONE}.event", "im.user.1.event.event", "im.user.a.event", "im.logic.upstream",
        "im.user.1.2.event", "im.user." + "1" * 10000 + ".event",
    ],
)  # fmt: skip
def test_any_other_subject_has_no_user(subject: str) -> None:
    with pytest.raises(ValueError, match="not a user's event subject"):
        Subjects("im").user_of(subject)


def test_checked_name_says_what_it_is_about() -> None:
    assert checked_name("a-Z_9", "a thing") == "a-Z_9"
    assert checked_name("x" * 80, "a thing", 80) == "x" * 80
    with pytest.raises(ValueError, match="a thing must be 1 to 3 characters of A-Z a-z 0-9 _ -, not 'four'"):
        checked_name("four", "a thing", 3)
    wrong: Any = 5
    with pytest.raises(ValueError, match="not 'int'"):
        checked_name(wrong, "a thing")


def test_identifiers_made_here_are_names_and_never_repeat() -> None:
    for new in (new_message_id, new_session_id):
        made = {new() for _ in range(1000)}
        assert len(made) == 1000
        assert all(is_name(text) and len(text) == 22 for text in made)
