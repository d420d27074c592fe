"""Ways to the server other than a plain connection: TLS, and Sentinels that say where the master is."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
import trustme

from gateway.backends.asyncio_thread import AsyncioThread
from gateway.backends.redis_address import RedisAddress, cluster_address, redis_address, sentinel_address
from gateway.backends.settings_redis import RedisSettings, RedisTlsSettings
from gateway.config import Config, ConfigError, check
from gateway.core.ports import StoreUnavailable
from gateway.logic.settings import LogicSettings
from gateway.protocol.messages import ChatMessage
from tests.backends.redis_world import PATIENCE, conn_ids, open_store, open_store_on, record, wait_until
from tests.contracts.locations import MULTI, place
from tests.logic.redis_world import durable_server
from tests.support.node import open_running
from tests.support.redis_cluster import redis_cluster
from tests.support.redis_server import RedisServer, free_port, redis_server


@pytest.fixture
async def thread() -> AsyncIterator[AsyncioThread]:
    async with AsyncioThread() as thread:
        yield thread


async def forward_tls(
    context: ssl.SSLContext, port: int, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED
) -> None:
    """The tests' server was built without TLS: put it in front of it."""

    async def join(near: trio.SSLStream[trio.SocketStream]) -> None:
        async def copy(source: trio.abc.ReceiveStream, sink: trio.abc.SendStream, scope: trio.CancelScope) -> None:
            try:
                while data := await source.receive_some():
                    await sink.send_all(data)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass
            scope.cancel()

        try:
            await near.do_handshake()
        except (trio.BrokenResourceError, ssl.SSLError):
            await trio.aclose_forcefully(near)
            return
        async with await trio.open_tcp_stream("127.0.0.1", port) as far, trio.open_nursery() as nursery:
            nursery.start_soon(copy, near, far, nursery.cancel_scope)
            nursery.start_soon(copy, far, near, nursery.cancel_scope)
        await trio.aclose_forcefully(near)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_ssl_over_tcp, join, 0, context)
        task_status.started(listeners[0].transport_listener.socket.getsockname()[1])


