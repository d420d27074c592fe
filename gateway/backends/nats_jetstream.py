"""JetStream's own API, as far as a durable uplink needs it: one stream, one consumer, and requests for items.

What is made is what docs/cluster.md promises to Logics in other languages. Runs on the asyncio thread.
"""

from __future__ import annotations

import logging
from typing import Any, Final

import msgspec
from nats.errors import NoRespondersError
from nats.errors import TimeoutError as NatsTimeoutError

from gateway.backends.nats_client import BusClient
from gateway.backends.settings_nats import NatsSettings
from gateway.protocol.subjects import Subjects

log = logging.getLogger("gateway.nats")

SECOND: Final = 1_000_000_000
"""JetStream counts nanoseconds."""
IN_FLIGHT: Final = 65_536
"""Items that all Logics together may hold: far more than each may, so that a dead one's do not stop the others."""
STREAM_NOT_FOUND: Final = 10_059
STREAM_IN_USE: Final = 10_058
CONSUMER_NOT_FOUND: Final = 10_014
CONSUMER_EXISTS: Final = 10_148
OFF: Final = (10_039, 10_076)
"""Not enabled for this account, or at all."""
LATER: Final = (10_005, 10_008, 10_009)
"""No suitable peer, no cluster yet, not the leader: servers that are only starting say so."""


class Lost(Exception):
    """This client is of no use any more."""


class Unusable(Exception):
    """The server's JetStream cannot be what is configured; says so in one line."""


class ApiError(msgspec.Struct, frozen=True):
    """Why not."""

    code: int = 0
    err_code: int = 0
    description: str = ""


class Answer(msgspec.Struct, frozen=True):
    """What JetStream answers to a payload or a request of the API; what is of interest of it."""

    error: ApiError | None = None
    seq: int = 0
    duplicate: bool = False
    config: dict[str, Any] = {}


ANSWER: Final = msgspec.json.Decoder(Answer)


