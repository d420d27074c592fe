"""What an operator may turn in the NATS bus. `config` composes it; every field says its unit and reason."""

from __future__ import annotations

from gateway.core.settings import Seconds, Secret, Settings


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


class NatsSettings(Settings, frozen=True):
    """The bus that nodes and Logic share, bounded as `bus` says. Without `servers` the bus stays inside the node.

    At most one kind of credentials: `user` and `password`, `token`, `nkey_file`, or `credentials_file`.
    """

    servers: tuple[str, ...] = ()
    """`nats://host:port` or `tls://host:port`, each; they are tried in turn, beginning at a random one. No credentials
    in them."""
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
    reconnect_cap: Seconds = 1.0
    """Longest pause in seconds between two attempts; the first ones come sooner."""
    ping_interval: Seconds = 2.0
    """Seconds of silence after which a server is asked whether it is there."""
    ping_timeout: Seconds = 4.0
    """Seconds that it has to answer; then the connection is given up and another one is made."""
