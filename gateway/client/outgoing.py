"""Own messages from `send` to their acknowledgement, and acknowledgements until they are surely received.

Both outlive a connection: what the server has not answered for is written again on the next one, messages
under the same msg_id. No I/O and no waiting lives here.
"""

from __future__ import annotations

from collections import deque

from gateway._framing import build_ack, build_chat
from gateway.client.errors import Rejected
from gateway.client.messages import Receipt
from gateway.protocol.types import AckStatus

ACKNOWLEDGEMENTS = 4096
"""Acknowledgements kept; past it the oldest is dropped: a missing tick, not a missing message."""

RECENT = 4096
"""Own msg_ids remembered, so that a copy of an own message is not taken for one from another device."""


class Pending:
    """One message that the server has not answered for."""

    __slots__ = (
        "accepted_at", "content", "content_type", "early", "error", "goal", "group_id", "msg_id",
        "receipt", "sent_at", "seq", "settled", "to_user", "writings",
    )  # fmt: skip

    def __init__(
        self, msg_id: str, to_user: int, group_id: int, content: str, content_type: int, sent_at: int, goal: AckStatus
    ) -> None:
        self.msg_id = msg_id
        self.to_user = to_user
        self.group_id = group_id
        self.content = content
        self.content_type = content_type
        self.sent_at = sent_at
        self.goal = goal
        """ACCEPTED or STORED: what ends the waiting."""
        self.seq = 0
        self.accepted_at: float | None = None
        """When the node of this connection said that it has handed it on."""
        self.writings = 0
        self.early = False
        """It was written before the login of this connection."""
        self.settled = False
        self.receipt: Receipt | None = None
        self.error: Rejected | None = None

    @property
    def size(self) -> int:
        """Bytes that count against the bound."""
        return 4 * len(self.content)

    def frame(self, seq: int, now_ms: int) -> bytes:
        """The whole frame."""
        return build_chat(
            seq, now_ms, self.msg_id, 0, self.to_user, self.content, self.content_type, self.sent_at, self.group_id, 0
        )


