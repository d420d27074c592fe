"""What an operator may turn in the QUIC transport. `config` composes it; every field says its unit and reason."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from gateway.core.settings import Count, Port, Seconds, Secret, Settings


class QuicSettings(Settings, frozen=True):
    """Raw QUIC (ALPN `im-access`) and WebTransport (`h3`) on one UDP port."""

    enabled: bool = True
    """Whether to listen at all."""
    host: str = "127.0.0.1"
    """Address to listen on; `0.0.0.0` or `::` for every interface. A name stands for its first address."""
    port: Port = 8443
    """UDP port to listen on; 0 lets the system choose."""
    certificate: str = ""
    """PEM file: the server's certificate, then its intermediates; read again on SIGHUP. Empty, in development only:
    one that the node makes for itself, valid for 13 days, whose fingerprint browsers are told."""
    key: str = ""
    """PEM file of the private key, not encrypted; empty when it stands in the certificate's file."""
    idle_timeout: Seconds = 95.0
    """Seconds of silence after which a connection is forgotten: longer than `heartbeat.timeout`, which decides."""
    handshake_timeout: Seconds = 5.0
    """Seconds that a handshake may take, in total."""
    max_streams: Count = 100
    """Bidirectional streams that a client may have open at a time."""
    max_unidirectional_streams: Count = 50
    """Unidirectional streams (files) that a client may have open at a time."""
    receive_window: Annotated[int, Meta(ge=65_536, le=2_097_152)] = 1_572_864
    """Bytes that a client may send beyond what was dealt with: the most it can make the node hold of its own. At least
    six times `stream_window`: four files that stand still leave room for control and messages."""
    stream_window: Annotated[int, Meta(ge=16_384, le=2_097_152)] = 262_144
    """The same for one stream. A file travels at most this many bytes per round trip."""
    datagrams: bool = True
    """Whether heartbeats and Signals may travel by DATAGRAM frames. WebTransport needs them."""
    early_data: bool = True
    """Whether 0-RTT data is accepted, within the rules of protocol section 4."""
    tickets: Annotated[int, Meta(ge=0, le=10_000_000)] = 20_000
    """TLS session tickets kept for clients that come back, a kilobyte each; each serves once. 0: nobody resumes."""
    congestion_control: Literal["reno", "cubic"] = "reno"
    """How the sending rate follows losses."""
    retry_threshold: Annotated[int, Meta(ge=0, le=1_000_000)] = 64
    """Unfinished handshakes above which a client must first show that its address is its own (Retry, one round trip).
    Each costs 60 KB until it is finished or `handshake_timeout` is over. 0: always."""
    max_half_open: Count = 2_000
    """Unfinished handshakes above which Initials are dropped; clients repeat them."""
    max_half_open_per_address: Count = 500
    """The same for one IPv4 address or IPv6 /64."""
    secret: Secret = ""
    """From which the keys of stateless resets and Retry tokens are derived; 32 characters or more, the same for all
    nodes behind one address. Empty: one that the node makes and keeps in `data_dir`."""
    server_id: Annotated[str, Meta(pattern=r"^([0-9a-fA-F]{16})?$")] = ""
    """Eight bytes in hexadecimal that stand in every connection id, for load balancers that route by them (QUIC-LB,
    plain text, configuration 0). Empty: none, and connection ids are 8 bytes shorter."""
    stream_opens_per_second: Count = 100
    """Streams that a client may open per second; twice as many at once after silence. One more closes with 4302."""
    stream_resets_per_second: Count = 50
    """Streams that a client may reset or stop per second; twice as many at once. One more closes with 4302."""
    socket_buffer: Annotated[int, Meta(ge=0, le=268_435_456)] = 4_194_304
    """Bytes asked for the socket's buffers; the kernel caps them at net.core.rmem_max and wmem_max. 0: as they are."""
    segmentation: bool = True
    """Whether the kernel cuts what belongs together (GSO), where it can."""
