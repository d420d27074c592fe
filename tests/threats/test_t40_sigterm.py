"""Threat 40: SIGTERM under load. Not ready, no new links, GoAway, drained, exit 0, nothing acknowledged lost."""

import signal
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import trio

from gateway.backends.dev_keys import development_key, issue_token
from gateway.client import ClientError, State, connect
from tests.cli.running import node

SENDERS = 6


def status(url: str) -> int:
    """The HTTP status of a GET; 0 when nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
    except OSError:
        return 0


class Load:
    """Clients that send without pause until they are stopped, and what was acknowledged as stored."""

    def __init__(self, url: str, data_dir: Path) -> None:
        self.url = url
        self.stored: set[str] = set()
        self._key = development_key(data_dir)

    async def send(self, number: int) -> None:
        user = 2000 + number
        async with connect(self.url, token=issue_token(self._key, user), device_id="load") as client:
            for count in range(100_000):
                text = f"{user}-{count}"
                try:
                    await client.send(text, to_user=1001)
                except ClientError:
                    continue
                self.stored.add(text)

    async def received(self, url: str) -> set[str]:
        """Everything that user 1001 finds, each message once."""
        found: list[str] = []
        async with connect(url, token=issue_token(self._key, 1001), device_id="reader") as client:
            async for delivery in client:
                found.append(delivery.content)
                if self.stored <= set(found):
                    break
        assert len(found) == len(set(found))
        return set(found)


async def wait_loaded(load: Load) -> None:
    while len(load.stored) < 50:
        await trio.sleep(0.01)


def tcp(serving: dict[str, str]) -> str:
    return f"tcp://{serving['tcp']}"


async def test_a_drain_under_load_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    data = ("--data-dir", str(tmp_path / "data"))
    quick = ("--set", "drain.reconnect_after=0.1", "--set", "drain.jitter=0.4", "--set", "drain.timeout=5")
    async with node("run", *data, *quick, cwd=tmp_path) as running, trio.open_nursery() as nursery:
        serving = await running.event("serving")
        load = Load(tcp(serving), tmp_path / "data")
        key = development_key(tmp_path / "data")
        for number in range(SENDERS):
            nursery.start_soon(load.send, number)
        # one that ignores GoAway, so that the drain has somebody to wait for
        host, _, port = serving["tcp"].rpartition(":")
        stubborn = await trio.open_tcp_stream(host, int(port))
        await wait_loaded(load)
        console = f"http://{serving['console']}"
        assert await trio.to_thread.run_sync(status, f"{console}/readyz") == 200
        async with stubborn, connect(tcp(serving), token=issue_token(key, 3000), device_id="idle") as idle:
            running.signal(signal.SIGTERM)
            await running.event("draining")
            assert await trio.to_thread.run_sync(status, f"{console}/readyz") in (503, 0)
            with pytest.raises(OSError, match="all attempts to connect"):
                await trio.open_tcp_stream(host, int(port))
            with trio.fail_after(20):
                while idle.state in (State.ONLINE, State.LEAVING):
                    await trio.sleep(0.01)
            assert await running.ended() == 0
        nursery.cancel_scope.cancel()
    assert "left" in [line["event"] for line in running.lines]
    async with node("run", *data, cwd=tmp_path) as again:
        with trio.fail_after(30):
            assert load.stored <= await load.received(tcp(await again.event("serving")))


async def test_a_second_sigterm_under_load_ends_at_once(tmp_path: Path) -> None:
    data = ("--data-dir", str(tmp_path / "data"))
    async with node("run", *data, "--set", "drain.jitter=60", cwd=tmp_path) as running, trio.open_nursery() as nursery:
        serving = await running.event("serving")
        load = Load(tcp(serving), tmp_path / "data")
        for number in range(SENDERS):
            nursery.start_soon(load.send, number)
        await wait_loaded(load)
        running.signal(signal.SIGTERM)
        await running.event("draining")
        running.signal(signal.SIGTERM)
        with trio.fail_after(10):
            assert await running.ended() == 0
        nursery.cancel_scope.cancel()
    async with node("run", *data, cwd=tmp_path) as again:
        with trio.fail_after(30):
            assert load.stored <= await load.received(tcp(await again.event("serving")))
