"""aioquic's connection as the client needs it: the only file of the client that knows what aioquic keeps to itself.

Each private name used here is looked for at import, so that another version of aioquic fails there and not at night.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Final

from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection, QuicConnectionState
from aioquic.tls import Epoch, SessionTicket
from cryptography.hazmat.primitives.serialization import Encoding

from gateway.client.trust import Trust
from gateway.protocol.quic_hardening import SturdyConnection
from gateway.protocol.quic_lean import SILENCE

IDLE_TIMEOUT: Final = 95.0
"""Seconds; a little longer than three missed heartbeats (protocol section 3)."""
STREAM_WINDOW: Final = 262_144
"""Bytes of one stream that may be on their way to us, or wait here for the program."""
LINK_WINDOW: Final = 1_048_576
"""The same for all streams together."""
DATAGRAM_FRAME: Final = 65_536
"""Largest DATAGRAM frame accepted, as announced: whatever fits into a packet."""
PACKET: Final = 1_200
"""Bytes of a UDP payload: what every path carries (RFC 9000 section 14)."""
RESET_SIZE: Final = 21
"""A stateless reset is at least so long, and its last sixteen bytes are the token (RFC 9000 section 10.3)."""
TLS_ALERTS: Final = range(0x100, 0x200)
BAD_CERTIFICATE: Final = frozenset({0x100 + alert for alert in (42, 43, 44, 45, 46, 48)})
NO_COMMON_PROTOCOL: Final = 0x100 + 120

_PRIVATE = (
    "_close_event", "_cryptos", "_datagrams_pending", "_handshake_confirmed", "_host_cids", "_local_max_streams_bidi",
    "_local_max_streams_uni", "_logger", "_loss", "_peer_cid", "_peer_cid_available", "_remote_max_datagram_frame_size",
    "_remote_max_streams_uni", "_state", "_streams",
)  # fmt: skip


class Engine(SturdyConnection):
    """One connection to a server. Sans-I/O, as its base: bytes and the time come in, bytes and events go out."""

    def __init__(
        self,
        *,
        alpn: str,
        host: str,
        trust: Trust,
        ticket: SessionTicket | None,
        keep_ticket: Callable[[SessionTicket], None],
        incoming_streams: int,
    ) -> None:
        file, folder, text = trust.authorities() if trust.verified else (None, None, None)
        super().__init__(
            configuration=QuicConfiguration(
                is_client=True,
                alpn_protocols=[alpn],
                server_name=host,
                verify_mode=ssl.CERT_REQUIRED if trust.verified else ssl.CERT_NONE,
                cafile=file,
                capath=folder,
                cadata=text,
                idle_timeout=IDLE_TIMEOUT,
                max_data=LINK_WINDOW,
                max_stream_data=STREAM_WINDOW,
                max_datagram_frame_size=DATAGRAM_FRAME,
                max_datagram_size=PACKET,
                session_ticket=ticket,
            ),
            session_ticket_handler=keep_ticket,
        )
        self._logger = SILENCE  # type: ignore[assignment]  # what happens is told to whoever dials, not printed
        self.restrict(LINK_WINDOW, STREAM_WINDOW)
        self._local_max_streams_bidi.value = self._local_max_streams_bidi.sent = 0
        self._local_max_streams_uni.value = self._local_max_streams_uni.sent = incoming_streams

    @property
    def early(self) -> bool:
        """What is written now goes out before the handshake is complete."""
        return self._cryptos[Epoch.ZERO_RTT].send.is_valid()

    @property
    def confirmed(self) -> bool:
        """The server has everything of our handshake: the address may change from now on (RFC 9000 section 9)."""
        return self._handshake_confirmed

    @property
    def certificate(self) -> bytes:
        """The server's, in DER; empty on a session that was resumed: it was shown when that began."""
        certificate = self.tls._peer_certificate
        return b"" if certificate is None else certificate.public_bytes(Encoding.DER)

    @property
    def over(self) -> tuple[int, str, bool, bool] | None:
        """Once the connection is closed: code, reason, whether an application said it, whether we did."""
        event = self._close_event
        if event is None:
            return None
        ours = self._state not in (QuicConnectionState.DRAINING, QuicConnectionState.TERMINATED)
        return event.error_code, event.reason_phrase, event.frame_type is None, ours

    @property
    def probes(self) -> int:
        """Probe timeouts in a row: how often we have asked into the silence."""
        return int(self._loss._pto_count)

    def finished(self, stream_id: int) -> bool:
        """Whether everything written, its end included, was confirmed; or the stream was reset."""
        stream = self._streams.get(stream_id)
        return stream is None or stream.sender.is_finished

    def may_open(self) -> bool:
        """Whether the server allows one more unidirectional stream."""
        return self.get_next_available_stream_id(is_unidirectional=True) // 4 < self._remote_max_streams_uni

    def grant(self, stream_id: int, count: int) -> bool:
        """So many bytes were taken; whether the server should be told now."""
        return self.credit.grant(stream_id, count)

    def is_reset(self, data: bytes) -> bool:
        """Whether this datagram says that the server has lost all memory of the connection (RFC 9000 section 10.3)."""
        if len(data) < RESET_SIZE or data[0] & 0x80:
            return False
        if any(data.startswith(own.cid, 1) for own in self._host_cids):
            return False
        known = (self._peer_cid, *self._peer_cid_available)
        return any(peer.stateless_reset_token == data[-16:] for peer in known)


def _check() -> None:
    probe = QuicConnection(configuration=QuicConfiguration(is_client=True))
    missing = [name for name in _PRIVATE if not hasattr(probe, name)]
    missing += [] if hasattr(probe._loss, "_pto_count") else ["_loss._pto_count"]
    if missing:
        raise ImportError(f"this aioquic is not the one that the client was written for: no {', '.join(missing)}")


_check()
