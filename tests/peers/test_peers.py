"""QUIC and WebTransport clients that others wrote hold a whole conversation with a real node.

Each program runs in a process of its own, knows nothing of this package but the bytes it is told to send, and says what
it was answered: login on the control lane, messages in their lane in odd pieces, a datagram, a file, and a close.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from gateway._framing import DispatchTable, Frame, FrameDecoder
from gateway.protocol.codes import Code
from gateway.protocol.messages import (
    AuthRequest,
    AuthResponse,
    ChatMessage,
    FileAck,
    FileOffer,
    Heartbeat,
    Message,
    MessageAck,
    decode,
    encode,
)
from gateway.protocol.types import AckStatus, MsgType
from gateway.transports.settings_quic import QuicSettings
from tests.support.node import RunningNode, open_running

PEERS = Path(os.environ.get("PEERS", "."))
PYTHON = str(PEERS / "env/bin/python")
PROGRAMS = Path(__file__).parent / "programs"
PATIENCE = 40.0
FILE = bytes(range(256)) * 1000

PROGRAM = {
    "picoquic raw": [PYTHON, str(PROGRAMS / "picoquic_raw.py")],
    "quiche raw": ["node", str(PROGRAMS / "quiche_raw.mjs"), str(PEERS)],
    "picoquic WebTransport": [PYTHON, str(PROGRAMS / "picoquic_webtransport.py")],
    "quinn WebTransport": [PYTHON, str(PROGRAMS / "quinn_webtransport.py")],
    "pywebtransport": [PYTHON, str(PROGRAMS / "pywebtransport_client.py")],
}
"""Each stands on a stack of its own."""
WITHOUT_DATAGRAMS = {"quiche raw"}


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[tuple[RunningNode, dict[str, Any]]]:
    """A node with a certificate for localhost that browsers would take by its hash, and what its clients are told."""
    authority = trustme.CA()
    leaf = authority.issue_cert("localhost", "127.0.0.1", not_after=datetime.now(UTC) + timedelta(days=10))
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    leaf.private_key_and_cert_chain_pem.write_to_path(str(folder / "server.pem"))
    certificate = x509.load_pem_x509_certificate(leaf.cert_chain_pems[0].bytes())
    quic = QuicSettings(port=0, certificate=str(folder / "server.pem"))
    async with open_running(folder / "data", quic=quic) as running:
        host, port = running.node.addresses["quic"].rsplit(":", 1)
        yield (
            running,
            {
                "host": host,
                "port": int(port),
                "path": "/im",
                "url": f"https://localhost:{port}/im",
                "ca": str(folder / "ca.pem"),
                "hash": hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest(),
            },
        )


async def run(command: list[str], order: dict[str, Any] | None = None) -> str:
    """Run one peer to its end; what it printed."""
    with trio.fail_after(PATIENCE):
        done = await trio.run_process(
            command,
            stdin=json.dumps(order).encode() if order else b"",
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
    said = done.stdout.decode(errors="replace")
    assert done.returncode == 0, f"{done.returncode}: {done.stderr.decode(errors='replace')[-3000:]}{said[-2000:]}"
    return said


def messages(received: str) -> list[Message]:
    """The frames of one lane."""
    found: list[Frame] = []
    table = DispatchTable(lambda _, code, msg_type, seq: pytest.fail(f"a frame that is not valid: {code}"))
    for kind in MsgType:
        table.on(kind, lambda _, frame: found.append(frame))
    FrameDecoder(table, 1 << 20).feed(None, bytes.fromhex(received))
    return [decode(frame) for frame in found]


@pytest.mark.parametrize("name", PROGRAM)
async def test_a_whole_conversation(name: str, tmp_path: Path) -> None:
    async with serving(tmp_path) as (running, where):
        auth = encode(AuthRequest(token=running.token(1001), device_id="phone", platform="peer"), seq=1)
        texts = [encode(ChatMessage(msg_id=f"m-{number}", to_user=1002), seq=number) for number in range(3)]
        offer = FileOffer(
            file_id="f-1", to_user=1002, name="a.bin", size=len(FILE), sha256=hashlib.sha256(FILE).digest()
        )
        order = {
            **where,
            "auth": auth.hex(),
            "messages": b"".join(texts).hex(),
            "answers": 6,
            "datagram": encode(Heartbeat(), seq=77).hex(),
            "offer": encode(offer, seq=9).hex(),
            "file": FILE.hex(),
            "last": auth.hex(),
        }
        answer = json.loads((await run(PROGRAM[name], order)).splitlines()[-1])

        control = messages(answer["control"])
        welcome, stored = control[0], [each for each in control if isinstance(each, FileAck)]
        assert isinstance(welcome, AuthResponse)
        assert (welcome.code, welcome.user_id) == (Code.OK, 1001)
        assert [(each.file_id, each.code, each.received) for each in stored[-1:]] == [("f-1", Code.OK, len(FILE))]
        acks = [each for each in messages(answer["messages"]) if isinstance(each, MessageAck)]
        for status in (AckStatus.ACCEPTED, AckStatus.STORED):
            assert [ack.msg_id for ack in acks if ack.status == status] == ["m-0", "m-1", "m-2"]
        if name not in WITHOUT_DATAGRAMS:
            assert [type(each) for each in messages(answer["datagram"])] == [Heartbeat]
        assert answer["closed"] == Code.OUT_OF_ORDER


GTLS = ["gtlsclient", "--no-quic-dump", "--exit-on-all-streams-close"]


async def test_ngtcp2_shakes_hands_and_is_answered_by_http3(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, where):
        said = await gtlsclient(where)
        assert "[:status: 4" in said


async def test_ngtcp2_resumes_by_a_ticket(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, where):
        kept = [f"--session-file={tmp_path / 'session'}", f"--tp-file={tmp_path / 'parameters'}"]
        await gtlsclient(where, *kept)
        assert (tmp_path / "session").exists()
        again = await gtlsclient(where, *kept)
        assert "[:status: 4" in again
        # its request went as early data, was not sent again, and was answered before the handshake was confirmed
        assert "type=0RTT" in again
        assert "rejected" not in again
        assert again.index("[:status: 4") < again.index("QUIC handshake has been confirmed")


@pytest.mark.parametrize("flags", [["--nat-rebinding"], []], ids=["NAT rebinding", "migration"])
async def test_ngtcp2_moves_to_another_port_and_updates_its_keys(flags: list[str], tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, where):
        said = await gtlsclient(
            where, "--change-local-addr=100ms", "--key-update=200ms", "--delay-stream=400ms", *flags
        )
        assert "[:status: 4" in said


async def gtlsclient(where: dict[str, Any], *flags: str) -> str:
    """One request of ngtcp2's client; what it printed, on both outputs."""
    command = [*GTLS, *flags, where["host"], str(where["port"]), f"https://localhost:{where['port']}/"]
    with trio.fail_after(PATIENCE):
        done = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False)
    return (done.stdout + done.stderr).decode(errors="replace")
