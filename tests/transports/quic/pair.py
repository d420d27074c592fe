"""A client and a server connection in memory, with a clock of their own, and packets that no honest client sends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

from aioquic._buffer import Buffer
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import QuicEvent
from aioquic.tls import Epoch, SessionTicket

from gateway.transports.quic.budget import Rate
from gateway.transports.quic.connection_ids import ConnectionIds
from gateway.transports.quic.hardening import HardenedConnection, Terms
from gateway.transports.quic.tickets import Tickets
from tests.transports.quic.client import client_configuration
from tests.transports.quic.world import SECRET, identity

CLIENT = b"\x02\x00\x30\x39\x7f\x00\x00\x01"
SERVER = ("127.0.0.1", 8443)
LIBERAL = Rate(1e9, 1e9)


class Owner:
    """What a server connection needs of its peer."""

    ticket = ""
    tickets_issued: tuple[str, ...] = ()


def server_configuration(**fields: Any) -> QuicConfiguration:
    own = identity()
    settings: dict[str, Any] = {
        "alpn_protocols": ["im-access"],
        "certificate": own.chain[0],
        "private_key": own.key,
        "max_datagram_frame_size": 65_535,
    }
    return QuicConfiguration(is_client=False, **{**settings, **fields})


def terms(**fields: Any) -> Terms:
    settings: dict[str, Any] = {
        "ids": ConnectionIds(SECRET),
        "rates": (LIBERAL,) * 4,
        "window": 1_048_576,
        "stream_window": 262_144,
        "bidirectional": 100,
        "unidirectional": 50,
        "early_data": True,
        "issued": lambda _cid, _peer: None,
        "moved": lambda: None,
    }
    return Terms(**{**settings, **fields})


class Pair:
    """Two ends; `step` carries what they have to say. The server is ours, or aioquic's own to show what was wrong."""

    def __init__(
        self, *, plain: bool = False, ticket: SessionTicket | None = None, tickets: Tickets | None = None, **fields: Any
    ) -> None:
        self.now = 100.0
        self.tickets: list[SessionTicket] = []
        self.client = QuicConnection(
            configuration=client_configuration(session_ticket=ticket), session_ticket_handler=self.tickets.append
        )
        self.owner = Owner()
        self.plain = plain
        original = self.client.original_destination_connection_id
        self.server: Any
        if plain:
            self.server = QuicConnection(
                configuration=server_configuration(), original_destination_connection_id=original
            )
        else:
            agreed = terms(**fields)
            configuration = server_configuration(
                connection_id_length=agreed.ids.length, max_data=agreed.window, max_stream_data=agreed.stream_window
            )
            self.server = HardenedConnection(configuration, agreed, original=original, retried=None, tickets=tickets)
            self.server.peer = self.owner
        self.heard: list[QuicEvent] = []
        self.told: list[QuicEvent] = []
        self.lost: Callable[[bytes, bool], bool] = lambda _data, _from_server: False

    def connect(self) -> Self:
        self.client.connect(SERVER, self.now)
        for _ in range(5):
            self.step()
        assert self.client._handshake_complete
        assert self.server._handshake_complete
        return self

    def step(self, seconds: float = 0.03) -> None:
        """Carry both ways what is to be sent, then let some time pass."""
        for data, _ in self.client.datagrams_to_send(self.now):
            if not self.lost(data, False):
                self.server.receive_datagram(data, CLIENT, self.now)
        self.answer()
        self.now += seconds
        for each in (self.client, self.server):
            timer = each.get_timer()
            if timer is not None and timer <= self.now:
                each.handle_timer(self.now)

    def answer(self) -> list[bytes]:
        """Carry to the client what the server has to say; returns it."""
        while (event := self.server.next_event()) is not None:
            self.heard.append(event)
        if self.server._network_paths:
            send = self.server.datagrams_to_send if self.plain else self.server.transmit
            said = [data for data, _ in send(self.now)]
        else:
            said = []
        for data in said:
            if not self.lost(data, True):
                self.client.receive_datagram(data, SERVER, self.now)
        while (event := self.client.next_event()) is not None:
            self.told.append(event)
        return said

    def forge(self, frames: bytes, epoch: Epoch = Epoch.ONE_RTT) -> bytes:
        """A packet of the client with any frames in it, in proper keys."""
        assert epoch is Epoch.ONE_RTT
        number = self.client._packet_number
        self.client._packet_number += 1
        crypto = self.client._cryptos[epoch]
        head = bytes([0x41 | crypto.key_phase << 2]) + self.client._peer_cid.cid + (number & 0xFFFF).to_bytes(2, "big")
        return crypto.encrypt_packet(head, frames + bytes(max(0, 4 - len(frames))), number)

    def attack(self, frames: bytes) -> None:
        """Have the server receive such a packet."""
        self.server.receive_datagram(self.forge(frames), CLIENT, self.now)

    @property
    def verdict(self) -> tuple[int, int | None] | None:
        """The error code and frame type with which the server closes; None while it does not."""
        event = self.server._close_event
        return None if event is None else (event.error_code, event.frame_type)


def varint(*values: int) -> bytes:
    """QUIC's integers of variable length, one after another."""
    buffer = Buffer(capacity=8 * len(values))
    for value in values:
        buffer.push_uint_var(value)
    return bytes(buffer.data)


def stream_frame(stream_id: int, offset: int, data: bytes, *, fin: bool = False) -> bytes:
    return bytes([0x0E | fin]) + varint(stream_id, offset, len(data)) + data


def forged(quic: QuicConnection, frames: bytes) -> bytes:
    """A packet of this client's with any frames in it."""
    number, quic._packet_number = quic._packet_number, quic._packet_number + 1
    crypto = quic._cryptos[Epoch.ONE_RTT]
    head = bytes([0x41 | crypto.key_phase << 2]) + quic._peer_cid.cid + (number & 0xFFFF).to_bytes(2, "big")
    return crypto.encrypt_packet(head, frames + bytes(max(0, 4 - len(frames))), number)
