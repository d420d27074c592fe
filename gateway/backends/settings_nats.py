"""What an operator may turn in the NATS bus. `config` composes it; every field says its unit and reason."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from gateway.core.settings import Count, Seconds, Secret, Settings

Long = Annotated[float, Meta(ge=1, le=31_536_000)]
"""Seconds, at least one and up to a year."""


class NatsTlsSettings(Settings, frozen=True):
    """TLS towards NATS. With this section a server that does not speak TLS is refused, before any credentials."""

    ca: str = ""
    """PEM file of the authorities to trust; empty for the system's."""
    certificate: str = ""
    """PEM file of our own certificate, where the servers ask for one; then its intermediates."""
    key: str = ""
    """PEM file of its private key, not encrypted; empty when it stands in the certificate's file."""
    server_name: str = ""
    """The name that the servers' certificates must carry; empty for the host in `servers`."""


class NatsStreamSettings(Settings, frozen=True):
    """The JetStream stream behind `uplink = "jetstream"`. Made by whoever comes first; one that exists is used as it
    is, and where its bounds are not these the log says so."""

    name: str = ""
    """Name of the stream; empty for `{prefix}-durable`."""
    max_messages: Count = 1_000_000
    """Messages that may wait for Logic; one more is Rejected with 4402."""
    max_bytes: Count = 1_073_741_824
    """Bytes of them; the server sets so much of its disk aside."""
    max_age: Long = 604_800.0
    """Seconds after which a message that no Logic took is given up: a week."""
    replicas: Annotated[int, Meta(ge=1, le=5)] = 1
    """Servers that keep it; 3 or 5 in a NATS cluster, so that one may be lost with its disk."""
    duplicate_window: Long = 120.0
    """Seconds in which a message sent again under its msg_id is not kept a second time."""
    confirm_timeout: Seconds = 5.0
    """Seconds that the stream has to confirm a message; then it is Rejected with 4402, though it may be there."""
    unsettled: Annotated[int, Meta(ge=1, le=10_000)] = 1_024
    """Messages that one Logic holds at a time, taken and not yet settled."""
    ack_wait: Annotated[float, Meta(ge=0.5, le=3600)] = 2.0
    """Seconds after which what a dead Logic held is handed to another one; a living one asks for more."""
    max_deliveries: Annotated[int, Meta(ge=1, le=1000)] = 20
    """Times that a message is handed out which nobody settles; then it is dropped, counted and logged."""


class NatsSettings(Settings, frozen=True):
    """The bus that nodes and Logic share, bounded as `bus` says. Without `servers` the bus stays inside the node.

    At most one kind of credentials: `user` and `password`, `token`, `nkey_file`, or `credentials_file`.
    """

    servers: tuple[str, ...] = ()
    """`nats://host:port` or `tls://host:port`, each; they are tried in turn, beginning at a random one. No credentials
    in them."""
    prefix: str = "im"
    """First part of every subject: gateways with different ones on the same NATS do not hear each other."""
    uplink: Literal["core", "jetstream"] = "core"
    """How Messages go to Logic, the same on all nodes and Logics. `core`: Accepted means that the node holds a message
    for its bus. `jetstream`: that a stream has it, whatever then becomes of nodes and Logics."""
    stream: NatsStreamSettings = NatsStreamSettings()
    user: str = ""
    """Name to log in with."""
    password: Secret = ""
    """The password of `user`."""
    token: Secret = ""
    """A token to log in with."""
    nkey_file: str = ""
    """File that holds an NKey seed (`SU...`)."""
    credentials_file: str = ""
    """A `.creds` file: a user's JWT and seed."""
    tls: NatsTlsSettings | None = None
    """TLS; without it, and without `tls://`, everything is readable on the way unless the servers insist on TLS."""
    connect_timeout: Seconds = 2.0
    """Seconds that one server has to let us in, TLS included."""
    reconnect_cap: Seconds = 0.5
    """Longest pause in seconds between two attempts; the first ones come sooner. Once back, payloads wait as long
    again: who is to hear them is coming back at the same time, and NATS forgets what nobody hears."""
    ping_interval: Seconds = 2.0
    """Seconds of silence after which a server is asked whether it is there."""
    ping_timeout: Seconds = 4.0
    """Seconds that it has to answer; then the connection is given up and another one is made."""
