"""What each kind of frame from the server does. Handlers are synchronous and raise nothing.

A new kind of frame is one function and one row here. Kinds that this client does not know are ignored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import trio

from gateway._framing import AckFrame, ChatFrame, DispatchTable, Frame, SignalFrame
from gateway.client.errors import RequestFailed, describe
from gateway.client.files import offered
from gateway.client.messages import Complaint, Delivery, Event, Receipt, Signal
from gateway.protocol import messages
from gateway.protocol.chunks import read_chunk
from gateway.protocol.codes import ANSWERED, Code
from gateway.protocol.types import AckStatus, MsgType

if TYPE_CHECKING:
    from gateway.client.connection import Connection


def synced(connection: Connection, message: messages.ChatMessage) -> Delivery | int:
    """A message that came by Sync; only its number if this client sent it, and then it is stored, too."""
    if own(connection, message.from_user, message.msg_id):
        if message.msg_id in connection.journal.outgoing:
            receipt = Receipt(msg_id=message.msg_id, status=AckStatus.STORED, server_seq=message.server_seq)
            settle(connection, receipt)
        return message.server_seq
    return delivery(message)


def delivery(message: messages.ChatMessage) -> Delivery:
    """A message that came by Sync."""
    return Delivery(
        msg_id=message.msg_id,
        from_user=message.from_user,
        to_user=message.to_user,
        group_id=message.group_id,
        content=message.content,
        content_type=message.content_type,
        sent_at=message.timestamp,
        server_seq=message.server_seq,
        missed=True,
    )


def own(connection: Connection, from_user: int, msg_id: str) -> bool:
    """Whether this client sent it: a copy of it is nothing new to the program."""
    return from_user == connection.journal.user_id and connection.journal.outgoing.is_own(msg_id)


def on_message(connection: Connection, frame: ChatFrame) -> None:
    """A delivery."""
    timeline = connection.journal.timeline
    if own(connection, frame.from_user, frame.msg_id):
        timeline.sent(frame.server_seq)
    else:
        timeline.arrived(
            Delivery(
                msg_id=frame.msg_id,
                from_user=frame.from_user,
                to_user=frame.to_user,
                group_id=frame.group_id,
                content=frame.content,
                content_type=frame.content_type,
                sent_at=frame.sent_at,
                server_seq=frame.server_seq,
            )
        )
    connection.journal.delivered.ring()
    if timeline.behind:
        connection.to_sync.ring()


def on_ack(connection: Connection, frame: AckFrame) -> None:
    """An own message has come further."""
    try:
        status = AckStatus(frame.status)
    except ValueError:
        return
    journal = connection.journal
    if status is AckStatus.ACCEPTED:
        journal.acknowledgements.proven(frame.seq)
    elif status is AckStatus.STORED and frame.server_seq:
        journal.timeline.sent(frame.server_seq)
        connection.to_sync.ring()
    settle(
        connection,
        Receipt(msg_id=frame.msg_id, status=status, code=frame.code, server_seq=frame.server_seq, at=frame.acked_at),
    )


def settle(connection: Connection, receipt: Receipt) -> None:
    """Tell the program, and whoever waits in `send` or `send_file`."""
    journal = connection.journal
    journal.files.receipt(receipt)
    if journal.outgoing.acknowledged(receipt, trio.current_time()) is not None:
        journal.settled.ring()
    journal.notices.put(receipt)


def reject(connection: Connection, seq: int, code: int, reason: str) -> bool:
    """The message written under `seq`, if there is one, will not be taken."""
    msg_id = connection.journal.outgoing.written_under(seq)
    if msg_id is None:
        return False
    settle(connection, Receipt(msg_id=msg_id, status=AckStatus.REJECTED, code=code, reason=reason))
    return True


def on_signal(connection: Connection, frame: SignalFrame) -> None:
    """Typing and the like."""
    connection.journal.notices.put(
        Signal(
            from_user=frame.from_user,
            to_user=frame.to_user,
            group_id=frame.group_id,
            kind=frame.kind,
            data=frame.data,
        )
    )


def on_heartbeat(connection: Connection, frame: Frame) -> None:
    """The answer to ours: the server lives, and everything written before it has arrived."""
    seq, at = connection.heartbeat
    if seq and frame.seq == seq:
        connection.journal.round_trip = trio.current_time() - at
        connection.heartbeat = (0, 0.0)
        connection.answered(seq)


def on_auth_ack(connection: Connection, frame: Frame) -> None:
    """The answer to the login, or the end of its validity."""
    answer = cast(messages.AuthResponse, messages.decode(frame))
    if answer.code:
        connection.end(answer.code, answer.message)
    else:
        connection.logged_in(answer)


def on_sync_ack(connection: Connection, frame: Frame) -> None:
    """The answer to a Sync; one that nobody waits for (any more) is ignored."""
    call = connection.calls.get(frame.seq)
    if call is not None and not call.done.is_set():
        call.answer = cast(messages.SyncResponse, messages.decode(frame))
        call.done.set()


def on_event(connection: Connection, frame: Frame) -> None:
    """Published on the user's event subject."""
    event = cast(messages.Event, messages.decode(frame))
    connection.journal.notices.put(Event(kind=event.kind, data=event.data))


