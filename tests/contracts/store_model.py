"""A Store against a model of dictionaries and lists: Hypothesis looks for a sequence where they differ."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from gateway.logic.store import (
    Entry,
    History,
    NotMember,
    Outcome,
    Page,
    Post,
    Posted,
    Raised,
    Receipt,
    Retention,
    Store,
    Told,
    Write,
)
from gateway.protocol.types import AckStatus

USERS = range(1, 5)
GROUPS = range(1, 3)

users = st.sampled_from(USERS)
posts = st.builds(
    lambda sender, msg_id, to, group, content: Post(sender, msg_id, 0 if group else to, group, content, 0, 1),
    users,
    st.sampled_from([f"m{i}" for i in range(8)]),
    users,
    st.sampled_from([0, 0, 0, *GROUPS, 9]),
    st.sampled_from(["", "x", "é" * 300]),
)
receipts = st.builds(
    Receipt,
    users,
    st.integers(0, 6),
    st.sampled_from(["", *(f"m{i}" for i in range(8))]),
    st.sampled_from([AckStatus.DELIVERED, AckStatus.READ]),
).filter(lambda receipt: receipt.server_seq or receipt.msg_id)


class Model:
    """What the store should be."""

    def __init__(self) -> None:
        self.messages: dict[tuple[int, str], tuple[int, int]] = {}
        self.timelines: dict[int, list[Post]] = defaultdict(list)
        self.status: dict[tuple[int, int], int] = defaultdict(int)
        self.furthest: dict[tuple[int, str], int] = defaultdict(int)
        self.owed: set[tuple[int, str]] = set()
        self.groups: dict[int, set[int]] = {group: set() for group in GROUPS}
        self.begins: dict[int, int] = defaultdict(int)
        """How many entries of a timeline have been forgotten."""

    def prune(self, retention: Retention) -> set[tuple[int, str]]:
        """The messages that are gone with the last entry that showed them."""
        for user, timeline in self.timelines.items():
            while self.begins[user] < len(timeline) - 1:
                oldest = timeline[self.begins[user]]
                old = self.messages[oldest.sender, oldest.msg_id][1] < retention.before_ms
                if not old and not (retention.keep and self.begins[user] < len(timeline) - retention.keep):
                    break
                self.begins[user] += 1
        shown = {
            (post.sender, post.msg_id)
            for user, timeline in self.timelines.items()
            for post in timeline[self.begins[user] :]
        }
        gone = self.messages.keys() - shown
        for key in gone:
            del self.messages[key]
            self.furthest.pop(key, None)
            self.owed.discard(key)
        return gone

    def post(self, post: Post, now: int) -> Posted | NotMember:
        key = post.sender, post.msg_id
        if key in self.messages:
            return Posted(*self.messages[key], repeated=True)
        members = self.groups.get(post.group_id, set()) if post.group_id else {post.to_user}
        if post.group_id and post.sender not in members:
            return NotMember()
        placed = []
        for user in [post.sender, *sorted(members - {post.sender})]:
            self.timelines[user].append(post)
            placed.append((user, len(self.timelines[user])))
        self.messages[key] = placed[0][1], now
        return Posted(placed[0][1], now, placed[1:])

    def receipt(self, receipt: Receipt) -> tuple[int, str] | None:
        """The message that came further by it."""
        timeline = self.timelines[receipt.user_id]
        place = receipt.server_seq
        if not place:
            for seq in range(len(timeline), self.begins[receipt.user_id], -1):
                if timeline[seq - 1].msg_id == receipt.msg_id and timeline[seq - 1].sender != receipt.user_id:
                    place = seq
                    break
        if not self.begins[receipt.user_id] < place <= len(timeline):
            return None
        post = timeline[place - 1]
        at = receipt.user_id, place
        if receipt.msg_id not in ("", post.msg_id) or post.sender == at[0] or receipt.status <= self.status[at]:
            return None
        self.status[at] = receipt.status
        key = post.sender, post.msg_id
        if receipt.status <= self.furthest[key]:
            return None
        self.furthest[key] = receipt.status
        self.owed.add(key)
        return key


class StoreModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.now = 1_000
        self.known: list[Raised] = []

    def make_groups(self, groups: Sequence[int]) -> None:
        """An empty store, with these groups."""
        raise NotImplementedError

    def write_some(self, writes: list[Write], now_ms: int) -> list[Outcome]:
        """`Store.write`."""
        raise NotImplementedError

    def read_some(self, queries: list[History]) -> list[Page]:
        """`Store.read`."""
        raise NotImplementedError

    def prune_all(self, retention: Retention) -> None:
        """`Store.prune` from the beginning of a round to its end."""
        raise NotImplementedError

    def change_member(self, group: int, user: int, joins: bool) -> None:
        """Add or remove a member."""
        raise NotImplementedError

    @initialize()
    def begin(self) -> None:
        self.make_groups(GROUPS)

    @rule(writes=st.lists(posts | receipts, min_size=1, max_size=12))
    def write(self, writes: list[Write]) -> None:
        self.now += 1
        outcomes = self.write_some(writes, self.now)
        assert len(outcomes) == len(writes)
        expected: list[Outcome] = [
            self.model.post(each, self.now) if isinstance(each, Post) else None for each in writes
        ]
        raised: dict[tuple[int, str], int] = {}
        for index, each in enumerate(writes):
            if isinstance(each, Receipt) and (key := self.model.receipt(each)):
                raised[key] = index  # of several in one batch, the last says it
        for index, (outcome, wanted) in enumerate(zip(outcomes, expected, strict=True)):
            if isinstance(writes[index], Post):
                assert outcome == wanted
            elif isinstance(outcome, Raised):
                key = outcome.sender, outcome.msg_id
                assert raised.pop(key) == index
                assert outcome.status == self.model.furthest[key]
                assert outcome.server_seq == self.model.messages[key][0]
                self.known.append(outcome)
        assert not raised

    @precondition(lambda self: self.known)
    @rule(data=st.data())
    def tell(self, data: st.DataObject) -> None:
        raised = data.draw(st.sampled_from(self.known))
        self.write_some([Told(raised.key, raised.status)], self.now)
        key = raised.sender, raised.msg_id
        if self.model.furthest[key] == raised.status:
            self.model.owed.discard(key)

    @rule(group=st.sampled_from(GROUPS), user=users, joins=st.booleans())
    def member(self, group: int, user: int, joins: bool) -> None:
        self.change_member(group, user, joins)
        if joins:
            self.model.groups[group].add(user)
        else:
            self.model.groups[group].discard(user)

    @rule(age=st.sampled_from([None, 0, 1, 3]), keep=st.integers(0, 4))
    def prune(self, age: int | None, keep: int) -> None:
        retention = Retention(0 if age is None else self.now - age, keep)
        self.prune_all(retention)
        gone = self.model.prune(retention)
        self.known = [each for each in self.known if (each.sender, each.msg_id) not in gone]

    @rule(user=users, cursor=st.integers(0, 8), limit=st.integers(1, 5), room=st.sampled_from([1, 700, 100_000]))
    def page(self, user: int, cursor: int, limit: int, room: int) -> None:
        [page] = self.read_some([History(user, cursor, limit, room)])
        timeline = self.model.timelines[user]
        first = max(cursor, self.model.begins[user])
        wanted = timeline[first : first + len(page.entries)]
        assert [_post(entry) for entry in page.entries] == wanted
        assert [entry.server_seq for entry in page.entries] == list(range(first + 1, first + 1 + len(wanted)))
        assert len(page.entries) <= limit
        assert page.entries or cursor >= len(timeline)
        assert page.next_cursor == (first + len(page.entries) if page.entries else min(cursor, len(timeline)))
        assert page.has_more == (page.next_cursor < len(timeline) and bool(page.entries))
        size = sum(len(entry.content.encode()) for entry in page.entries)
        assert size <= room or len(page.entries) == 1
        assert _owed(page) == {key for key in self.model.owed if key[0] == user}


async def pruned(store: Store, retention: Retention) -> int:
    """A whole round; how many steps it took."""
    after, steps = "", 0
    while True:
        after = await store.prune(retention, after)
        steps += 1
        if not after:
            return steps


def _post(entry: Entry) -> Post:
    return Post(
        entry.sender, entry.msg_id, entry.to_user, entry.group_id, entry.content, entry.content_type, entry.sent_at
    )


def _owed(page: Page) -> set[tuple[int, str]]:
    return {(raised.sender, raised.msg_id) for raised in page.owed}


SETTINGS = settings(
    max_examples=10,
    stateful_step_count=25,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