@pytest.mark.parametrize("case", ["section", "url", "mutual", "unknown authority", "another name", "no certificate"])
async def test_tls(tmp_path: Path, thread: AsyncioThread, case: str) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    authority.issue_cert("gateway").private_key_and_cert_chain_pem.write_to_path(tmp_path / "ours.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    names = ["redis.example"] if case == "another name" else ["127.0.0.1", "localhost"]
    authority.issue_cert(*names).configure_cert(context)
    if case in ("mutual", "no certificate"):
        authority.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
    trusted = "" if case == "unknown authority" else str(tmp_path / "ca.pem")
    tls = RedisTlsSettings(ca=trusted, certificate=str(tmp_path / "ours.pem") if case == "mutual" else "")
    with redis_server() as server:
        async with trio.open_nursery() as nursery:
            port = await nursery.start(forward_tls, context, server.port)
            where = {"url": f"rediss://127.0.0.1:{port}/0"} if case == "url" else {"port": port}
            async with open_store(server, thread, "node-1", tls=tls, **where) as store:
                assert store.healthy == (case in ("section", "url", "mutual"))
                if store.healthy:
                    assert await store.claim(place(10), MULTI) == []
                    assert await conn_ids(store) == [10]
                else:
                    assert not server.client().keys("*")
            nursery.cancel_scope.cancel()


async def test_a_cluster_behind_tls_and_a_password(tmp_path: Path, thread: AsyncioThread) -> None:
    """Every master is reached in the same way as the first, also those that only the cluster names."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with redis_cluster() as cluster:
        async with trio.open_nursery() as nursery:
            fronts = [await nursery.start(forward_tls, context, member.port) for member in cluster.members]
            for member, front in zip(cluster.members, fronts, strict=True):
                member.ask("CONFIG", "SET", "cluster-announce-port", front)
                member.ask(
                    *("ACL", "SETUSER", "gate", "on", ">p@ss", "~im:*", "+@read", "+@write", "+@connection"),
                    *("+@scripting", "+time", "-@dangerous", "+cluster|slots", "+cluster|info"),
                )
            told = set(fronts)
            await wait_until(lambda: told == {each[2][1] for each in cluster.members[0].ask("CLUSTER", "SLOTS")})
            tls = RedisTlsSettings(ca=str(tmp_path / "ca.pem"))
            for password in ("p@ss", "wrong"):
                settings = RedisSettings(
                    cluster=(f"127.0.0.1:{fronts[0]}",), tls=tls, user="gate", password=password, timeout=10.0
                )
                async with open_store_on(settings, thread, record) as store:
                    assert store.healthy == (password == "p@ss")
                    mine = [place(10, user=user) for user in range(1, 101)]
                    outcomes = await store.reclaim(mine, MULTI)
                    if store.healthy:
                        assert outcomes == [[]] * len(mine)
                        assert len(await store.lookup(range(1, 101))) == len(mine)
                        assert all(member.client().dbsize() for member in cluster.members)
                    else:
                        assert all(isinstance(each, StoreUnavailable) for each in outcomes)
                        assert "wrong" not in str(outcomes[0])
            nursery.cancel_scope.cancel()


class Sentinels:
    """Two Sentinels, the first of them away, that agree by a quorum of one."""

    def __init__(self, folder: Path, master: RedisServer) -> None:
        config = folder / "sentinel.conf"
        config.write_text(
            f"sentinel monitor chat 127.0.0.1 {master.port} 1\n"
            "sentinel down-after-milliseconds chat 500\n"
            "sentinel failover-timeout chat 3000\n"
        )
        self.server = RedisServer(folder, config=config)
        self.addresses = (f"127.0.0.1:{free_port()}", f"127.0.0.1:{self.server.port}")


async def test_a_failover_by_sentinel(tmp_path: Path, thread: AsyncioThread) -> None:
    with redis_server() as first, redis_server("--replicaof", f"127.0.0.1 {first.port}") as second:
        sentinels = Sentinels(tmp_path, first)
        sentinels.server.start()
        try:
            async with open_store(first, thread, "node-1", sentinels=sentinels.addresses, master="chat") as store:
                assert store.healthy
                mine = place(10)
                assert await store.claim(mine, MULTI) == []
                await wait_until(lambda: second.client().exists("im:user:conn:1001"))
                looker = sentinels.server.client()
                await wait_until(lambda: looker.execute_command("SENTINEL", "REPLICAS", "chat"))
                first.kill()
                with trio.fail_after(PATIENCE * 2):
                    while not store.healthy or second.client().role()[0] != b"master":
                        await trio.sleep(0.05)
                    await store.wait_recovered()
                assert await store.renew([mine]) == []
                assert [each.conn_id for each in await store.claim(place(11), MULTI) or []] == [10]
                assert await conn_ids(store) == [11]
                assert second.client().hkeys("im:user:conn:1001") == [b"phone"]
        finally:
            sentinels.server.close()


async def test_sentinels_that_know_no_such_master(tmp_path: Path, thread: AsyncioThread) -> None:
    with redis_server() as server:
        sentinels = Sentinels(tmp_path, server)
        sentinels.server.start()
        try:
            async with open_store(server, thread, "node-1", sentinels=sentinels.addresses, master="other") as store:
                assert not store.healthy
        finally:
            sentinels.server.close()


@pytest.mark.parametrize(
    ("url", "host", "port", "user", "password", "db", "tls"),
    [
        ("redis://redis.example", "redis.example", 6379, "", "", 0, False),
        ("rediss://:p%2Fw@redis.example:7000/4", "redis.example", 7000, "", "p/w", 4, True),
        ("redis://me:pw@[::1]:7000/", "::1", 7000, "me", "pw", 0, False),
    ],
)
def test_urls(url: str, host: str, port: int, user: str, password: str, db: int, tls: bool) -> None:
    address = redis_address(RedisSettings(url=url))
    assert address == RedisAddress(host=host, port=port, user=user, password=password, db=db, tls=tls)
    assert "pw" not in repr(address)


@pytest.mark.parametrize(
    "url",
    [
        *("http://secret@host", "redis://", "redis://:secret@host:port", "redis://:secret@host/x", "redis://[::1"),
        *("redis://:secret@host/0?timeout=5", "redis://:secret@host:99999/0", "secret"),
    ],
)
def test_urls_that_are_none_are_refused_without_showing_them(url: str) -> None:
    with pytest.raises(ValueError, match="must") as raised:
        redis_address(RedisSettings(url=url))
    assert "secret" not in str(raised.value)


def test_addresses_of_sentinels() -> None:
    assert sentinel_address("10.0.0.1") == ("10.0.0.1", 26379)
    assert sentinel_address("[::1]:5") == ("::1", 5)
    assert cluster_address("10.0.0.1") == ("10.0.0.1", 6379)
    for bad in ("", ":5", "a:b", "a@b:5", "a/b", "[::1"):
        with pytest.raises(ValueError, match="must hold addresses"):
            sentinel_address(bad)


@pytest.mark.parametrize(
    ("redis", "named"),
    [
        (RedisSettings(), None),
        (RedisSettings(prefix="a:b"), "redis.prefix"),
        (RedisSettings(host="not a host"), "redis.host"),
        (RedisSettings(url="http://:secret@host"), "redis.url"),
        (RedisSettings(sentinels=("a/b",)), "redis.sentinels"),
        (RedisSettings(sentinels=("a",), url="redis://b"), "redis.sentinels"),
        (RedisSettings(cluster=("a", "b:7000", "[::1]:7001"), user="u", password="p", timeout=2.0), None),
        (RedisSettings(cluster=("a:b",)), "redis.cluster"),
        (RedisSettings(cluster=("redis://a",)), "redis.cluster"),
        (RedisSettings(cluster=("a",), url="redis://b"), "redis.cluster"),
        (RedisSettings(cluster=("a",), sentinels=("b",)), "redis.cluster"),
        (RedisSettings(cluster=("a",), db=1), "redis.db"),
        (RedisSettings(timeout=60), "redis.timeout"),
        (RedisSettings(tls=RedisTlsSettings(ca="nowhere.pem")), "redis.tls"),
    ],
)
def test_what_cannot_work_is_refused_at_the_start(redis: RedisSettings, named: str | None) -> None:
    config = Config(redis=redis)
    if named is None:
        check(config)
        return
    with pytest.raises(ConfigError, match=named.replace(".", r"\.")) as raised:
        check(config)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("redis", "of_logic", "named"),
    [
        (RedisSettings(cluster=("a",)), None, "redis.cluster"),
        (RedisSettings(cluster=("a",)), RedisSettings(cluster=("b",)), "logic.redis.cluster"),
        (RedisSettings(), RedisSettings(host="not a host"), "logic.redis.host"),
        (None, None, "logic.store"),
        (RedisSettings(cluster=("a",)), RedisSettings(host="b"), None),
        (None, RedisSettings(sentinels=("b",)), None),
    ],
)
def test_logic_keeps_its_messages_in_no_cluster(
    redis: RedisSettings | None, of_logic: RedisSettings | None, named: str | None
) -> None:
    config = Config(redis=redis, logic=LogicSettings(store="redis", redis=of_logic))
    if named is None:
        check(config)
        return
    with pytest.raises(ConfigError, match=rf"^{named}"):
        check(config)


async def test_locations_in_a_cluster_and_messages_in_a_server_of_their_own(tmp_path: Path) -> None:
    with redis_cluster() as cluster, durable_server() as server:
        logic = LogicSettings(store="redis", redis=RedisSettings(port=server.port))
        settings = RedisSettings(cluster=cluster.addresses, timeout=3.0)
        server.client().ping()
        for member in cluster.members:
            member.client().ping()
        async with open_running(tmp_path, redis=settings, logic=logic) as running:
            anna, bo = await running.seated(1001), await running.seated(1002)
            await anna.send(ChatMessage(msg_id="m", to_user=1002, content="hello"))
            with trio.fail_after(PATIENCE):
                assert (await bo.receive(ChatMessage)).content == "hello"
            assert server.client().llen("im:logic:timeline:1002") == 1
            assert not server.client().keys("im:user:*")
            assert not any(member.client().keys("im:logic:*") for member in cluster.members)
            for peer in (anna, bo):
                await peer.hang_up()