class Outgoing:
    """Messages in the order of their `send`."""

    def __init__(self, bound: int, bound_bytes: int) -> None:
        self._bound = bound
        self._bound_bytes = bound_bytes
        self._pending: dict[str, Pending] = {}
        self._by_seq: dict[int, Pending] = {}
        self._unwritten: deque[Pending] = deque()
        self._recent: dict[str, None] = {}
        self._bytes = 0
        self.sent = 0
        self.resent = 0
        self.stored = 0
        self.rejected = 0

    def __len__(self) -> int:
        return len(self._pending)

    def __contains__(self, msg_id: str) -> bool:
        return msg_id in self._pending

    def ids(self) -> tuple[str, ...]:
        """The msg_ids that wait, oldest first."""
        return tuple(self._pending)

    def is_own(self, msg_id: str) -> bool:
        """Whether this client sent it, as far back as it remembers."""
        return msg_id in self._recent

    def has_room(self, size: int) -> bool:
        """Whether one more of `size` may be added; one alone always may."""
        return not self._pending or (len(self._pending) < self._bound and self._bytes + size <= self._bound_bytes)

    def add(self, pending: Pending) -> None:
        """Queue it for writing."""
        self._pending[pending.msg_id] = pending
        self._recent[pending.msg_id] = None
        if len(self._recent) > max(RECENT, len(self._pending)):
            del self._recent[next(iter(self._recent))]
        self._bytes += pending.size
        self._unwritten.append(pending)

    def withdraw(self, pending: Pending) -> None:
        """Forget it: nobody waits any more."""
        if self._pending.get(pending.msg_id) is pending:
            del self._pending[pending.msg_id]
            self._by_seq.pop(pending.seq, None)
            self._bytes -= pending.size
            pending.settled = True

    def logged_in(self) -> None:
        """A new connection: everything that waits is written again, in order, before anything newer; but what went
        out early and was accepted already is under way."""
        self._by_seq.clear()
        self._unwritten = deque(each for each in self._pending.values() if not each.early or each.accepted_at is None)
        for pending in self._pending.values():
            pending.early = False

    def early(self, seq: int, now_ms: int, bound: int) -> list[bytes]:
        """The oldest messages that wait, up to `bound` bytes, to be written before a login. Whatever becomes of
        them, those that are not accepted by then are written again after it."""
        written: list[bytes] = []
        size = 0
        for pending in self._pending.values():
            frame = pending.frame(seq + len(written), now_ms)
            size += len(frame)
            if size > bound:
                break
            pending.early = True
            pending.accepted_at = None
            self.sent += 1
            self.resent += pending.writings > 0
            pending.writings += 1
            written.append(frame)
        return written

    def next_frame(self, seq: int, now_ms: int) -> bytes | None:
        """The next message to write, under this `seq`."""
        while self._unwritten:
            pending = self._unwritten.popleft()
            if pending.settled:
                continue
            self._by_seq.pop(pending.seq, None)
            self._by_seq[seq] = pending
            pending.seq = seq
            pending.accepted_at = None
            self.sent += 1
            self.resent += pending.writings > 0
            pending.writings += 1
            return pending.frame(seq, now_ms)
        return None

    def overdue(self, now: float, after: float, longest: float) -> float:
        """Queue again what was accepted `after` seconds ago and is not stored; return when to look next.

        What was not even accepted is on its way: the link is reliable, and writing it again would only add to a
        queue that is too long already. Each resend doubles the patience up to `longest`, for the same reason.
        """
        due = now + after
        for pending in self._pending.values():
            if pending.accepted_at is None:
                continue
            at = pending.accepted_at + max(after, min(longest, after * 2.0 ** min(pending.writings - 1, 10)))
            if at > now:
                due = min(due, at)
            else:
                pending.accepted_at = None
                self._unwritten.append(pending)
        return due

    def acknowledged(self, receipt: Receipt, now: float) -> Pending | None:
        """The server answered for a message; returns it if that settles it."""
        pending = self._pending.get(receipt.msg_id)
        if pending is None:
            return None
        if receipt.status is AckStatus.REJECTED:
            self.rejected += 1
            pending.error = Rejected(receipt.msg_id, receipt.code, receipt.reason)
        elif receipt.status < pending.goal:
            pending.accepted_at = now
            return None
        self.stored += receipt.status is not AckStatus.REJECTED and receipt.status >= AckStatus.STORED
        pending.receipt = receipt
        self.withdraw(pending)
        return pending

    def written_under(self, seq: int) -> str | None:
        """The msg_id of the message written under `seq`, if it still waits."""
        pending = self._by_seq.get(seq)
        return None if pending is None else pending.msg_id


class Acknowledgement:
    """One Delivered or Read to be told."""

    __slots__ = ("msg_id", "seq", "server_seq", "status")

    def __init__(self, msg_id: str, status: AckStatus, server_seq: int) -> None:
        self.msg_id = msg_id
        self.status = status
        self.server_seq = server_seq
        self.seq = 0


class Acknowledgements:
    """Delivered and Read, oldest first. They have no reply of their own; but the server answers in order, so the
    reply to anything written later proves that they arrived. Until then they are kept for the next connection."""

    def __init__(self, bound: int = ACKNOWLEDGEMENTS) -> None:
        self._bound = bound
        self._unwritten: deque[Acknowledgement] = deque()
        self._written: deque[Acknowledgement] = deque()
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._unwritten)

    def add(self, msg_id: str, status: AckStatus, server_seq: int) -> None:
        """Queue one."""
        if len(self._unwritten) >= self._bound:
            self._unwritten.popleft()
            self.dropped += 1
        self._unwritten.append(Acknowledgement(msg_id, status, server_seq))

    def logged_in(self) -> None:
        """A new connection: what is not proven is written again."""
        self._written.extend(self._unwritten)
        self._unwritten = self._written
        self._written = deque()
        while len(self._unwritten) > self._bound:
            self._unwritten.popleft()
            self.dropped += 1

    def next_frame(self, seq: int, now_ms: int) -> bytes | None:
        """The next one to write, under this `seq`."""
        if not self._unwritten:
            return None
        ack = self._unwritten.popleft()
        ack.seq = seq
        if len(self._written) >= self._bound:
            self._written.popleft()
        self._written.append(ack)
        return build_ack(seq, now_ms, ack.msg_id, ack.status, 0, ack.server_seq, now_ms)

    def proven(self, seq: int) -> None:
        """The server answered `seq`: everything written before it has arrived."""
        while self._written and self._written[0].seq < seq:
            self._written.popleft()