def on_file_offer(connection: Connection, frame: Frame) -> None:
    """Somebody's file is there for this user."""
    file = offered(cast(messages.FileOffer, messages.decode(frame)))
    if file is not None:
        connection.journal.notices.put(file)


def on_file_ack(connection: Connection, frame: Frame) -> None:
    """How far a file of ours has come, or that one of somebody else's does not come."""
    connection.journal.files.acknowledged(cast(messages.FileAck, messages.decode(frame)))


def on_file_chunk(connection: Connection, frame: Frame) -> None:
    """A part of a file that we asked for."""
    connection.journal.files.chunk(connection, read_chunk(frame))


def on_error(connection: Connection, frame: Frame) -> None:
    """About the request with that seq; or, when its code closes the link, the reason for what comes."""
    error = cast(messages.ErrorMessage, messages.decode(frame))
    call = connection.calls.get(frame.seq)
    if call is not None:
        call.error = RequestFailed(describe(error.code, error.message), code=error.code, reason=error.message)
        call.done.set()
    elif reject(connection, frame.seq, error.code, error.message):
        pass
    elif error.code in ANSWERED:
        connection.journal.notices.put(Complaint(code=error.code, reason=error.message))
    if error.code not in ANSWERED:
        connection.tell(error.code, error.message, error.retry_after_ms / 1000)


def on_kick(connection: Connection, frame: Frame) -> None:
    """The reason for a close."""
    kick = cast(messages.Kick, messages.decode(frame))
    connection.end(kick.code, kick.message)


def on_go_away(connection: Connection, frame: Frame) -> None:
    """The advance notice of a close."""
    connection.going_away(cast(messages.GoAway, messages.decode(frame)))


def refuse(connection: Connection, code: int, msg_type: int, seq: int) -> None:
    """The server sent what may not pass. A kind we do not know is from a newer server: ignored."""
    if code != Code.UNKNOWN_TYPE:
        connection.end(0, f"the server broke the protocol: {Code(code).label} (type {msg_type})")


def _table() -> DispatchTable:
    table = DispatchTable(refuse)
    table.on(MsgType.HEARTBEAT, on_heartbeat)
    table.on(MsgType.AUTH_ACK, on_auth_ack)
    table.on(MsgType.ERROR, on_error)
    table.on(MsgType.KICK, on_kick)
    table.on(MsgType.GO_AWAY, on_go_away)
    table.on(MsgType.MESSAGE, on_message)
    table.on(MsgType.MESSAGE_ACK, on_ack)
    table.on(MsgType.SIGNAL, on_signal)
    table.on(MsgType.SYNC_ACK, on_sync_ack)
    table.on(MsgType.EVENT, on_event)
    table.on(MsgType.FILE_OFFER, on_file_offer)
    table.on(MsgType.FILE_ACK, on_file_ack)
    table.on(MsgType.FILE_CHUNK, on_file_chunk)
    return table


TABLE = _table()