class JetStream:
    """One stream with one consumer, by configuration."""

    def __init__(self, settings: NatsSettings) -> None:
        self._settings = settings
        self._patience = settings.ping_timeout
        self.subject = Subjects(settings.prefix).durable
        self.stream = settings.stream.name or f"{settings.prefix}-durable"
        self._told: dict[str, str] = {}

    def next(self, consumer: str) -> str:
        """Where items are asked for."""
        return f"$JS.API.CONSUMER.MSG.NEXT.{self.stream}.{consumer}"

    @staticmethod
    def request(items: int, life: float) -> bytes:
        """To ask for so many items, for `life` seconds."""
        return msgspec.json.encode({"batch": items, "expires": int(life * SECOND)})

    async def ensure_stream(self, client: BusClient, server: str) -> None:
        """The stream exists and is what it must be; it is made when missing.

        Raises:
            Unusable: it cannot be, with this server.
            Lost: not now.
        """
        wanted = self._stream_config()
        answer = await self._ask(client, server, f"STREAM.INFO.{self.stream}", {})
        if answer.error is not None and answer.error.err_code == STREAM_NOT_FOUND:
            answer = await self._ask(client, server, f"STREAM.CREATE.{self.stream}", wanted)
            if answer.error is None:
                log.info("stream_made", extra={"stream": self.stream, "server": server})
            elif answer.error.err_code == STREAM_IN_USE:  # somebody else was faster
                answer = await self._ask(client, server, f"STREAM.INFO.{self.stream}", {})
        self._check(answer, server, f"stream {self.stream}")
        found = answer.config
        for name in ("subjects", "retention", "discard"):
            if found.get(name) != wanted[name]:
                raise Unusable(
                    f"nats.stream.name: stream {self.stream} on {server} has {name} {found.get(name)!r}, not "
                    f"{wanted[name]!r}; name another one, or remove it"
                )
        bounds = ("max_msgs", "max_bytes", "max_age", "num_replicas", "duplicate_window", "storage")
        self._compare("stream_differs", {name: (found.get(name), wanted[name]) for name in bounds})

    async def ensure_consumer(self, client: BusClient, server: str, consumer: str) -> float:
        """The consumer exists and is what it must be; it is made when missing.

        Returns:
            Its `ack_wait` in seconds.

        Raises:
            Unusable, Lost: as above.
        """
        wanted = self._consumer_config(consumer)
        answer = await self._ask(client, server, f"CONSUMER.INFO.{self.stream}.{consumer}", {})
        if answer.error is not None and answer.error.err_code == CONSUMER_NOT_FOUND:
            body = {"stream_name": self.stream, "config": wanted, "action": "create"}
            answer = await self._ask(client, server, f"CONSUMER.CREATE.{self.stream}.{consumer}", body)
            if answer.error is not None and answer.error.err_code == CONSUMER_EXISTS:
                answer = await self._ask(client, server, f"CONSUMER.INFO.{self.stream}.{consumer}", {})
        what = f"consumer {consumer} of stream {self.stream}"
        self._check(answer, server, what)
        found = answer.config
        if found.get("ack_policy") != "explicit" or found.get("deliver_subject"):
            raise Unusable(f"nats.stream: {what} on {server} is no pull consumer with explicit acks; remove it")
        self._compare("consumer_differs", {"ack_wait": (found.get("ack_wait"), wanted["ack_wait"])})
        return float(found.get("ack_wait") or wanted["ack_wait"]) / SECOND

    def _stream_config(self) -> dict[str, Any]:
        stream = self._settings.stream
        return {
            "name": self.stream,
            "description": "Messages on their way to Logic; see docs/cluster.md",
            "subjects": [self.subject],
            "retention": "workqueue",
            "discard": "new",
            "storage": "file",
            "max_msgs": stream.max_messages,
            "max_bytes": stream.max_bytes,
            "max_age": int(stream.max_age * SECOND),
            "duplicate_window": int(stream.duplicate_window * SECOND),
            "num_replicas": stream.replicas,
        }

    def _consumer_config(self, consumer: str) -> dict[str, Any]:
        return {
            "name": consumer,
            "durable_name": consumer,
            "deliver_policy": "all",
            "ack_policy": "explicit",
            "ack_wait": int(self._settings.stream.ack_wait * SECOND),
            "max_deliver": -1,  # we count ourselves: the server would stop handing it out and keep it for ever
            "max_ack_pending": IN_FLIGHT,
        }

    async def _ask(self, client: BusClient, server: str, verb: str, body: dict[str, Any]) -> Answer:
        try:
            message = await client.request(f"$JS.API.{verb}", msgspec.json.encode(body), timeout=self._patience)
        except NoRespondersError:
            if client.has_jetstream:
                raise Lost("JetStream is not there yet") from None
            raise self._off(server) from None
        except NatsTimeoutError:
            raise Lost(f"JetStream does not answer to {verb.rpartition('.')[0]}: not there, or not permitted") from None
        try:
            return ANSWER.decode(message.data)
        except ValueError:
            raise Lost("JetStream answers what cannot be read") from None

    def _check(self, answer: Answer, server: str, what: str) -> None:
        error = answer.error
        if error is None:
            return
        if error.err_code in OFF:
            raise self._off(server)
        if error.err_code in LATER:
            raise Lost(f"JetStream: {error.description[:200]}")
        raise Unusable(f"nats.stream: {what} cannot be made on {server}: {error.description[:200]}")

    @staticmethod
    def _off(server: str) -> Unusable:
        return Unusable(
            f'nats.uplink: "jetstream" needs JetStream, and {server} has it not enabled: start nats-server with -js, '
            'or set nats.uplink to "core"'
        )

    def _compare(self, event: str, bounds: dict[str, tuple[Any, Any]]) -> None:
        """Bounds that are not the configured ones are somebody's choice: said once, and used."""
        differing = {name: f"{found}, not {wanted}" for name, (found, wanted) in bounds.items() if found != wanted}
        if differing and self._told.get(event) != str(differing):
            self._told[event] = str(differing)
            log.warning(event, extra={"stream": self.stream, **differing})
