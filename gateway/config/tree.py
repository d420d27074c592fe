"""The configuration as one tree of Structs, and how a setting is found in it by its name. No source is read here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from typing import Any

import msgspec
from msgspec import inspect as types

from gateway.backends.settings import BusSettings, JwtSettings
from gateway.backends.settings_nats import NatsSettings
from gateway.backends.settings_redis import RedisSettings
from gateway.console.settings import ConsoleSettings
from gateway.core.settings import DrainSettings, HeartbeatSettings, LimitSettings, LoginSettings, Seconds, Settings
from gateway.core.settings_files import FileSettings
from gateway.logic.settings import LogicSettings
from gateway.logs.settings import LogSettings
from gateway.transports.settings import TcpSettings
from gateway.transports.settings_quic import QuicSettings
from gateway.transports.settings_websocket import WebSocketSettings
from gateway.transports.settings_webtransport import WebTransportSettings


class Config(Settings, frozen=True):
    """Everything that an operator may turn. Every default is fit for one machine and opens nothing to a network."""

    node_id: str = "node-1"
    """Name of this node: 1 to 64 of `A-Z a-z 0-9 _ -`, and no other node's of the same cluster."""
    region: str = ""
    """Where this node stands, told in locations; the same characters, or empty."""
    data_dir: str = ".gateway"
    """Directory for what the node keeps: the development key and certificate, the secret of QUIC, and the embedded
    Logic's store. Made when missing."""
    switch_interval: Seconds = 0.0005
    """With NATS or Redis: seconds after which a busy thread of the process lets another one run. At Python's own 0.005
    what crosses between them waits: 400 ms at the 99th percentile on a busy node, against 9."""

    tcp: TcpSettings = TcpSettings()
    websocket: WebSocketSettings = WebSocketSettings()
    quic: QuicSettings = QuicSettings()
    webtransport: WebTransportSettings = WebTransportSettings()
    limits: LimitSettings = LimitSettings()
    heartbeat: HeartbeatSettings = HeartbeatSettings()
    login: LoginSettings = LoginSettings()
    auth: JwtSettings = JwtSettings()
    bus: BusSettings = BusSettings()
    nats: NatsSettings = NatsSettings()
    redis: RedisSettings | None = None
    logic: LogicSettings = LogicSettings()
    files: FileSettings = FileSettings()
    console: ConsoleSettings = ConsoleSettings()
    log: LogSettings = LogSettings()
    drain: DrainSettings = DrainSettings()

    @property
    def development(self) -> bool:
        """Whether tokens are checked with the key that the node makes for itself."""
        return not self.auth.keys


class Place:
    """One place in the tree: a setting, a section, an optional section, or a table of named sections."""

    def __init__(
        self, path: tuple[str, ...], declared: types.Field | None, type_: types.Type, owner: type | None
    ) -> None:
        self.path = path
        self.declared = declared
        """How the field stands in its Struct; None for the root and for an entry of a table."""
        self.type = type_
        self.owner = owner
        """The Struct whose field this is."""
        among = type_.types if isinstance(type_, types.UnionType) else (type_,)
        inner = [each for each in among if not isinstance(each, types.NoneType)]
        self.optional = len(inner) < len(among)
        self.section = inner[0] if len(inner) == 1 and isinstance(inner[0], types.StructType) else None
        self.table = type_ if isinstance(type_, types.DictType) else None

    @property
    def name(self) -> str:
        return ".".join(self.path)

    @property
    def secret(self) -> bool:
        return isinstance(self.type, types.Metadata) and bool((self.type.extra or {}).get("secret"))

    @property
    def plain(self) -> types.Type:
        """The type without the notes that hang on it."""
        return self.type.type if isinstance(self.type, types.Metadata) else self.type

    def children(self) -> Iterator[Place]:
        """The places below a section; none below a setting or a table."""
        if self.section is not None:
            for field in self.section.fields:
                yield Place((*self.path, field.name), field, field.type, self.section.cls)

    def child(self, name: str) -> Place | None:
        """The place below with this name; any name has one in a table."""
        if self.table is not None:
            return Place((*self.path, name), None, self.table.value_type, None)
        return next((each for each in self.children() if each.path[-1] == name), None)


ROOT = Place((), None, types.type_info(Config), None)


def find(path: Sequence[str]) -> Place | None:
    """The place that `path` names, if there is one."""
    place: Place | None = ROOT
    for name in path:
        place = place.child(name) if place is not None else None
    return place


def names(place: Place = ROOT) -> Iterator[str]:
    """The names of all settings and sections, `*` standing for an entry of a table."""
    below = (
        [*place.children()] if place.table is None else [Place((*place.path, "*"), None, place.table.value_type, None)]
    )
    for each in below:
        yield each.name
        yield from names(each)


def nearest(path: Sequence[str]) -> str:
    """The name that whoever wrote `path` most likely meant; empty when nothing is near."""
    wanted = ".".join(path)
    scored = [(_likeness(wanted, name), name) for name in names() if "*" not in name]
    for length in range(len(path) - 1, 0, -1):
        above = find(path[:length])
        if above is not None:  # the typo is below a place that exists: prefer what stands there
            scored += [(_likeness(path[length], each.path[-1]) + 0.1, each.name) for each in above.children()]
            break
    score, name = max(scored, key=lambda pair: pair[0])
    return name if score >= 0.6 else ""


def _likeness(wanted: str, name: str) -> float:
    """From 0 to 1; the same last part, or one that begins alike, counts for much."""
    ours, theirs = wanted.rpartition(".")[2], name.rpartition(".")[2]
    alike = 0.8 if len(ours) > 2 and theirs.startswith(ours) else 0.7 if ours == theirs else 0.0
    return max(SequenceMatcher(None, wanted, name).ratio(), alike)


def value_at(config: msgspec.Struct, path: Sequence[str]) -> Any:
    """What `config` holds at `path`, None where an optional section or an entry is absent."""
    value: Any = config
    for name in path:
        value = value.get(name) if isinstance(value, dict) else getattr(value, name, None)
    return value
