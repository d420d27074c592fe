"""What of aioquic's inside we reach into, looked for before anything is built on it. Nothing else lives here."""

from __future__ import annotations

from typing import Any, Final

import aioquic
from aioquic import tls
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.recovery import QuicPacketRecovery, QuicPacketSpace
from aioquic.quic.stream import QuicStream

PINNED: Final = "1.7.2"
"""The one version whose inside was read. Another may have the same names and mean something else by them."""

METHODS: Final[dict[type, str]] = {
    QuicConnection: (
        "_close_begin _confirm_handshake _discard_epoch _get_or_create_stream _get_or_create_stream_for_send "
        "_handle_ack_frame _handle_crypto_frame _handle_new_connection_id_frame _handle_path_challenge_frame "
        "_handle_reset_stream_frame _handle_retire_connection_id_frame _handle_stop_sending_frame "
        "_handle_stream_frame _initialize _payload_received _push_crypto_data _replenish_connection_ids "
        "_write_connection_limits _write_stream_limits _idle_timeout"
    ),
    QuicPacketRecovery: "get_probe_timeout on_packet_sent get_loss_detection_time",
}
ATTRIBUTES: Final = (
    "_QuicConnection__frame_handlers _ack_delay _close_at _close_event _close_pending _crypto_buffers "
    "_crypto_streams _cryptos _cryptos_initial _datagrams_pending _events _handshake_complete _handshake_confirmed "
    "_host_cid_seq _host_cids _local_initial_source_connection_id _local_max_data _local_max_streams_bidi "
    "_local_max_streams_uni _logger _loss _network_paths _packet_number _peer_cid _remote_active_connection_id_limit "
    "_remote_max_datagram_frame_size _remote_max_streams_bidi _remote_max_streams_uni _spaces _state _streams "
    "_streams_queue host_cid"
)
STREAM: Final = "max_stream_data_local max_stream_data_local_sent receiver sender"
RECEIVER: Final = "_ranges _stop_error_code highest_offset is_finished stop_pending"
SENDER: Final = "_buffer_start _buffer_stop is_finished"
SPACE: Final = "ack_at ack_queue largest_received_time sent_packets"


def missing() -> list[str]:
    """The names that are not where they should be."""
    configuration = QuicConfiguration(is_client=False, certificate=object(), private_key=object())
    connection = QuicConnection(configuration=configuration, original_destination_connection_id=b"")
    stream = QuicStream()
    things: list[tuple[Any, str]] = [(owner, names) for owner, names in METHODS.items()]
    things += [(connection, ATTRIBUTES), (stream, STREAM), (stream.receiver, RECEIVER), (stream.sender, SENDER)]
    things += [(QuicPacketSpace(), SPACE), (tls.Context(is_client=False), "_max_early_data alpn_negotiated")]
    return [
        f"{getattr(owner, '__name__', type(owner).__name__)}.{name}"
        for owner, names in things
        for name in names.split()
        if not hasattr(owner, name)
    ]


def check() -> None:
    """Fail at import, in one line, rather than at the first packet.

    Raises:
        ImportError: this is not the aioquic that the overrides were written for.
    """
    absent = missing()
    if aioquic.__version__ != PINNED or absent:
        lacks = f", which lacks {', '.join(absent)}" if absent else ""
        raise ImportError(f"gateway needs aioquic {PINNED} exactly, found {aioquic.__version__}{lacks}: pip install it")


check()
