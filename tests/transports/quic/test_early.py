"""0-RTT over real UDP: what a session ticket is good for, and that it is good once (threat 14)."""

from __future__ import annotations

from pathlib import Path

import trio
from aioquic.tls import SessionTicket

from gateway.core.link import Lane
from gateway.protocol.codes import Code
from gateway.protocol.messages import (
    AuthRequest,
    AuthResponse,
    ChatMessage,
    Heartbeat,
    MessageAck,
    SyncRequest,
    decode,
    encode,
)
from gateway.protocol.types import AckStatus
from tests.support.node import PATIENCE, RunningNode, open_running
from tests.support.peer import Peer
from tests.support.quic_peer import QuicClient

HEARTBEAT = encode(Heartbeat(), seq=1, timestamp=1)
MESSAGE = encode(ChatMessage(msg_id="early-1", to_user=1002, content="before the handshake"), seq=2, timestamp=1)


async def logged_in(running: RunningNode, user: int) -> tuple[SessionTicket, AuthResponse, QuicClient]:
    client = await running.quic()
    peer = Peer(client.open(Lane.CONTROL))
    with trio.fail_after(PATIENCE):
        answer = await peer.log_in(running.token(user))
    return await client.wait_ticket(), answer, client


async def test_an_early_message_is_accepted_under_the_session_of_the_ticket(tmp_path: Path) -> None:
    async with open_running(tmp_path, "quic") as running:
        ticket, answer, first = await logged_in(running, 1001)
        assert answer.resume_ticket
        first.close(0)
        await running.empty()

        def early(client: QuicClient) -> None:
            client.open(Lane.CONTROL, HEARTBEAT)
            client.open(Lane.MESSAGE, MESSAGE)

        client = await running.quic(ticket=ticket, early=early)
        handshake = await client.wait_handshaken()
        assert handshake.session_resumed
        assert handshake.early_data_accepted
        control, messages = Peer(client.pipes[0]), Peer(client.pipes[4])
        with trio.fail_after(PATIENCE):
            beat = await control.frame()
            ack = await messages.receive(MessageAck)
            again = await control.log_in(running.token(1001), resume_ticket=answer.resume_ticket)
        assert beat is not None
        assert isinstance(decode(beat), Heartbeat)
        assert (ack.msg_id, ack.status) == ("early-1", AckStatus.ACCEPTED)
        assert again.resume_ticket not in ("", answer.resume_ticket)
        # said again on a connection that is no replay: acknowledged again, delivered once
        await messages.send_bytes(MESSAGE)
        with trio.fail_after(PATIENCE):
            assert (await messages.receive(MessageAck)).status in (AckStatus.ACCEPTED, AckStatus.STORED)
        receiver = await running.connect()
        with trio.fail_after(PATIENCE):
            await receiver.log_in(running.token(1002), sync_cursor=0)
            await receiver.send(SyncRequest(cursor=0))
            frame = await receiver.frame()
        assert frame is not None
        found = decode(frame)
        assert [each.msg_id for each in getattr(found, "messages", [])] == ["early-1"]


async def test_t14_a_ticket_serves_once(tmp_path: Path) -> None:
    """Whoever sends the same first flight again gets a full handshake, and its early data is not even read."""
    async with open_running(tmp_path, "quic") as running:
        ticket, _, first = await logged_in(running, 1001)
        first.close(0)
        await running.empty()

        def early(client: QuicClient) -> None:
            client.open(Lane.CONTROL)
            client.open(Lane.MESSAGE, MESSAGE)

        for serves in (True, False):
            client = await running.quic(ticket=ticket, early=early)
            handshake = await client.wait_handshaken()
            assert (handshake.session_resumed, handshake.early_data_accepted) == (serves, serves)
            if serves:
                with trio.fail_after(PATIENCE):
                    assert (await Peer(client.pipes[4]).receive(MessageAck)).status == AckStatus.ACCEPTED
            client.close(0)
        assert running.hub.metrics.early_accepted == 1
        door = running.node._quic
        assert door is not None
        assert door.endpoint.tickets.redeemed == 1
        assert door.endpoint.tickets.refused == 1


async def test_t14_auth_is_never_taken_early(tmp_path: Path) -> None:
    async with open_running(tmp_path, "quic") as running:
        ticket, _, first = await logged_in(running, 1001)
        first.close(0)
        await running.empty()
        auth = encode(AuthRequest(token=running.token(1001), device_id="phone", platform="ios"), seq=1, timestamp=1)

        def early(client: QuicClient) -> None:
            client.open(Lane.CONTROL, auth)

        client = await running.quic(ticket=ticket, early=early)
        assert (await client.wait_closed())[0] == Code.EARLY_DATA_REFUSED
        await running.empty()
        assert running.hub.metrics.auth_requests == 1


async def test_without_a_login_there_is_nothing_that_early_data_could_speak_for(tmp_path: Path) -> None:
    """A ticket of a connection that never logged in: what comes early waits for the login."""
    async with open_running(tmp_path, "quic") as running:
        first = await running.quic()
        ticket = await first.wait_ticket()
        first.close(0)

        def early(client: QuicClient) -> None:
            client.open(Lane.CONTROL, HEARTBEAT)
            client.open(Lane.MESSAGE, MESSAGE)

        client = await running.quic(ticket=ticket, early=early)
        assert (await client.wait_handshaken()).early_data_accepted
        control, messages = Peer(client.pipes[0]), Peer(client.pipes[4])
        with trio.fail_after(PATIENCE):
            beat = await control.frame()
            assert beat is not None
            assert not messages.frames
            await control.log_in(running.token(1001))
            assert (await messages.receive(MessageAck)).status == AckStatus.ACCEPTED
        assert running.hub.metrics.early_accepted == 0


async def test_early_data_can_be_switched_off(tmp_path: Path) -> None:
    async with open_running(tmp_path, "quic", quic={"early_data": False}) as running:
        ticket, _, _ = await logged_in(running, 1001)
        assert ticket.max_early_data_size is None
        client = await running.quic(ticket=ticket)
        handshake = await client.wait_handshaken()
        assert handshake.session_resumed
        assert not handshake.early_data_accepted


async def test_without_room_for_tickets_none_are_given(tmp_path: Path) -> None:
    async with open_running(tmp_path, "quic", quic={"tickets": 0}) as running:
        client = await running.quic()
        peer = Peer(client.open(Lane.CONTROL))
        with trio.fail_after(PATIENCE):
            answer = await peer.log_in(running.token(1001))
        assert not answer.resume_ticket
        assert not client.tickets
