"""The node's counts as Prometheus text (protocol section 8: the names are exact). No HTTP here.

The names that the design fixes have no `_total` behind a counter's name, which prometheus_client insists on writing;
so the families of our own are written here, and the process's by prometheus_client.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector, generate_latest

from gateway._version import __version__
from gateway.console import metrics_bus, metrics_files, metrics_quic
from gateway.core.books import Account
from gateway.core.metrics import Latency, Metrics
from gateway.protocol.codes import Code

if TYPE_CHECKING:
    from gateway.transports.quic.statistics import QuicStatistics

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_PROCESS = CollectorRegistry()
ProcessCollector(registry=_PROCESS)
GCCollector(registry=_PROCESS)

_LABELS = {int(code): code.label for code in Code}

_COUNTERS = (
    ("access_messages_received", "messages_received", "Message frames from clients that were handed to the bus."),
    ("access_messages_sent", "messages_sent", "Deliveries queued to connections, one each."),
    ("access_auth_success", "auth_success", "Logins that succeeded."),
    ("access_connections_accepted", "accepted", "Connections accepted since the start."),
    ("access_signals_conflated", "signals_conflated", "Signals that a newer one of the same kind replaced."),
    ("access_signals_dropped", "signals_dropped", "Signals dropped because their reader was too slow."),
    ("access_undelivered", "undelivered", "Downstreams whose target was not here."),
    ("access_downstream_expired", "expired", "Downstreams that came too late to deliver."),
    ("access_downstream_malformed", "malformed_downstream", "Downstreams that could not be read."),
    ("access_downstreams", "downstreams", "Downstreams from the bus; each is one of the five kinds of outcome."),
    ("access_downstreams_delivered", "delivered", "Downstreams that found at least one connection here."),
    ("access_downstreams_unheard", "unheard", "Broadcasts while nobody was here."),
    ("access_kicks", "kicks", "Downstreams that asked to close connections."),
    ("access_kicks_refused", "kicks_refused", "Kicks for connections on other nodes that the bus had no room for."),
    ("access_copies", "copies", "Unasked frames, one for each connection they are for."),
    ("access_copies_queued", "copies_queued", "Of these, queued."),
    ("access_copies_dropped", "copies_dropped", "Of these, dropped: a closing connection, a Signal without room."),
    ("access_copies_overflowed", "copies_overflowed", "Of these, given up with their connection: it read too slowly."),
    ("access_replies_queued", "replies_queued", "Replies that waited behind a full socket."),
    ("access_frames_written", "written", "Waiting frames that were handed to their link."),
    ("access_frames_discarded", "discarded", "Waiting frames whose connection ended first."),
    ("access_passed_up", "passed_up", "Receipts, Signals and Syncs from clients that were handed to the bus."),
    ("access_uplink_asked", "uplink_asked", "Messages that the stream of a durable uplink was asked to keep."),
    ("access_uplink_confirmed", "uplink_confirmed", "Of these, kept."),
    ("access_uplink_repeated", "uplink_repeated", "Of these, kept already under their msg_id."),
    ("access_uplink_refused", "uplink_refused", "Of these, not kept; their senders were told 4402."),
    ("access_uplink_unknown", "uplink_unknown", "Of these, unanswered in time; their senders were told 4402."),
    ("access_signals_held_back", "signals_held_back", "Signals from clients that were not handed to the bus."),
    ("access_events_published", "events_published", "Events of sessions handed to the bus: online, kicked, offline."),
    ("access_events_refused", "events_refused", "Events of sessions that the bus had no room for."),
    ("access_events_received", "events_received", "User events from the bus, whoever sent them."),
    ("access_events_elsewhere", "events_elsewhere", "User events for users who are not on this node."),
    ("access_events_presence", "events_presence", "User events that nodes sent of sessions, about users here."),
    ("access_events_delivered", "events_delivered", "User events given to the user's connections here."),
    ("access_events_malformed", "events_malformed", "User events that could not be read or were not the user's."),
    ("access_throttled", "throttled", "Times that reading was paused because a user sent too fast."),
    ("access_faults", "faults", "Connections that a bug of the node ended."),
    *metrics_files.COUNTERS,
    *metrics_quic.NODE,
)
_GAUGES = (
    ("access_connections_total", "connections", "Connections open now, authenticated or not."),
    ("access_uplink_waiting", "uplink_waiting", "Messages that the stream of a durable uplink has not answered for."),
    ("access_sessions", "sessions", "Sessions authenticated now."),
    *metrics_files.GAUGES,
)
_BY_CODE = (
    ("access_auth_failed_by_code", "auth_failed", "Logins that failed, by code."),
    ("access_requests_refused", "refused", "Requests refused, by code."),
    ("access_connections_closed", "closed", "Connections ended, by code; 0 is the client's own leaving."),
    *metrics_files.BY_CODE,
)


def exposition(
    metrics: Metrics | None,
    books: Iterable[Account] = (),
    quic: QuicStatistics | None = None,
    bus: Any = None,
    *,
    ready: bool,
) -> bytes:
    """Everything that can be scraped, in Prometheus text format 0.0.4.

    Args:
        metrics: the counts of a node; None where there is no node.
        books: its accounts.
        quic: the counts of its UDP port, if it has one.
        bus: the statistics of its bus, if that keeps any.
        ready: what `/readyz` says.
    """
    node = _node(metrics) if metrics is not None else ()
    beside = [*(metrics_quic.families(quic) if quic is not None else ()), *metrics_bus.families(bus)]
    lines = [*node, *(line for family in beside for line in _family(*family)), *_accounts([*books]), *_process(ready)]
    return "".join(lines).encode() + generate_latest(_PROCESS)


def _process(ready: bool) -> Iterator[str]:
    yield from _family("access_ready", "gauge", "1 while /readyz says so.", [("", int(ready))])
    yield from _family("access_build_info", "gauge", "Which version this is.", [(f'{{version="{__version__}"}}', 1)])


def _accounts(books: Sequence[Account]) -> Iterator[str]:
    """Gauges, since what waits goes down again; whatever came only grows."""
    text = "Things that came, by account; each is one of access_books_became."
    yield from _family("access_books_came", "gauge", text, ((_of(each), each.came) for each in books))
    text = "What became of them, or `waiting`."
    ends = ((_of(each, end), count) for each in books for end, count in each.became.items())
    yield from _family("access_books_became", "gauge", text, ends)
    text = "Things that came and nothing is known of; anything but 0 is a bug."
    yield from _family("access_books_difference", "gauge", text, ((_of(each), each.difference) for each in books))


def _of(account: Account, outcome: str = "") -> str:
    return f'{{account="{account.name}"' + (f',outcome="{outcome}"}}' if outcome else "}")


def _node(metrics: Metrics) -> Iterator[str]:
    for name, attribute, text in _GAUGES:
        yield from _family(name, "gauge", text, [("", getattr(metrics, attribute))])
    for name, attribute, text in _COUNTERS:
        yield from _family(name, "counter", text, [("", getattr(metrics, attribute))])
    failed = sum(metrics.auth_failed.values())
    yield from _family("access_auth_failed", "counter", "Logins that failed.", [("", failed)])
    for name, attribute, text in _BY_CODE:
        yield from _family(name, "counter", text, _coded(getattr(metrics, attribute)))
    text = "Seconds from a frame's arrival to its hand-over to the bus or, downstream, to the socket."
    yield from _histogram("access_message_latency", text, metrics.latency)


def _family(name: str, kind: str, text: str, samples: Iterable[tuple[str, float]]) -> Iterator[str]:
    yield f"# HELP {name} {text}\n# TYPE {name} {kind}\n"
    for labels, value in samples:
        yield f"{name}{labels} {_number(value)}\n"


def _coded(counts: Mapping[int, int]) -> Iterator[tuple[str, float]]:
    for code, count in sorted(counts.items()):
        yield f'{{code="{code}",reason="{_LABELS.get(code, "other")}"}}', count


def _histogram(name: str, text: str, latency: Latency) -> Iterator[str]:
    yield f"# HELP {name} {text}\n# TYPE {name} histogram\n"
    below = 0
    for bound, count in zip((*latency.bounds, float("inf")), latency.counts, strict=True):
        below += count
        yield f'{name}_bucket{{le="{_number(bound)}"}} {below}\n'
    yield f"{name}_sum {_number(latency.total)}\n{name}_count {below}\n"


def _number(value: float) -> str:
    return "+Inf" if value == float("inf") else repr(value)
