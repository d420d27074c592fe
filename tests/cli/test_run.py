"""`run` as a process: starts, drains on a signal, ends at once on the second, and explains what it cannot do."""

from __future__ import annotations

import signal
import socket
import stat
from pathlib import Path

import pytest
import trio

from gateway.client import connect
from tests.cli.running import PORTS, gateway, node
from tests.console.asking import Asker


async def token(user: int, cwd: Path) -> str:
    return (await gateway("token", "--user", str(user), cwd=cwd)).stdout.strip()


def url(serving: dict[str, object]) -> str:
    return f"tcp://{serving['tcp']}"


async def test_from_start_to_drain(tmp_path: Path) -> None:
    """T40, the process: not ready, GoAway, exit 0, nothing left; and what the console says meanwhile."""
    async with node("--set", "drain.jitter=0", "--set", "drain.timeout=20", cwd=tmp_path) as running:
        serving = await running.event("serving")
        assert serving["development"] is True
        assert len(bytes.fromhex(str(serving["certificate_sha256"]))) == 32
        assert stat.S_IMODE((tmp_path / ".gateway").stat().st_mode) == 0o700
        asker = Asker(int(str(serving["console"]).rpartition(":")[2]))
        assert (await asker.ask("/readyz")).status == 200
        alice = await token(1001, tmp_path)
        async with connect(url(serving), token=alice, device_id="phone") as client:
            assert await client.send("hello", to_user=1002)
            scraped = (await asker.ask("/metrics")).text
            assert "\naccess_auth_success 1\n" in scraped
            assert "\naccess_messages_received 1\n" in scraped
            assert "1001" not in "".join(line for line in scraped.splitlines() if line.startswith("access_"))
            shown = (await asker.ask("/books")).text
            assert "logic_upstreams" in shown
            assert "DOES NOT ADD UP" not in shown
            running.signal(signal.SIGTERM)
            assert (await running.event("draining"))["signal"] == "SIGTERM"
        assert await running.ended() == 0
    assert running.lines[-1]["event"] == "left"
    assert not any(part in str(running.lines) for part in alice.split("."))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_second_signal_ends_at_once(number: signal.Signals, tmp_path: Path) -> None:
    """T40: a connection that will not leave holds up draining, and the second signal does not wait for it."""
    async with node("--set", "drain.timeout=3600", "--set", "drain.jitter=3600", cwd=tmp_path) as running:
        serving = await running.event("serving")
        host, _, port = str(serving["tcp"]).rpartition(":")
        held = await trio.open_tcp_stream(host, int(port))
        async with held:
            await wait_until_connected(Asker(int(str(serving["console"]).rpartition(":")[2])))
            running.signal(number)
            await running.event("draining")
            running.signal(number)
            await running.event("ending_at_once")
            assert await running.ended() == 0


async def wait_until_connected(asker: Asker) -> None:
    while "access_connections_total 1\n" not in (await asker.ask("/metrics")).text:
        await trio.sleep(0.01)


async def test_a_taken_port_is_one_line_and_exit_1(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for name in ("tcp", "console"):
            done = await gateway("run", *PORTS, f"--{name}-port", port, cwd=tmp_path)
            assert done.returncode == 1
            told = [line for line in done.stderr.splitlines() if not line.startswith("{")]
            assert told == [
                f"gateway: cannot start: {name}: cannot listen on 127.0.0.1 port {port}: Address already in use"
            ]


async def test_what_must_not_be_reached_from_outside_is_exit_2(tmp_path: Path) -> None:
    done = await gateway("--tcp-host", "0.0.0.0", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("gateway: --tcp-host: 0.0.0.0 can be reached from outside, and without auth.keys")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / ".gateway").exists()
    done = await gateway("run", *PORTS, "--set", "tcp.tls.certificate=none.pem", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("gateway: --set tcp.tls.certificate: none.pem cannot be read")
    assert done.stderr.count("\n") == 1


async def test_what_cannot_be_used_is_one_line_and_exit_1(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "logic.sqlite").write_text("no database " * 1000)
    for words, part in (
        (("--data-dir", "file/d"), "cannot make data_dir"),
        (("--data-dir", "broken"), "cannot start: "),
    ):
        done = await gateway("run", *PORTS, *words, cwd=tmp_path)
        told = [line for line in done.stderr.splitlines() if not line.startswith("{")]
        assert (done.returncode, len(told)) == (1, 1), done.stderr
        assert part in told[0]


async def test_a_chat_through_the_command_line(tmp_path: Path) -> None:
    """Three messages sent while the other is away are exactly what it finds when it comes back."""
    async with node(cwd=tmp_path) as running:
        where = ("--url", url(await running.event("serving")))
        sent = await gateway("chat", "--user", "1001", "--to", "1002", *where, cwd=tmp_path, stdin=b"one\ntwo\nthree\n")
        assert sent.returncode == 0, sent.stderr
        found = await gateway("chat", "--user", "1002", "--to", "1001", "--json", *where, cwd=tmp_path)
        assert found.returncode == 0, found.stderr
        assert [text for text in ("one", "two", "three") if f'"{text}"' in found.stdout] == ["one", "two", "three"]
        again = await gateway("chat", "--user", "1002", "--to", "1001", "--json", *where, cwd=tmp_path)
        assert '"one"' not in again.stdout
        running.signal(signal.SIGTERM)
        assert await running.ended() == 0


@pytest.mark.parametrize("development", [True, False])
async def test_few_descriptors_are_told_where_it_matters_and_not_first(tmp_path: Path, development: bool) -> None:
    key = f'[auth.keys.k]\nalgorithm = "HS256"\nkey = "{"s" * 32}"\n'
    (tmp_path / "gateway.toml").write_text(
        "[limits]\nmax_connections = 1_000_000_000\n" + (key if not development else "")
    )
    async with node("--config", "gateway.toml", "--set", "drain.jitter=0", cwd=tmp_path) as running:
        assert (await running.event("serving"))["development"] is development
        running.signal(signal.SIGTERM)
        assert await running.ended() == 0
    events = [line["event"] for line in running.lines]
    assert events.index("serving") == 0
    assert ("descriptors_limited" in events) is not development
