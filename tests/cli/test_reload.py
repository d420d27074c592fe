"""SIGHUP: certificates are read anew and nobody is disconnected; a terminal that goes away makes a node leave."""

from __future__ import annotations

import json
import os
import pty
import signal
import ssl
import subprocess
from pathlib import Path

import trio
import trustme

from tests.cli.running import PORTS, command, environment, heed_signals, node


def issue(authority: trustme.CA, name: str, path: Path) -> None:
    authority.issue_cert("127.0.0.1", common_name=name).private_key_and_cert_chain_pem.write_to_path(str(path))


async def handshake(address: str, authority: trustme.CA) -> tuple[trio.SSLStream[trio.SocketStream], str]:
    """A TLS connection to the node, and whose certificate it showed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(context)
    host, _, port = address.rpartition(":")
    stream = await trio.open_tcp_stream(host, int(port))
    secured = trio.SSLStream(stream, context, server_hostname=host)
    await secured.do_handshake()
    subject = dict(pair for group in secured.getpeercert()["subject"] for pair in group)
    return secured, subject["commonName"]


async def test_sighup_reloads_certificates_and_keeps_connections(tmp_path: Path) -> None:
    authority = trustme.CA()
    pem = tmp_path / "server.pem"
    issue(authority, "first", pem)
    async with node("--set", f"tcp.tls.certificate={pem}", cwd=tmp_path) as running:
        address = str((await running.event("serving"))["tcp"])
        held, name = await handshake(address, authority)
        assert name == "first"

        issue(authority, "second", pem)
        running.signal(signal.SIGHUP)
        await running.event("reloading")
        other, name = await handshake(address, authority)
        assert name == "second"
        await trio.aclose_forcefully(other)

        pem.write_text("no certificate")
        running.signal(signal.SIGHUP)
        refused = await running.event("certificate_not_reloaded")
        assert str(pem) in refused["reason"]
        other, name = await handshake(address, authority)
        assert name == "second"
        await trio.aclose_forcefully(other)

        await held.send_all(b"\0\0\0\0\0\0")
        assert await held.receive_some(6) == b"\0\0\0\0\0\0"
        await trio.aclose_forcefully(held)
        running.signal(signal.SIGTERM)
        assert await running.ended() == 0


async def test_it_leaves_with_its_terminal(tmp_path: Path) -> None:
    master, slave = pty.openpty()
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = await trio.lowlevel.open_process(
            # a session of its own whose terminal is the pty: what a shell's window does
            ["setsid", "--ctty", *command(*PORTS, "--log-format", "json", "--set", "drain.jitter=0")],
            cwd=tmp_path,
            env=environment(),
            stdin=slave,
            stdout=subprocess.DEVNULL,
            stderr=output,
            preexec_fn=heed_signals,
        )
    os.close(slave)
    try:
        with trio.fail_after(60):
            while b'"serving"' not in log.read_bytes():
                await trio.sleep(0.05)
            os.close(master)
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
    events = {each["event"]: each for each in map(json.loads, log.read_text().splitlines())}
    assert events["draining"]["signal"] == "SIGHUP"
