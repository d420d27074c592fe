"""The load of `benchmarks/roundtrip.py`: pairs of TCP clients, senders on one node, receivers on another.

Open loop: a message is due at its time whether or not the ones before have arrived, and its latency counts from when
it was due, so that a slow system cannot make the load kinder. One thread and `select`, which can wait microseconds.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable

import msgspec

from gateway._framing import AckFrame, ChatFrame, DispatchTable, FrameDecoder, build_ack, build_chat, build_heartbeat
from gateway.protocol.messages import AuthRequest, AuthResponse, decode, encode
from gateway.protocol.types import AckStatus, MsgType

CHUNK = 1 << 18
FRAME_LIMIT = 1 << 20
GRACE = 5.0
"""Seconds after the last message in which all must have arrived."""
LATEST = 30.0
"""Seconds that the whole of a step may take beyond its own length."""


class Step(msgspec.Struct, kw_only=True):
    """What one rate did. Seconds; lists are in the order of arrival."""

    rate: float
    sent: int
    delivered: list[float] = msgspec.field(default_factory=list)
    """From when a message was due to its arrival at the receiver."""
    stored: list[float] = msgspec.field(default_factory=list)
    """Likewise to its Stored at the sender."""
    late: list[float] = msgspec.field(default_factory=list)
    """How long after they were due messages were written: the load's own lateness, contained in the others."""
    rejected: int = 0
    seconds: float = 0.0
    """Until the last one had arrived, or was given up."""

    @property
    def missing(self) -> int:
        """Messages that did not arrive in time."""
        return self.sent - len(self.delivered)


class _Client:
    """One logged-in connection; what it hears goes to the load."""

    def __init__(self, address: str, token: str, table: DispatchTable) -> None:
        host, _, port = address.rpartition(":")
        self.sock = socket.create_connection((host, int(port)), timeout=LATEST)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._decoder = FrameDecoder(table, FRAME_LIMIT)
        self.sock.sendall(encode(AuthRequest(token=token, device_id="phone", platform="bench"), seq=1))

    def fileno(self) -> int:
        return self.sock.fileno()

    def hear(self) -> None:
        """Handle what has arrived."""
        data = self.sock.recv(CHUNK)
        if not data:
            raise SystemExit("the node has hung up on the load")
        self._decoder.feed(self, data)


class Load:
    """Connects `pairs` of users; `drive` sends from each first one to its second one, in turn."""

    def __init__(self, near: str, far: str, token: Callable[[int], str], *, pairs: int, size: int, receipts: bool):
        """
        Args:
            near, far: `host:port` of the senders' and the receivers' node.
            token: a user's token.
            pairs: how many of each.
            size: bytes of a message's content.
            receipts: whether receivers acknowledge each message as Delivered, as an application's clients do.
        """
        table = DispatchTable(_refused)
        table.on(MsgType.AUTH_ACK, self._seated)
        table.on(MsgType.MESSAGE, self._arrived)
        table.on(MsgType.MESSAGE_ACK, self._acknowledged)
        self._left = 2 * pairs
        self._receipts = receipts
        self._filler = "x" * size
        self._size = size
        self._due: dict[str, float] = {}
        self._step = Step(rate=0, sent=0)
        self._runs = 0
        self._targets = [2 * number + 1002 for number in range(pairs)]
        self._senders = [_Client(near, token(user - 1), table) for user in self._targets]
        receivers = [_Client(far, token(user), table) for user in self._targets]
        self._all = [*self._senders, *receivers]
        deadline = time.perf_counter() + LATEST
        while self._left:
            self._hear(1.0)
            if time.perf_counter() > deadline:
                raise SystemExit("the load's logins take too long")

    def drive(self, rate: float, seconds: float) -> Step:
        """Send at a steady rate, and wait for what arrives."""
        self._runs += 1
        total = int(rate * seconds)
        self._step = step = Step(rate=rate, sent=total)
        self._due.clear()
        for client in self._all:  # receivers have nothing else to say, and would be closed for it
            client.sock.sendall(build_heartbeat(1, 1))
        number = 0
        began = now = time.perf_counter()
        last = began + seconds
        while now < last + GRACE and now < began + seconds + LATEST:
            due = began + number / rate
            while number < total and due <= now:
                self._send(number, due)
                number += 1
                due = began + number / rate
            if number == total and len(step.delivered) == total and len(step.stored) + step.rejected >= total:
                break
            self._hear(max(0.0, due - now) if number < total else 0.05)
            now = time.perf_counter()
            if number < total:
                last = now
        step.seconds = time.perf_counter() - began
        return step

    def _send(self, number: int, due: float) -> None:
        pair = number % len(self._senders)
        name = f"r{self._runs}-{number}"
        content = f"{name} {self._filler}"[: self._size]
        self._due[name] = due
        frame = build_chat(number + 2, 1, name, 0, self._targets[pair], content, 0, 1, 0, 0)
        self._senders[pair].sock.sendall(frame)
        self._step.late.append(time.perf_counter() - due)

    def _hear(self, timeout: float) -> None:
        for client in select.select(self._all, [], [], timeout)[0]:
            client.hear()

    # -- what is heard -------------------------------------------------------------------------------------

    def _seated(self, client: _Client, frame: object) -> None:
        answer = decode(frame)  # type: ignore[arg-type]
        assert isinstance(answer, AuthResponse)
        if answer.code:
            raise SystemExit(f"the load cannot log in: {answer.code} {answer.message}")
        self._left -= 1

    def _arrived(self, client: _Client, frame: ChatFrame) -> None:
        due = self._due.get(frame.msg_id)
        if due is not None:
            self._step.delivered.append(time.perf_counter() - due)
        if self._receipts:
            client.sock.sendall(build_ack(0, 1, frame.msg_id, AckStatus.DELIVERED, 0, frame.server_seq, 1))

    def _acknowledged(self, client: _Client, frame: AckFrame) -> None:
        due = self._due.get(frame.msg_id)
        if due is None:
            return
        if frame.status == AckStatus.STORED:
            self._step.stored.append(time.perf_counter() - due)
        elif frame.status == AckStatus.REJECTED:
            self._step.rejected += 1


def _refused(client: object, code: int, msg_type: int, seq: int) -> None:
    """Frames that the load has no use for: Error among them, which would be a bug of ours."""
    if msg_type == MsgType.ERROR:
        raise SystemExit("the node answered the load with an Error")
