"""A page put together by hand says what the builder's would, and verifies."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway._framing import parse_frame
from gateway.logic.pages import sync_packet
from gateway.logic.settings import SYNC_BYTES
from gateway.logic.store import ENTRY_BYTES, Entry, Page
from gateway.protocol.messages import ChatMessage, SyncResponse, decode
from gateway.protocol.types import MsgType

int64 = st.integers(1, 2**63 - 1)
entries = st.builds(
    Entry,
    int64,
    st.text("abcXYZ019_-", min_size=1, max_size=64),
    int64,
    int64 | st.just(0),
    int64 | st.just(0),
    st.text(max_size=40),
    st.integers(-(2**31), 2**31 - 1),
    int64,
)
pages = st.builds(Page, st.lists(entries, max_size=12), st.integers(0, 2**63 - 1), st.booleans(), st.just([]))


@settings(deadline=None, database=None)
@given(pages, st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_it_says_the_same(page: Page, seq: int, timestamp: int) -> None:
    frame = parse_frame(MsgType.SYNC_ACK, sync_packet(page, seq, timestamp))
    assert (frame.seq, frame.timestamp) == (seq, timestamp)
    assert decode(frame) == SyncResponse(
        next_cursor=page.next_cursor,
        has_more=page.has_more,
        messages=tuple(
            ChatMessage(
                msg_id=entry.msg_id,
                from_user=entry.sender,
                to_user=entry.to_user,
                content=entry.content,
                content_type=entry.content_type,
                timestamp=entry.sent_at,
                group_id=entry.group_id,
                server_seq=entry.server_seq,
            )
            for entry in page.entries
        ),
    )


@settings(deadline=None, database=None)
@given(entries)
def test_an_entry_takes_no_more_than_is_reckoned(entry: Entry) -> None:
    one, two = (len(sync_packet(Page([entry] * count, 1, False, []), 1, 1)) for count in (1, 2))
    assert two - one <= ENTRY_BYTES + len(entry.content.encode())
    assert one - (two - one) < 65_536 - SYNC_BYTES
