"""One connection to Redis, and commands over it. The only file that knows redis-py; it all runs on the asyncio thread.

redis-py's connections are used without its pool and client: those retry ten times by default (14 s on a stopped
server), hand a connection on whose handshake was cancelled half way, and hide that a connection is a new one. Here a
connection has one user at a time, one deadline for everything, and is thrown away after whatever went wrong.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any, Final, Literal

import hiredis
import msgspec
from redis.asyncio import Connection, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AskError,
    ClusterCrossSlotError,
    ClusterDownError,
    MovedError,
    NoScriptError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)

from gateway.backends.redis_address import RedisAddress, redis_address, sentinel_address
from gateway.backends.redis_scripts import Script
from gateway.backends.redis_slots import Server
from gateway.backends.settings_redis import RedisSettings
from gateway.core.ports import StoreUnavailable

Command = tuple[bytes | str | int, ...]

_NAME: Final = "gateway"
_TEXT: Final = 200
"""Characters of a server's error that are passed on."""


Why = Literal["", "no script", "read only", "moved", "ask", "try again", "cluster down"]

_WHYS: Final[Sequence[tuple[type[ResponseError], Why]]] = (
    (NoScriptError, "no script"),
    (ReadOnlyError, "read only"),
    (MovedError, "moved"),
    (AskError, "ask"),  # MovedError is one
    (TryAgainError, "try again"),
    (ClusterDownError, "cluster down"),
    (ClusterCrossSlotError, "moved"),
)


class Refusal(msgspec.Struct, frozen=True):
    """The server's error in answer to one command."""

    text: str
    why: Why = ""
    """The reasons that something can be done about."""
    target: Server | None = None
    """With `moved` and `ask`: where the key is instead; an empty host is the one that was asked."""


class ScriptCall(msgspec.Struct, frozen=True):
    """One script on some keys."""

    script: Script
    keys: Sequence[bytes]
    arguments: Sequence[bytes | str | int]

    def pieces(self) -> list[ScriptCall]:
        """One call for each key."""
        width, general = self.script.width, self.arguments[:1]
        return [
            msgspec.structs.replace(
                self, keys=[key], arguments=[*general, *self.arguments[1 + i * width : 1 + (i + 1) * width]]
            )
            for i, key in enumerate(self.keys)
        ]

    def command(self, *, whole: bool = False) -> Command:
        """By its digest, or `whole` by its text, which makes the server know it."""
        name, which = ("EVAL", self.script.text) if whole else ("EVALSHA", self.script.digest)
        return (name, which, len(self.keys), *self.keys, *self.arguments)


