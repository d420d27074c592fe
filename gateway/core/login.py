"""From an Auth frame to a session: authenticate, claim the location, displace, bind."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

from gateway._framing import Frame, is_name, parse_frame
from gateway.core import dispatcher
from gateway.core.connection import Connection
from gateway.core.ids import secret_id
from gateway.core.ports import AuthRefused, Credentials, Location
from gateway.core.session import Session
from gateway.protocol.codes import Code
from gateway.protocol.messages import AuthRequest, AuthResponse, SyncRequest, decode, encode, packet
from gateway.protocol.subjects import INT64_MAX
from gateway.protocol.types import MsgType

if TYPE_CHECKING:
    from gateway.core.hub import Hub

log = logging.getLogger("gateway.login")

PROTOCOL_VERSION = 1
FOREVER = 10 * 366 * 86_400.0
"""Seconds: no token is taken to run out later; keeps monotonic deadlines finite."""


async def log_in(hub: Hub, connection: Connection, frame: Frame) -> None:
    """Answer one Auth frame; the connection is seated or closing afterwards."""
    request = decode(frame)
    assert isinstance(request, AuthRequest)
    try:
        with trio.fail_after(hub.login.backend_timeout):
            await _open_session(hub, connection, frame, request)
    except AuthRefused as refused:
        refuse(hub, connection, frame.seq, refused.code, refused.message)
    except trio.TooSlowError:
        refuse(hub, connection, frame.seq, Code.AUTH_UNAVAILABLE, "login took too long, try again")
    except Exception as error:
        log.warning("login_failed", extra={"conn": connection.id, "error": repr(error)})
        refuse(hub, connection, frame.seq, Code.AUTH_UNAVAILABLE, "login is not possible now, try again")


def refuse(hub: Hub, connection: Connection, seq: int, code: int, message: str) -> None:
    """Answer AuthAck with a code, then close with it."""
    hub.metrics.auth_failed[code] += 1
    if connection.closing:
        return
    now = hub.wall_ms()
    connection.reply(encode(AuthResponse(code=code, message=message, server_time=now), seq=seq, timestamp=now))
    connection.close(code, message, told=True)


async def _open_session(hub: Hub, connection: Connection, frame: Frame, request: AuthRequest) -> None:
    _check(request)
    credentials = Credentials(
        token=request.token,
        device_id=request.device_id,
        platform=request.platform,
        address=connection.link.address,
    )
    async with hub.questions:
        identity = await hub.authenticator.authenticate(credentials)
    if type(identity.user_id) is not int or not 0 < identity.user_id <= INT64_MAX:
        raise ValueError("the authenticator gave out a user id that is none")
    if connection.closing:
        return
    if not connection.resumes(identity.user_id, request.device_id, request.resume_ticket):
        raise AuthRefused(Code.TOKEN_INVALID, "the connection was resumed by another session")
    wall = hub.wall_ms()
    location = Location(
        user_id=identity.user_id,
        access_node=hub.node_id,
        conn_id=connection.id,
        device_id=request.device_id,
        platform=request.platform,
        login_time=wall // 1000,
        address=connection.link.address,
        transport=connection.link.transport,
        region=hub.region,
        boot_id=hub.boot_id,
    )
    hub.seats.reserve(location)
    await hub.seats.claim(location)
    if connection.closing:
        return
    now = trio.current_time()
    session = Session(
        secret_id(),
        identity.user_id,
        request.device_id,
        request.platform,
        wall // 1000,
        now + min(max(0.0, identity.expires_at - wall / 1000), FOREVER),
        hub.registry.bucket(identity.user_id, hub.limits.message_rate, hub.limits.message_burst, now),
    )
    hub.seat(connection, session)
    _welcome(hub, connection, session, frame.seq, wall)
    if request.sync_cursor:
        body = packet(SyncRequest(cursor=request.sync_cursor), seq=frame.seq, timestamp=wall)
        hub.metrics.implied_syncs += 1
        refusal = dispatcher.sync(connection, parse_frame(MsgType.SYNC, body))
        if refusal is not None:
            connection.reply(refusal)


def _check(request: AuthRequest) -> None:
    """Refuse what must not become part of a key or subject, and versions that we do not speak."""
    if request.protocol_version != PROTOCOL_VERSION:
        raise AuthRefused(Code.VERSION_UNSUPPORTED, f"protocol version {PROTOCOL_VERSION} is spoken here")
    if not is_name(request.device_id):
        raise AuthRefused(Code.INVALID_PAYLOAD, "device_id must be 1 to 64 of A-Z a-z 0-9 _ -")
    if not is_name(request.platform):
        raise AuthRefused(Code.INVALID_PAYLOAD, "platform must be 1 to 64 of A-Z a-z 0-9 _ -")


def _welcome(hub: Hub, connection: Connection, session: Session, seq: int, wall: int) -> None:
    """The AuthAck of a new session, and the table and limit that come with it."""
    connection.decoder.table = hub.seated
    connection.decoder.limit = hub.limits.max_frame
    response = AuthResponse(
        code=Code.OK,
        user_id=session.user_id,
        session_id=session.id,
        node_id=hub.node_id,
        heartbeat_interval_ms=int(hub.heartbeat.interval * 1000),
        heartbeat_timeout_ms=int(hub.heartbeat.timeout * 1000),
        max_frame=hub.limits.max_frame,
        server_time=wall,
        resume_ticket=connection.resume_ticket(session),
    )
    hub.metrics.auth_success += 1
    connection.reply(encode(response, seq=seq, timestamp=wall))
