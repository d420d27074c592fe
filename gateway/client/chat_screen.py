"""What a chat prints: for people, or one JSON object a line for machines. Nothing here decides anything."""

from __future__ import annotations

import io
import json
import sys
import time
from typing import Any, Protocol, TextIO

from gateway.client.endpoint import NAMES
from gateway.client.errors import describe
from gateway.client.messages import Complaint, Delivery, Event, OfferedFile, Receipt, Signal, State, StateChange, Synced
from gateway.protocol.types import AckStatus

TICKS = {AckStatus.STORED: "✓ ", AckStatus.DELIVERED: "✓✓", AckStatus.READ: "✓✓ read:"}
RECALLED = 200
"""Own lines remembered, to say which one a receipt is about."""
QUOTED = 40
"""Characters of an own line that are shown with its receipt."""


class Screen(Protocol):
    """Told everything that a person may want to see. Writes at once; OSError when nobody reads any more."""

    def delivery(self, delivery: Delivery) -> None:
        """A message for this user."""

    def sent(self, msg_id: str, text: str) -> None:
        """An own line is on its way."""

    def failed(self, text: str, reason: str) -> None:
        """An own line could not be sent."""

    def file(self, number: int, file: OfferedFile) -> None:
        """A file for this user; by this number it can be fetched."""

    def file_done(self, path: str, reference: str, *, fetched: bool) -> None:
        """A file was sent, or fetched."""

    def notice(self, notice: object) -> None:
        """Anything else."""


class People:
    """Plain lines: time, sender, text; ticks for own lines; state changes behind two dashes."""

    def __init__(self, user: int, output: TextIO) -> None:
        self._user = user
        self._output = output
        self._own: dict[str, str] = {}
        self._shown: dict[str, AckStatus] = {}
        self._missed = 0
        self._announced: int | None = None
        self._online = False

    def delivery(self, delivery: Delivery) -> None:
        if delivery.missed and not self._missed:
            self._line("-- missed while away:")
        sender = "you, elsewhere" if delivery.from_user == self._user else str(delivery.from_user)
        where = f" in group {delivery.group_id}" if delivery.group_id else ""
        if delivery.from_user == self._user and not delivery.group_id:
            where = f" to {delivery.to_user}"
        self._line(f"{moment(delivery.sent_at)} {sender}{where}: {printable(delivery.content)}")
        if delivery.missed:
            self._missed += 1
            self._end_of_missed()

    def sent(self, msg_id: str, text: str) -> None:
        self._own[msg_id] = printable(text if len(text) <= QUOTED else text[: QUOTED - 1] + "…")
        if len(self._own) > RECALLED:
            oldest = next(iter(self._own))
            del self._own[oldest]
            self._shown.pop(oldest, None)

    def failed(self, text: str, reason: str) -> None:
        self._line(f"✗ {printable(text[:QUOTED])}: {printable(reason)}")

    def file(self, number: int, file: OfferedFile) -> None:
        sender = "you, elsewhere, sent" if file.from_user == self._user else f"{file.from_user} sends"
        where = f" to group {file.group_id}" if file.group_id else ""
        self._line(f"-- {sender} a file{where}: {printable(file.name)} ({amount(file.size)}); /fetch {number}")

    def file_done(self, path: str, reference: str, *, fetched: bool) -> None:
        self._line(f"-- fetched: {printable(path)}" if fetched else f"{TICKS[AckStatus.STORED]} file {printable(path)}")

    def notice(self, notice: object) -> None:
        if isinstance(notice, Receipt):
            self._receipt(notice)
        elif isinstance(notice, StateChange):
            self._state(notice)
        elif isinstance(notice, Synced):
            if notice.missed == 0 and self._announced is None:
                self._line("-- nothing missed")
            self._announced = (self._announced or 0) + notice.missed
            self._end_of_missed()
        elif isinstance(notice, Signal):
            self._line(f"-- {notice.from_user}: {printable(notice.kind)}")
        elif isinstance(notice, Event):
            self._line(f"-- event {printable(notice.kind)}")
        elif isinstance(notice, Complaint):
            self._line(f"-- the server says {describe(notice.code, notice.reason)}")

    def _receipt(self, receipt: Receipt) -> None:
        text = self._own.get(receipt.msg_id)
        if text is None:
            return
        if receipt.status is AckStatus.REJECTED:
            self._line(f"✗ {text}: {describe(receipt.code, receipt.reason)}")
        elif receipt.status in TICKS and receipt.status > self._shown.get(receipt.msg_id, AckStatus.ACCEPTED):
            self._shown[receipt.msg_id] = receipt.status
            self._line(f"{TICKS[receipt.status]} {text}")

    def _state(self, change: StateChange) -> None:
        if change.state is State.ONLINE:
            by = NAMES[change.url.partition(":")[0]]
            self._line(f"-- connected {'again ' if self._online else ''}to {change.url} ({by})")
            self._online = True
        elif change.state is State.WAITING and self._online:
            self._line(f"-- {describe(change.code, change.reason)}; connecting again in {change.delay:.1f} s")
        elif change.state is State.LEAVING:
            reason = f" ({printable(change.reason)})" if change.reason else ""
            self._line(f"-- the server is going away{reason}; changing over in {change.delay:.1f} s")

    def _end_of_missed(self) -> None:
        if self._announced and self._missed >= self._announced:
            self._line(f"-- {self._missed} missed")
            self._missed = self._announced = 0

    def _line(self, text: str) -> None:
        print(text, file=self._output, flush=True)