class RedisLink:
    """A connection that comes up when it is needed. One caller at a time."""

    def __init__(self, settings: RedisSettings, server: Server | None = None) -> None:
        """
        Args:
            settings: whom to connect to, how, and how long anything may take.
            server: another server instead, in the same way.
        """
        self._settings = settings
        self._address = redis_address(settings)
        self._fixed = server is not None
        if server is not None:
            self._address = msgspec.structs.replace(self._address, host=server[0], port=server[1])
        self._connection: Connection | None = None
        self.connects = 0
        """How often a connection came up: a change tells of a restart, or of another server."""

    async def ask(self, commands: Sequence[Command | ScriptCall], within: float | None = None) -> list[Any]:
        """The answers, a Refusal where the server refused. A script that the server has not seen is sent whole.

        Args:
            commands: to be sent together.
            within: seconds that it may take, if less than the settings say.

        Raises:
            StoreUnavailable: not all of it was answered in time; what was sent may have been done.
        """
        patience = self._settings.timeout if within is None else within
        done = False
        try:
            async with asyncio.timeout(patience):
                answers = await self._exchange([_command(each) for each in commands])
                unseen = [i for i, each in enumerate(answers) if isinstance(each, Refusal) and each.why == "no script"]
                if unseen:
                    again = await self._exchange([_command(commands[i], whole=True) for i in unseen])
                    for i, answer in zip(unseen, again, strict=True):
                        answers[i] = answer
            done = True
        except TimeoutError as error:
            raise StoreUnavailable(f"no answer from Redis within {patience:g} s") from error
        except (RedisError, OSError) as error:
            raise StoreUnavailable(f"Redis cannot be asked: {str(error)[:_TEXT]}") from error
        finally:
            if not done:
                await self.close()
        return answers

    async def close(self) -> None:
        """Drop the connection; the next `ask` makes a new one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(RedisError, OSError):
                await connection.disconnect(nowait=True)

    async def _exchange(self, commands: Sequence[Command]) -> list[Any]:
        connection = await self._connected()
        # in C: a seventh of what redis-py takes; its annotation means a tuple of any length
        packed = [hiredis.pack_command(each) for each in commands]  # type: ignore[arg-type]
        await connection.send_packed_command(packed, check_health=False)
        answers: list[Any] = []
        stale = False
        for _ in commands:
            try:
                answers.append(await connection.read_response())
            except ResponseError as error:
                stale = stale or isinstance(error, ReadOnlyError)
                answers.append(_refusal(error))
        if stale:  # it is no master any more: the name may lead to another server by now
            await self.close()
        return answers

    async def _connected(self) -> Connection:
        connection = self._connection
        if connection is not None and await connection.can_read():  # nobody has asked: it is the end of it
            await self.close()
            connection = None
        if connection is None:
            self._connection = connection = await self._connect()
            self.connects += 1
        return connection

    async def _connect(self) -> Connection:
        if self._fixed or not self._settings.sentinels:
            return await _open(self._address, self._settings)
        host, port = await self._ask_sentinels()
        return await _open(msgspec.structs.replace(self._address, host=host, port=port), self._settings)

    async def _ask_sentinels(self) -> Server:
        """The master as the first Sentinel knows it that answers; each has an equal part of the time."""
        settings = self._settings
        patience = settings.timeout / (len(settings.sentinels) + 1)
        for text in settings.sentinels:
            host, port = sentinel_address(text)
            address = RedisAddress(
                host=host,
                port=port,
                user=settings.sentinel_user,
                password=settings.sentinel_password,
                db=0,
                tls=self._address.tls,
            )
            with contextlib.suppress(TimeoutError, RedisError, OSError):
                async with asyncio.timeout(patience):
                    master = await _master(address, settings)
                if master is not None:
                    return master
        raise ConnectionError("no Sentinel knows the master")


async def _master(address: RedisAddress, settings: RedisSettings) -> Server | None:
    connection = await _open(address, settings)
    try:
        await connection.send_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", settings.master, check_health=False)
        answer = await connection.read_response()
    finally:
        await connection.disconnect(nowait=True)
    return (answer[0].decode(), int(answer[1])) if answer else None


async def _open(address: RedisAddress, settings: RedisSettings) -> Connection:
    """A connection that is authenticated and in its database; closed again when that fails or is cancelled."""
    options: dict[str, Any] = {
        "host": address.host,
        "port": address.port,
        "username": address.user or None,
        "password": address.password or None,
        "db": address.db,
        "client_name": _NAME,
        "driver_info": None,
        "protocol": 2,
        "socket_timeout": None,  # ours is around everything; redis-py's makes a task of every write
        "socket_connect_timeout": settings.timeout,
        "retry": Retry(NoBackoff(), 0),
    }
    if address.tls:
        tls = settings.tls
        if tls is not None:
            options["ssl_ca_certs"] = tls.ca or None
            options["ssl_certfile"] = tls.certificate or None
            options["ssl_keyfile"] = tls.key or tls.certificate or None
        connection: Connection = SSLConnection(**options)
    else:
        connection = Connection(**options)
    up = False
    try:
        await connection.connect()  # type: ignore[no-untyped-call]
        up = True
    finally:
        if not up:
            await connection.disconnect(nowait=True)
    return connection


def _command(command: Command | ScriptCall, *, whole: bool = False) -> Command:
    return command.command(whole=whole) if isinstance(command, ScriptCall) else command


def _refusal(error: ResponseError) -> Refusal:
    why: Why = next((why for kind, why in _WHYS if isinstance(error, kind)), "")
    target = (error.host, error.port) if isinstance(error, AskError) else None
    text = f"{type(error).__name__}: {str(error)[:_TEXT]}"
    if why == "moved":
        text = "this server is one of a Redis Cluster: name it in redis.cluster, not in redis.host"
    elif "cluster support disabled" in text:
        text = "this server is not one of a Redis Cluster: name it in redis.host, not in redis.cluster"
    return Refusal(text, why, target)
