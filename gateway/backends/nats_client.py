"""One nats-py client: opened from settings, its messages taken as they are parsed, and thrown away for good.

Runs on the asyncio thread. Nothing is retried here: a client that fails is discarded, whoever opened it makes another.

nats-py is used against its grain in five places, for which it has no public way. They are checked at import:
- `Client._build_message`: overridden, so that a message is handed on where it is parsed. Otherwise each subscription
  is an asyncio task and a queue of its own.
- `Client._transport` and its `_io_writer`: to abort a connection whose peer takes no bytes (`close` would wait for it
  for ever), and to see that TLS was really spoken before credentials are sent.
- `Client._server_info`: to tell a server without JetStream from one whose JetStream is only starting.
- The same transport's `write` and `drain`: a batch of payloads is one write, at once. Its `publish` leaves each to
  another task, and several turns of the loop later it is out.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
from collections.abc import Callable, Sequence
from typing import Any

from nats.aio.client import Client, RawCredentials
from nats.aio.transport import TcpTransport
from nats.errors import Error as NatsError

from gateway.backends.nats_access import read_credentials, read_nkey, tls_context
from gateway.backends.settings_nats import NatsSettings, NatsTlsSettings

log = logging.getLogger("gateway.nats")

FAREWELL = 0.5
"""Seconds in which a discarded client must have ended its tasks."""
NEVER = 86_400
"""Seconds between nats-py's own pings: we ask ourselves."""

Receive = Callable[[str, bytes], None]
"""`receive(subject, payload)`, called on the asyncio thread."""
ReceiveWhole = Callable[[str, str, bytes, dict[str, str] | None], None]
"""`receive(subject, reply, payload, headers)`, likewise."""


class BusClient(Client):
    """A nats-py client whose subscriptions made with `follow` are called straight from the parser."""

    def __init__(self) -> None:
        super().__init__()
        self._receivers: dict[int, Receive] = {}
        self._whole: dict[int, ReceiveWhole] = {}
        self._sids: dict[int, Any] = {}

    async def follow(self, subject: str, queue: str, receive: Receive) -> int:
        """Subscribe; the number is what `forget` wants."""
        subscription = await self.subscribe(subject, queue=queue)
        sid = subscription._id
        self._receivers[sid] = receive
        self._sids[sid] = subscription
        return sid

    async def send(self, batch: Sequence[tuple[str, bytes]]) -> None:
        """Publish all of these, as (subject, payload), by one write; returns once the transport has them.

        Subjects and sizes are the caller's to check. Whatever nats-py itself has to write must have left before.
        """
        pieces: list[bytes] = []
        for subject, payload in batch:
            pieces += (b"PUB %b %d\r\n" % (subject.encode(), len(payload)), payload, b"\r\n")
        await self.write(pieces)

    async def write(self, pieces: Sequence[bytes]) -> None:
        """Write whole commands as they are; returns once the transport has them."""
        transport = self._transport
        assert transport is not None
        transport.write(b"".join(pieces))
        await transport.drain()  # type: ignore[no-untyped-call]

    async def follow_whole(self, subject: str, receive: ReceiveWhole) -> int:
        """Subscribe to answers, whose reply subject and headers count too."""
        subscription = await self.subscribe(subject)
        sid = subscription._id
        self._whole[sid] = receive
        self._sids[sid] = subscription
        return sid

    async def forget(self, sid: int) -> None:
        """Unsubscribe."""
        self._receivers.pop(sid, None)
        self._whole.pop(sid, None)
        await self._sids.pop(sid).unsubscribe()

    def _build_message(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: dict[str, str] | None
    ) -> Any:
        receive = self._receivers.get(sid)
        if receive is None:
            if (whole := self._whole.get(sid)) is not None:
                whole(subject.decode(), reply.decode(), data, headers)
                return None
            return super()._build_message(sid, subject, reply, data, headers)
        receive(subject.decode(), data)
        return None  # nats-py then has nothing to queue

    @property
    def has_jetstream(self) -> bool:
        """Whether the server says that JetStream is enabled in it."""
        return bool(self._server_info.get("jetstream"))

    @property
    def secure(self) -> bool:
        """Whether what is written now goes through TLS."""
        writer = getattr(self._transport, "_io_writer", None)
        return writer is not None and writer.get_extra_info("ssl_object") is not None

    async def discard(self) -> None:
        """End it now, whatever its peer does. Never raises; nothing of it is left."""
        for name in ("_io_writer", "_bare_io_writer"):
            writer = getattr(self._transport, name, None)
            if writer is not None:
                writer.transport.abort()
        with contextlib.suppress(Exception):
            async with asyncio.timeout(FAREWELL):
                await self.close()
        self._receivers.clear()
        self._whole.clear()
        self._sids.clear()


