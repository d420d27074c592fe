"""What a QUIC port counts, as Prometheus families: one for each number of its statistics. Nothing is computed here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.transports.quic.statistics import QuicStatistics

GAUGES = {
    "connections": "QUIC connections open now, those in their handshake included.",
    "half_open": "QUIC connections whose handshake is not complete.",
    "connection_ids": "Connection ids by which datagrams find their connection.",
    "timers": "Timers of QUIC connections.",
    "tickets": "TLS session tickets kept for clients that come back.",
}
COUNTERS = {
    "packets_in": "UDP datagrams received.",
    "packets_out": "UDP datagrams that the kernel took.",
    "bytes_in": "Bytes of UDP datagrams received.",
    "bytes_out": "Bytes of UDP datagrams sent.",
    "batches_in": "System calls that received datagrams.",
    "batches_out": "System calls that sent datagrams.",
    "segmented": "Datagrams that left as part of a larger one (GSO).",
    "send_refused": "System calls for sending that the kernel refused.",
    "send_dropped": "Datagrams that the kernel refused for good, or that waited in vain.",
    "receive_errors": "System calls for receiving that failed.",
    "slices": "Times that the datagram pump let others run while it had more to do.",
    "accepted": "QUIC handshakes begun.",
    "completed": "QUIC handshakes completed.",
    "expired": "QUIC handshakes that took too long.",
    "resumed": "QUIC handshakes by a ticket.",
    "tickets_issued": "TLS session tickets sent.",
    "tickets_redeemed": "TLS session tickets shown and taken out.",
    "tickets_refused": "TLS session tickets shown and not known: used before, too old, pushed out, another process's.",
    "retries": "Retry packets sent: more connections were half open than is comfortable.",
    "version_negotiations": "Version negotiations sent.",
    "resets": "Stateless resets sent.",
    "refusals": "First packets answered by a refusal.",
    "migrations": "Times that a client went on from another address.",
    "failures": "QUIC connections that a bug ended.",
}
LABELLED = {
    "closed": ("code", "QUIC connections ended, by the application's code; 0 where there was none."),
    "dropped": ("cause", "Datagrams dropped, by cause."),
}
NODE = (
    ("access_datagrams", "datagrams", "Datagrams from clients that held one frame each."),
    ("access_datagrams_dropped", "datagrams_dropped", "Datagrams that held none, came too early or over the rate."),
    ("access_datagrams_refused", "datagrams_refused", "Frames in datagrams that were not valid."),
    ("access_datagrams_unsent", "datagrams_unsent", "Answers by datagram that found no room."),
    ("access_early_accepted", "early_accepted", "Messages and Syncs in early data that were passed on."),
    ("access_early_held", "early_held", "Frames in early data that waited for the handshake or the login."),
    ("access_early_repeated", "early_repeated", "Messages in early data that had come before; not passed on again."),
    ("access_early_dropped", "early_dropped", "Messages in early data whose connection ended first; not acknowledged."),
)
"""What the node itself counts of it, over QUIC and WebTransport: name, attribute of its metrics, text."""


def families(statistics: QuicStatistics) -> Iterator[tuple[str, str, str, list[tuple[str, float]]]]:
    """Name, kind, text and samples (labels and value) of each."""
    for kind, table in (("gauge", GAUGES), ("counter", COUNTERS)):
        for name, text in table.items():
            yield f"access_quic_{name}", kind, text, [("", getattr(statistics, name))]
    for name, (label, text) in LABELLED.items():
        counts = getattr(statistics, name)
        samples = [(f'{{{label}="{each}"}}', count) for each, count in sorted(counts.items())]
        yield f"access_quic_{name}", "counter", text, samples
