"""What of aioquic's inside we reach into, looked for before anything is built on it. Nothing else lives here."""

from __future__ import annotations

from typing import Any, Final

import aioquic
from aioquic import tls
from aioquic._crypto import AEAD, HeaderProtection
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection, QuicNetworkPath
from aioquic.quic.crypto import CryptoPair
from aioquic.quic.recovery import QuicPacketRecovery, QuicPacketSpace
from aioquic.quic.stream import QuicStream

PINNED: Final = "1.7.2"
"""The one version whose inside was read. Another may have the same names and mean something else by them."""

METHODS: Final[dict[type, str]] = {
    QuicConnection: (
        "_get_or_create_stream _get_or_create_stream_for_send _handle_ack_frame _handle_connection_close_frame "
        "_handle_crypto_frame _handle_data_blocked_frame _handle_datagram_frame _handle_handshake_done_frame "
        "_handle_max_data_frame _handle_max_stream_data_frame _handle_max_streams_bidi_frame "
        "_handle_max_streams_uni_frame _handle_new_connection_id_frame _handle_new_token_frame _handle_padding_frame "
        "_handle_path_challenge_frame _handle_path_response_frame _handle_ping_frame _handle_reset_stream_frame "
        "_handle_retire_connection_id_frame _handle_stop_sending_frame _handle_stream_data_blocked_frame "
        "_handle_stream_frame _handle_streams_blocked_frame _idle_timeout _initialize _on_ack_delivery "
        "_on_connection_limit_delivery _on_max_stream_data_delivery _payload_received _replenish_connection_ids "
        "_write_connection_limits _write_stream_limits"
    ),
    QuicPacketRecovery: "get_probe_timeout on_ack_received",
}
ATTRIBUTES: Final = (
    "_ack_eliciting_sent_since_receipt _configuration _handshake_done_pending _loss_at _max_datagram_size _pacing_at "
    "_ping_pending _probe_pending _remote_ack_delay_exponent _remote_max_data _remote_max_data_used "
    "_remote_max_idle_timeout _remote_version_information _retire_connection_ids _session_ticket_fetcher "
    "_session_ticket_handler _spin_bit _spin_highest_pn _streams_blocked_pending _local_ack_delay_exponent "
    "_QuicConnection__frame_handlers _ack_delay _close_at _close_event _close_pending _crypto_buffers "
    "_crypto_streams _cryptos _cryptos_initial _datagrams_pending _events _handshake_complete _handshake_confirmed "
    "_host_cid_seq _host_cids _local_initial_source_connection_id _local_max_data _local_max_streams_bidi "
    "_local_max_streams_uni _logger _loss _network_paths _packet_number _peer_cid _remote_active_connection_id_limit "
    "_remote_max_datagram_frame_size _remote_max_streams_bidi _remote_max_streams_uni _spaces _state _streams "
    "_streams_queue host_cid"
)
OTHERS: Final = {
    "stream": "is_blocked max_stream_data_local max_stream_data_local_sent max_stream_data_remote receiver sender",
    "stream.receiver": "_buffer_start _final_size _ranges _stop_error_code highest_offset is_finished stop_pending",
    "stream.sender": (
        "_buffer _pending _pending_eof buffer_is_empty get_frame highest_offset is_finished next_offset "
        "on_data_delivery reset_pending"
    ),
    "space": (
        "ack_at ack_eliciting_in_flight ack_queue expected_packet_number largest_received_packet "
        "largest_received_time loss_time received_packets sent_packets"
    ),
    "loss": "_cc _logger _pacer _pto_count _time_of_last_sent_ack_eliciting_packet spaces",
    "path": "addr bytes_sent is_validated local_challenge_sent remote_challenges",
    "keys": "_update_key_requested recv send",
    "keys.recv": "_setup_cb _teardown_cb aead hp key_phase",
    "aead": "_aead _iv",
    "protection": "_encryptor _is_chacha20 _mask",
    "tls": "_max_early_data alpn_negotiated",
}


def missing() -> list[str]:
    """The names that are not where they should be."""
    configuration = QuicConfiguration(is_client=False, certificate=object(), private_key=object())
    connection = QuicConnection(configuration=configuration, original_destination_connection_id=b"")
    stream, keys = QuicStream(), CryptoPair()
    there: dict[str, Any] = {
        "stream": stream,
        "stream.receiver": stream.receiver,
        "stream.sender": stream.sender,
        "space": QuicPacketSpace(),
        "loss": connection._loss,
        "path": QuicNetworkPath(None),
        "keys": keys,
        "keys.recv": keys.recv,
        "aead": AEAD(b"aes-128-gcm", bytes(16), bytes(12)),
        "protection": HeaderProtection(b"aes-128-ecb", bytes(16)),
        "tls": tls.Context(is_client=False),
    }
    things: list[tuple[Any, str]] = [*METHODS.items(), (connection, ATTRIBUTES)]
    things += [(there[name], names) for name, names in OTHERS.items()]
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