async def open_client(client: BusClient, settings: NatsSettings, server: str, name: str, lost: asyncio.Event) -> None:
    """Connect `client` to one server, once. `lost` is set when it ends later, for whatever reason.

    Raises:
        NatsError, OSError, ValueError: why not; the caller discards the client and holds the deadline.
    """
    opening = True

    complaints = 0

    async def on_error(error: Exception) -> None:
        nonlocal complaints
        if opening:
            raise error  # nats-py would try again by itself, two seconds later
        if "permissions violation" in str(error):  # the one error that leaves the client alive
            complaints += 1
            if complaints & (complaints - 1) == 0:  # the 1st, 2nd, 4th, 8th, ...
                log.error("bus_not_permitted", extra={"reason": str(error)[:200], "times": complaints})

    async def on_closed() -> None:
        lost.set()

    must_be_secure = settings.tls is not None or server.startswith("tls://")
    options: dict[str, Any] = _credentials(settings, (lambda: client.secure) if must_be_secure else lambda: True)
    if must_be_secure:
        options["tls"] = tls_context(settings.tls or NatsTlsSettings())
        if settings.tls is not None and settings.tls.server_name:
            options["tls_hostname"] = settings.tls.server_name
    await client.connect(
        servers=server,
        name=name,
        error_cb=on_error,
        closed_cb=on_closed,
        allow_reconnect=False,
        connect_timeout=settings.connect_timeout,  # type: ignore[arg-type]  # seconds, whole or not
        ping_interval=NEVER,
        pending_size=0,  # never wait inside `publish`: cancelling that is swallowed, and the bound is ours
        flusher_queue_size=0,
        **options,
    )
    opening = False
    if must_be_secure and not client.secure:
        raise NatsError("the server does not speak TLS")


def _credentials(settings: NatsSettings, allowed: Callable[[], bool]) -> dict[str, Any]:
    """nats-py asks for secrets when it sends them: the moment to see that nobody else can read them."""

    def guarded(secret: str) -> Callable[[], str]:
        def reveal() -> str:
            if not allowed():
                raise NatsError("the server does not speak TLS: the credentials stay here")
            return secret

        return reveal

    if settings.credentials_file:
        return {"user_credentials": RawCredentials(read_credentials(settings.credentials_file))}
    if settings.nkey_file:
        return {"nkeys_seed_str": read_nkey(settings.nkey_file)}
    if settings.token:
        return {"token": guarded(settings.token)}
    if settings.user:
        return {"user": settings.user, "password": guarded(settings.password)}
    return {}


def _check_library() -> None:
    parameters = [*inspect.signature(Client._build_message).parameters]
    expected = ["self", "sid", "subject", "reply", "data", "headers"]
    transport = TcpTransport()  # type: ignore[no-untyped-call]
    has_all = all(hasattr(transport, name) for name in ("_io_writer", "write", "drain"))
    has_all &= hasattr(Client(), "_transport") and hasattr(Client(), "_server_info")
    if parameters != expected or not has_all:
        raise ImportError("this nats-py is not the one that gateway was written for: install nats-py 2.16")


_check_library()
