"""Rules that no single value can keep: settings that must fit each other, names, addresses, keys."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network
from urllib.parse import urlsplit

from gateway._framing import HEADER, is_name
from gateway.backends.keys import KeyRefused, load_key
from gateway.backends.nats_access import checked_server, read_credentials, read_nkey, tls_context
from gateway.backends.redis_address import cluster_address, load_redis_tls, redis_address, sentinel_address
from gateway.backends.settings_nats import NatsSettings
from gateway.backends.settings_redis import RedisSettings
from gateway.config.tree import Config
from gateway.console.access import is_loopback, parse_address
from gateway.transports.tls import load_tls

SHORTEST_SECRET = 32
"""Characters of `quic.secret`: a key is made of it."""
STREAMS_HELD = 6
"""Streams of `quic.stream_window` that must fit `quic.receive_window`: four files, control and messages."""
SHORTEST_TOKEN = 16
"""Characters of `console.token`: fewer could be guessed by asking."""

LISTENERS = ("tcp", "websocket", "console", "quic")

Problem = tuple[tuple[str, ...], str]
"""The names of the settings concerned, the one to mend first, and what is wrong."""


def problems(config: Config, *, files: bool) -> Iterator[Problem]:
    """Everything that is wrong with values that are each of their type; with `files`, also with the files they name."""
    yield from _names(config)
    yield from _hosts(config)
    yield from _numbers(config)
    yield from _files(config)
    yield from _proxies(config)
    yield from _keys(config, files)
    yield from _nats(config, files)
    yield from _redis(config, files)
    yield from _quic(config, files)
    if files:
        yield from _certificates(config)
    yield from _exposure(config)


def _names(config: Config) -> Iterator[Problem]:
    rule = "must be 1 to 64 of the characters A-Z a-z 0-9 _ -"
    if not is_name(config.node_id):
        yield ("node_id",), f"{rule}, not {config.node_id[:80]!r}"
    if config.region and not is_name(config.region):
        yield ("region",), f"{rule}, or empty, not {config.region[:80]!r}"
    if not config.data_dir or "\0" in config.data_dir:
        yield ("data_dir",), "must name a directory"


def _hosts(config: Config) -> Iterator[Problem]:
    taken: dict[tuple[str, int, bool], str] = {}
    for name in LISTENERS:
        listener = getattr(config, name)
        if not listener.enabled:
            continue
        if not _is_host(listener.host):
            yield (f"{name}.host",), f"must be an IP address or a host name, not {listener.host[:80]!r}"
        udp = name == "quic"  # whose ports are others than those of TCP
        other = taken.setdefault((listener.host, listener.port, udp), name)
        if other != name and listener.port != 0:
            yield (f"{name}.port", f"{other}.port"), f"{listener.port} is the port of {other} already"


def _is_host(host: str) -> bool:
    labels = host.removesuffix(".").split(".")
    looks_numeric = all(label.isdecimal() for label in labels)  # 1.2.3 would be taken for an address
    return parse_address(host) is not None or (
        not looks_numeric
        and len(host) <= 253
        and host.isascii()
        and all(is_name(label, 63) and not label.startswith("-") and not label.endswith("-") for label in labels)
    )


def _numbers(config: Config) -> Iterator[Problem]:
    heartbeat, limits, bus = config.heartbeat, config.limits, config.bus
    if heartbeat.timeout <= heartbeat.interval:
        yield (
            ("heartbeat.timeout", "heartbeat.interval"),
            f"{heartbeat.timeout:g} must be more than heartbeat.interval, {heartbeat.interval:g}",
        )
    if limits.max_frame < limits.max_frame_before_auth:
        yield (
            ("limits.max_frame", "limits.max_frame_before_auth"),
            f"{limits.max_frame} must be at least limits.max_frame_before_auth, {limits.max_frame_before_auth}",
        )
    if limits.outbox_bytes < limits.max_frame + HEADER:
        yield (
            ("limits.outbox_bytes", "limits.max_frame"),
            f"{limits.outbox_bytes} must hold at least one frame, {limits.max_frame + HEADER} bytes",
        )
    if bus.max_payload <= limits.max_frame:
        yield (
            ("bus.max_payload", "limits.max_frame"),
            f"{bus.max_payload} must be more than limits.max_frame, {limits.max_frame}: a frame travels in an envelope",
        )


def _files(config: Config) -> Iterator[Problem]:
    files = config.files
    if "\0" in files.directory:
        yield ("files.directory",), "must name a directory"
    if files.max_size > files.max_bytes_per_user:
        yield (
            ("files.max_size", "files.max_bytes_per_user"),
            f"{files.max_size} must be at most files.max_bytes_per_user, {files.max_bytes_per_user}",
        )


def _proxies(config: Config) -> Iterator[Problem]:
    for name in ("tcp", "websocket"):
        for network in getattr(config, name).trusted_proxies:
            try:
                ip_network(network)
            except ValueError as error:
                yield (f"{name}.trusted_proxies",), f"must hold networks like 10.0.0.0/8: {error}"
    if config.tcp.proxy_protocol and not config.tcp.trusted_proxies:
        yield ("tcp.proxy_protocol", "tcp.trusted_proxies"), "needs tcp.trusted_proxies: whom to believe"
    for name in ("websocket", "webtransport"):
        for origin in getattr(config, name).origins:
            if not _is_origin(origin):
                yield (f"{name}.origins",), f"must hold origins like https://chat.example.org, not {origin[:80]!r}"


def _is_origin(text: str) -> bool:
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return False
    host = f"[{parts.hostname}]" if parts.hostname and ":" in parts.hostname else parts.hostname
    exact = f"{parts.scheme}://{host}" + ("" if port is None else f":{port}")
    return bool(parts.scheme and parts.hostname) and text == exact


def _keys(config: Config, files: bool) -> Iterator[Problem]:
    for kid, key in config.auth.keys.items():
        if key.file and not files:
            continue
        try:
            load_key(key)
        except KeyRefused as refused:
            field = "file" if key.file and not key.key else "key"
            yield (f"auth.keys.{kid}.{field}", f"auth.keys.{kid}.algorithm"), str(refused)


def _nats(config: Config, files: bool) -> Iterator[Problem]:
    nats = config.nats
    if not is_name(nats.prefix):
        yield ("nats.prefix",), f"must be 1 to 64 of the characters A-Z a-z 0-9 _ -, not {nats.prefix[:80]!r}"
    yield from _stream(nats)
    for server in nats.servers:
        try:
            checked_server(server)
        except ValueError as error:
            yield ("nats.servers",), str(error)
    kinds = [name for name in ("user", "token", "nkey_file", "credentials_file") if getattr(nats, name)]
    if len(kinds) > 1:
        yield (f"nats.{kinds[1]}", f"nats.{kinds[0]}"), f"cannot be used with nats.{kinds[0]}: one kind of credentials"
    if bool(nats.user) != bool(nats.password):
        yield ("nats.user", "nats.password"), "and nats.password go together"
    if not files:
        return
    for name, text, read in (
        ("nkey_file", nats.nkey_file, read_nkey),
        ("credentials_file", nats.credentials_file, read_credentials),
    ):
        if text:
            try:
                read(text)
            except ValueError as error:
                yield (f"nats.{name}",), str(error).partition(": ")[2]
    if nats.tls is not None:
        try:
            tls_context(nats.tls)
        except ValueError as error:
            field, _, problem = str(error).partition(": ")  # it says which file
            yield (f"nats.{field}",), problem


def _stream(nats: NatsSettings) -> Iterator[Problem]:
    stream = nats.stream
    if stream.name and not is_name(stream.name):
        yield ("nats.stream.name",), f"must be 1 to 64 of the characters A-Z a-z 0-9 _ -, not {stream.name[:80]!r}"
    if stream.duplicate_window > stream.max_age:
        yield (
            ("nats.stream.duplicate_window", "nats.stream.max_age"),
            f"{stream.duplicate_window:g} must be at most nats.stream.max_age, {stream.max_age:g}",
        )
    if nats.uplink == "jetstream" and not nats.servers:
        yield ("nats.uplink", "nats.servers"), '"jetstream" needs nats.servers: a stream is kept by them'


def _redis(config: Config, files: bool) -> Iterator[Problem]:
    redis, logic = config.redis, config.logic
    if redis is None and logic.redis is None and logic.store == "redis":
        yield ("logic.store",), "redis needs section redis too (redis.host)"
    for name, settings in (("redis", redis), ("logic.redis", logic.redis)):
        if settings is not None:
            yield from _redis_section(name, settings, files)
    shared = "logic.redis" if logic.redis is not None else "redis"
    if logic.store == "redis" and (logic.redis or redis or RedisSettings()).cluster:
        yield (
            (f"{shared}.cluster", "logic.store"),
            "cannot hold Logic's messages, of which a transaction concerns many users: name a single server or "
            "Sentinels in logic.redis, or use logic.store = sqlite",
        )
    if redis is not None and redis.timeout > config.login.backend_timeout:
        yield (
            ("redis.timeout", "login.backend_timeout"),
            f"{redis.timeout:g} must be at most login.backend_timeout, {config.login.backend_timeout:g}",
        )


def _redis_section(name: str, redis: RedisSettings, files: bool) -> Iterator[Problem]:
    if not is_name(redis.prefix):
        yield (f"{name}.prefix",), f"must be 1 to 64 of the characters A-Z a-z 0-9 _ -, not {redis.prefix[:80]!r}"
    if not _is_host(redis.host):
        yield (f"{name}.host",), f"must be an IP address or a host name, not {redis.host[:80]!r}"
    try:
        redis_address(redis)
    except ValueError as error:
        yield (f"{name}.url",), str(error)
    if redis.url and redis.sentinels:
        yield (f"{name}.sentinels", f"{name}.url"), f"cannot be used with {name}.url: they say where the master is"
    for sentinel in redis.sentinels:
        try:
            sentinel_address(sentinel)
        except ValueError as error:
            yield (f"{name}.sentinels",), str(error)
    if redis.cluster:
        yield from _redis_cluster(name, redis)
    if files and redis.tls is not None:
        try:
            load_redis_tls(redis.tls)
        except ValueError as error:
            yield (f"{name}.tls",), str(error)


def _redis_cluster(name: str, redis: RedisSettings) -> Iterator[Problem]:
    for server in redis.cluster:
        try:
            cluster_address(server)
        except ValueError as error:
            yield (f"{name}.cluster",), str(error)
    if redis.url:
        yield (
            (f"{name}.cluster", f"{name}.url"),
            f"cannot be used with {name}.url: it names the servers; user, password and tls have settings of their own",
        )
    if redis.sentinels:
        yield (
            (f"{name}.cluster", f"{name}.sentinels"),
            f"cannot be used with {name}.sentinels: a cluster fails over by itself",
        )
    if redis.db:
        yield (f"{name}.db", f"{name}.cluster"), f"{redis.db} must be 0 with {name}.cluster: a cluster has one database"


def _quic(config: Config, files: bool) -> Iterator[Problem]:
    quic = config.quic
    if not quic.enabled:
        return
    if quic.idle_timeout <= config.heartbeat.timeout:
        yield (
            ("quic.idle_timeout", "heartbeat.timeout"),
            f"{quic.idle_timeout:g} must be more than heartbeat.timeout, {config.heartbeat.timeout:g}, which decides",
        )
    if quic.stream_window * STREAMS_HELD > quic.receive_window:
        yield (
            ("quic.stream_window", "quic.receive_window"),
            f"{quic.stream_window} must be at most a sixth of quic.receive_window, {quic.receive_window}: what files "
            "hold must leave room for messages",
        )
    if config.webtransport.enabled and not quic.datagrams:
        yield ("webtransport.enabled", "quic.datagrams"), "must be false: WebTransport needs quic.datagrams"
    if quic.secret and len(quic.secret) < SHORTEST_SECRET:
        yield ("quic.secret",), f"must have {SHORTEST_SECRET} characters or more"
    if quic.key and not quic.certificate:
        yield ("quic.certificate", "quic.key"), "must name the certificate that quic.key belongs to"
    if not quic.certificate and _is_host(quic.host) and not is_loopback(quic.host):
        yield (
            ("quic.certificate", "quic.host"),
            f"must be set: the node's own is good for this machine only, and {quic.host} can be reached from outside",
        )
    if files and quic.certificate:
        from gateway.transports.quic.certificates import load_identity  # and aioquic: for those who use it

        try:
            load_identity(quic.certificate, quic.key)
        except ValueError as error:
            field, _, text = str(error).partition(": ")
            yield (f"quic.{field}",), text


def _certificates(config: Config) -> Iterator[Problem]:
    for name in ("tcp", "websocket"):
        listener = getattr(config, name)
        if not listener.enabled or listener.tls is None:
            continue
        try:
            load_tls(listener.tls)
        except ValueError as error:
            field, _, text = str(error).partition(": ")  # it says which of the two files
            yield (f"{name}.{field}",), text


def _exposure(config: Config) -> Iterator[Problem]:
    """What must not be reachable from outside by mistake (threats 22 and 29)."""
    for name in LISTENERS:
        listener = getattr(config, name)
        if not listener.enabled or is_loopback(listener.host) or not _is_host(listener.host):
            continue
        if name == "console" and not config.console.token:
            yield (
                ("console.host",),
                f"{listener.host} can be reached from outside: set console.token, or listen on 127.0.0.1",
            )
        if config.development:
            yield (
                (f"{name}.host",),
                f"{listener.host} can be reached from outside, and without auth.keys the node accepts tokens of its "
                "own development key: configure auth.keys, or listen on 127.0.0.1",
            )
    token = config.console.token
    if token and (len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isprintable() or " " in token):
        yield ("console.token",), f"must be {SHORTEST_TOKEN} or more printable ASCII characters without spaces"