class Machines:
    """One JSON object a line, `type` first."""

    def __init__(self, output: TextIO) -> None:
        self._output = output

    def delivery(self, delivery: Delivery) -> None:
        self._line("message", delivery)

    def sent(self, msg_id: str, text: str) -> None:
        self._line("sent", {"msg_id": msg_id, "content": text})

    def failed(self, text: str, reason: str) -> None:
        self._line("failed", {"content": text, "reason": reason})

    def file(self, number: int, file: OfferedFile) -> None:
        self._line("file", {"number": number} | _plain(file))

    def file_done(self, path: str, reference: str, *, fetched: bool) -> None:
        self._line("file_fetched" if fetched else "file_sent", {"path": path, "reference": reference})

    def notice(self, notice: object) -> None:
        kind = "state" if isinstance(notice, StateChange) else type(notice).__name__.lower()
        self._line(kind, notice)

    def _line(self, kind: str, value: object) -> None:
        fields: dict[str, Any] = value if isinstance(value, dict) else _plain(value)
        print(json.dumps({"type": kind} | fields, ensure_ascii=False), file=self._output, flush=True)


def _plain(value: Any) -> dict[str, Any]:
    fields = {name: getattr(value, name) for name in value.__struct_fields__}
    if isinstance(fields.get("status"), AckStatus):
        fields["status"] = fields["status"].name.lower()
    return {name: value.hex() if isinstance(value, bytes) else value for name, value in fields.items()}


def amount(size: int) -> str:
    """Bytes, for people."""
    if size < 1000:
        return f"{size} bytes"
    step = min((len(str(size)) - 1) // 3, 5)
    return f"{size / 1000**step:.1f} {('', 'kB', 'MB', 'GB', 'TB', 'PB')[step]}"


def moment(unix_ms: int) -> str:
    """The local time of day; with the date when it was not today."""
    try:
        then = time.localtime(unix_ms / 1000)
    except (OverflowError, ValueError, OSError):
        return "??:??:??"
    today = time.localtime()
    same = (then.tm_year, then.tm_yday) == (today.tm_year, today.tm_yday)
    return time.strftime("%H:%M:%S" if same else "%Y-%m-%d %H:%M", then)


def printable(text: str) -> str:
    """What somebody else wrote must not steer this terminal: control characters are shown, not sent."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in text)


def screen(*, user: int, machines: bool, output: TextIO | None = None) -> Screen:
    """For people, or for machines, on standard output."""
    output = output or sys.stdout
    if isinstance(output, io.TextIOWrapper):
        output.reconfigure(errors="replace")  # a terminal that knows no ticks shows question marks
    return Machines(output) if machines else People(user, output)
