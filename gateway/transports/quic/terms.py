"""From settings to what aioquic and our overrides are told. Nothing else lives here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from aioquic.quic.configuration import QuicConfiguration

from gateway.transports.quic.budget import Rate
from gateway.transports.quic.certificates import Certificates
from gateway.transports.quic.connection_ids import ConnectionIds
from gateway.transports.quic.stateless import VERSIONS
from gateway.transports.settings_quic import QuicSettings

DATAGRAM_FRAME: Final = 65_535
"""What we say we take in one DATAGRAM frame: anything that fits a packet, as RFC 9221 section 3 advises."""
IDENTIFYING: Final = Rate(8.0, 64.0)
"""NEW_CONNECTION_ID and RETIRE_CONNECTION_ID: a client that migrates every second needs two of each."""
CHALLENGING: Final = Rate(8.0, 64.0)
"""PATH_CHALLENGE: a path is validated by a few."""


def configuration_of(
    settings: QuicSettings, ids: ConnectionIds, protocols: Iterable[str], certificates: Certificates
) -> QuicConfiguration:
    """What every connection of an endpoint shares; the certificate in it changes when it is read anew."""
    configuration = QuicConfiguration(
        is_client=False,
        alpn_protocols=list(protocols),
        congestion_control_algorithm=settings.congestion_control,
        connection_id_length=ids.length,
        idle_timeout=settings.idle_timeout,
        max_data=settings.receive_window,
        max_stream_data=min(settings.stream_window, settings.receive_window),
        max_datagram_frame_size=DATAGRAM_FRAME if settings.datagrams else None,
        supported_versions=VERSIONS,
    )
    certificates.install(configuration)
    return configuration


def rates_of(settings: QuicSettings) -> tuple[Rate, ...]:
    """By `Act`."""
    opens, resets = float(settings.stream_opens_per_second), float(settings.stream_resets_per_second)
    return Rate(opens, 2 * opens), Rate(resets, 2 * resets), IDENTIFYING, CHALLENGING
