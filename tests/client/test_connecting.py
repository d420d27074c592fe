"""From `connect` to the last goodbye: login, reconnecting, heartbeats, GoAway, giving up, leaving."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from gateway._framing import ChatFrame, encode_frame
from gateway.client import (
    ClientError,
    ClientSettings,
    Refused,
    State,
    StateChange,
    TransportFailed,
    Unreachable,
    connect,
)
from gateway.protocol.codes import Code, Reconnect, reconnect_after
from gateway.protocol.messages import (
    AuthRequest,
    AuthResponse,
    ChatMessage,
    ErrorMessage,
    GoAway,
    Kick,
    MessageAck,
    SyncRequest,
    SyncResponse,
    decode,
    encode,
)
from gateway.protocol.types import AckStatus
from tests.client.server import URL, Link, Server, chat, online, states, take

NEVER = [code for code in Code if reconnect_after(code) is Reconnect.NEVER]
NEW_TOKEN = [code for code in Code if reconnect_after(code) is Reconnect.WITH_NEW_TOKEN]
BACKOFF = [code for code in Code if code and reconnect_after(code) is Reconnect.WITH_BACKOFF]


def connecting(server: Server, **options: Any) -> Any:
    defaults: dict[str, Any] = {"token": "secret", "device_id": "d1", "dial": server.dial}
    return connect(URL, **(defaults | options))


async def test_login_says_who_we_are() -> None:
    server = Server()
    requests: list[AuthRequest] = []

    async def script() -> None:
        link = await server.accept()
        requests.append(await link.log_in(user_id=77, node_id="n9"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(script)
        async with connecting(server, platform="desktop", device_id="laptop") as client:
            assert (client.user_id, client.node_id, client.state) == (77, "n9", State.ONLINE)
            assert client.url == URL
    (request,) = requests
    assert (request.token, request.device_id, request.platform) == ("secret", "laptop", "desktop")
    assert request.protocol_version == 1
    assert request.client.startswith("trio-gateway/")


@pytest.mark.parametrize("bad", [{"device_id": "a b"}, {"platform": ""}, {"cursor": -1}])
async def test_names_that_cannot_be_are_refused_at_once(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        async with connecting(Server(), **bad):
            pass


async def test_the_programs_exception_comes_out_as_it_is() -> None:
    server = Server()

    async def script() -> None:
        await (await server.accept()).log_in()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(script)
        with pytest.raises(KeyError, match="mine"):
            async with connecting(server):
                raise KeyError("mine")


async def test_cancelling_leaves_at_once_and_closes_the_link(autojump_clock: MockClock) -> None:
    server = Server()
    links: list[Link] = []

    async def script() -> None:
        links.append(await server.welcome())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(script)
        with trio.move_on_after(5):
            async with connecting(server):
                await trio.sleep_forever()
    assert trio.current_time() < 6
    with pytest.raises(trio.EndOfChannel):
        await links[0].next_frame()


# -- the first connection ----------------------------------------------------------------------------------


async def test_the_first_connection_is_tried_until_the_start_timeout(autojump_clock: MockClock) -> None:
    server = Server()
    server.faults.extend(TransportFailed("connection refused") for _ in range(1000))
    start = trio.current_time()
    with pytest.raises(Unreachable, match="connection refused"):
        async with connecting(server):
            pass
    assert trio.current_time() - start == pytest.approx(10)
    assert len(server.dialled) > 3


async def test_a_server_that_comes_up_late_is_reached(autojump_clock: MockClock) -> None:
    server = Server()
    server.faults.extend(TransportFailed("connection refused") for _ in range(20))
    async with online(server, settings=ClientSettings(start_timeout=math.inf)) as (client, _):
        assert client.statistics().attempts == 21


async def test_what_will_not_change_fails_at_once(autojump_clock: MockClock) -> None:
    server = Server()
    server.faults.append(TransportFailed("HTTP 403 origin", final=True))
    with pytest.raises(Unreachable, match="HTTP 403"):
        async with connecting(server):
            pass
    assert trio.current_time() < 0.1


async def test_a_dial_that_hangs_is_given_up(autojump_clock: MockClock) -> None:
    async def hang(endpoint: object, nursery: object) -> Any:
        await trio.sleep_forever()

    with pytest.raises(Unreachable, match=r"no connection to tcp://gateway.test:9000 within 2 s"):
        async with connect(URL, token="t", device_id="d", dial=hang, settings=ClientSettings(connect_timeout=2)):
            pass


async def test_a_login_without_an_answer_is_given_up(autojump_clock: MockClock) -> None:
    server = Server()
    with pytest.raises(Unreachable, match="no answer to the login in time"):
        async with connecting(server, settings=ClientSettings(login_timeout=3)):
            pass
    assert len(server.dialled) >= 2


async def test_a_fault_of_ours_is_told(autojump_clock: MockClock) -> None:
    async def broken(endpoint: object, nursery: object) -> Any:
        raise ZeroDivisionError("bug")

    with pytest.raises(ClientError, match="fault in the client: ZeroDivisionError") as caught:
        async with connect(URL, token="t", device_id="d", dial=broken):
            pass
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


async def test_login_cut_at_every_byte(autojump_clock: MockClock) -> None:
    """Wherever the link breaks on the way to the session, the next attempt makes it, and nothing is lost."""
    answer = encode(AuthResponse(user_id=1001, node_id="n1", max_frame=65_536), seq=1)
    sync = encode(SyncResponse(messages=(chat(1), chat(2)), next_cursor=2), seq=2)
    stream = answer + sync
    for cut in range(len(stream)):
        server = Server()

        async def script(server: Server = server, cut: int = cut) -> None:
            link = await server.accept()
            await link.stream.send_all(stream[:cut])
            await wait_all_tasks_blocked()
            link.cut()
            await server.welcome([chat(1), chat(2)])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(script)
            async with connecting(server) as client:
                assert [d.server_seq for d in await take(client, 2)] == [1, 2]
                assert client.statistics().attempts == 2


async def test_login_byte_by_byte(autojump_clock: MockClock) -> None:
    server = Server()

    async def script() -> None:
        link = await server.accept()
        for byte in encode(AuthResponse(user_id=1001), seq=1):
            await link.stream.send_all(bytes([byte]))
            await trio.sleep(0.01)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(script)
        async with connecting(server) as client:
            assert client.user_id == 1001


@pytest.mark.parametrize("garbage", [b"\xff" * 64, encode_frame(10, b"nonsense"), encode_frame(2, b"\0" * 40)])
async def test_a_server_that_breaks_the_protocol_is_left(autojump_clock: MockClock, garbage: bytes) -> None:
    server = Server()
    async with online(server) as (client, link):
        await link.stream.send_all(garbage)
        (waiting,) = await states(client, "waiting")
        assert waiting.reason.startswith("the server broke the protocol: ")
        await server.welcome()


async def test_kinds_from_a_newer_server_are_ignored() -> None:
    async with online(Server()) as (client, link):
        known = encode(chat(1))
        await link.stream.send_all(known[:4] + b"\x03\xe7" + known[6:])
        await link.send(chat(1))
        assert [d.server_seq for d in await take(client, 1)] == [1]


# -- the code table ----------------------------------------------------------------------------------------


def by_auth_ack(code: int) -> ErrorMessage | AuthResponse | Kick:
    return AuthResponse(code=code, message="because")


def by_error(code: int) -> ErrorMessage | AuthResponse | Kick:
    return ErrorMessage(code=code, message="because")


def by_kick(code: int) -> ErrorMessage | AuthResponse | Kick:
    return Kick(code=code, message="because")


@pytest.mark.parametrize("code", NEVER)
@pytest.mark.parametrize("told", [by_auth_ack, by_error, by_kick])
async def test_refused_for_good_at_login(autojump_clock: MockClock, code: Code, told: Callable[[int], Any]) -> None:
    if (told is by_error and code is Code.UNKNOWN_TYPE) or (told is by_error and code is Code.INVALID_PAYLOAD):
        return  # as an Error these leave the link open
    server = Server()

    async def script() -> None:
        link = await server.accept()
        _, seq = await link.expect(AuthRequest)
        await link.send(told(code), seq=seq)
        link.cut()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(script)
        with pytest.raises(Refused, match=f"{int(code)} {code.label}: because") as caught:
            async with connecting(server, token=lambda: "t"):
                pass
    assert caught.value.code == code
    assert len(server.dialled) == 1


@pytest.mark.parametrize("code", NEVER)
async def test_thrown_out_for_good(autojump_clock: MockClock, code: Code) -> None:
    """Everything that waits is told, and what had come before is still handed out."""
    server = Server()
    async with online(server) as (client, link):
        await link.send(chat(1), Kick(code=code, message="because"))
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                with pytest.raises(Refused):
                    await client.send("x", to_user=1)

            nursery.start_soon(send)
            assert [d.server_seq for d in await take(client, 1)] == [1]
            with pytest.raises(Refused, match=code.label) as caught:
                await client.__anext__()
        assert caught.value.code == code
        with pytest.raises(Refused):
            client.signal(to_user=1, kind="k")
        closed = (await states(client, "closed"))[0]
        assert (closed.code, closed.reason) == (code, "because")
        assert [each async for each in client.notices] == []
        await trio.sleep(1000)
        assert len(server.dialled) == 1


@pytest.mark.parametrize("code", BACKOFF)
async def test_thrown_out_for_now(autojump_clock: MockClock, code: Code) -> None:
    server = Server()
    async with online(server) as (client, link):
        await link.send(Kick(code=code, message="later"))
        (waiting,) = await states(client, "waiting")
        assert (waiting.code, waiting.reason) == (code, "later")
        assert waiting.delay <= 0.5
        await server.welcome()
        await states(client, "online")


async def test_the_delay_the_server_asks_for_is_kept(autojump_clock: MockClock) -> None:
    server = Server()
    async with online(server) as (client, link):
        await link.send(ErrorMessage(code=Code.RATE_LIMITED, message="slow", retry_after_ms=20_000))
        link.cut()
        (waiting,) = await states(client, "waiting")
        assert 20 <= waiting.delay <= 20.5
        assert waiting.code == Code.RATE_LIMITED
        await server.welcome()


@pytest.mark.parametrize("code", NEW_TOKEN)
async def test_a_text_token_that_is_refused_ends_the_client(autojump_clock: MockClock, code: Code) -> None:
    server = Server()
    async with online(server) as (client, link):
        await link.send(Kick(code=code))
        with pytest.raises(Refused, match="a new token is needed"):
            await client.__anext__()


@pytest.mark.parametrize("kind", ["plain", "async"])
async def test_a_callable_gives_a_fresh_token_for_each_login(autojump_clock: MockClock, kind: str) -> None:
    given = iter(["one", "two", "three"])

    def plain() -> str:
        return next(given)

    async def coroutine() -> str:
        await trio.sleep(1)
        return next(given)

    server = Server()
    async with online(server, token=plain if kind == "plain" else coroutine) as (client, link):
        await link.send(Kick(code=Code.TOKEN_EXPIRED))
        (waiting,) = await states(client, "waiting")
        assert waiting.delay == 0
        after = await server.accept()
        assert (await after.log_in()).token == "two"


async def test_fresh_tokens_that_are_all_refused_end_it(autojump_clock: MockClock) -> None:
    server = Server()

    async def script() -> None:
        for _ in range(3):
            link = await server.accept()
            _, seq = await link.expect(AuthRequest)
            await link.send(AuthResponse(code=Code.USER_BANNED, message="banned"), seq=seq)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(script)
        with pytest.raises(Refused, match="4102 user_banned: banned"):
            async with connecting(server, token=lambda: "t", settings=ClientSettings(start_timeout=math.inf)):
                pass


async def test_a_token_source_that_fails_is_asked_again(autojump_clock: MockClock) -> None:
    calls = 0

    async def source() -> str:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise OSError("token service away")
        if calls == 2:
            await trio.sleep_forever()
        return "" if calls == 3 else "t"

    settings = ClientSettings(start_timeout=100)
    async with online(Server(), token=source, settings=settings) as (client, _):
        told = await states(client, "waiting", "waiting", "waiting", "online")
        assert [each.reason for each in told[:3]] == [
            "no token: OSError: token service away",
            "no token within 10 s",
            "no token: the callable gave no text",
        ]


# -- heartbeats --------------------------------------------------------------------------------------------


async def test_heartbeats_at_the_told_interval(autojump_clock: MockClock) -> None:
    async with online(Server(), heartbeat_interval_ms=7_000) as (client, link), trio.open_nursery() as nursery:
        nursery.start_soon(link.pump)
        await trio.sleep(70.5)
        assert link.beats == 10
        assert client.state == "online"
        nursery.cancel_scope.cancel()


async def test_a_silent_server_is_dead(autojump_clock: MockClock) -> None:
    server = Server()
    async with online(server) as (client, link), trio.open_nursery() as nursery:
        link.mute = True
        start = trio.current_time()
        nursery.start_soon(link.pump)
        (waiting,) = await states(client, "waiting")
        assert trio.current_time() - start == pytest.approx(45, abs=0.1)
        assert waiting.reason.startswith("nothing heard for")
        await server.welcome()
        await states(client, "online")
        nursery.cancel_scope.cancel()


async def test_any_frame_is_a_sign_of_life(autojump_clock: MockClock) -> None:
    async with online(Server()) as (client, link), trio.open_nursery() as nursery:
        link.mute = True
        nursery.start_soon(link.pump)
        for seq in range(1, 40):
            await trio.sleep(9)
            await link.send(chat(seq))
        assert client.state == "online"
        assert client.statistics().logins == 1
        nursery.cancel_scope.cancel()


class Stuck:
    """A link that takes the login and nothing else, and says `words` one after the other."""

    def __init__(self, *words: bytes) -> None:
        self.words = [encode(AuthResponse(user_id=1), seq=1), *words]
        self.taken = 0
        self.closed = False

    async def send_all(self, data: bytes) -> None:
        self.taken += 1
        if self.taken > 1:
            await trio.sleep_forever()

    async def receive_some(self) -> bytes:
        if not self.words:
            await trio.sleep_forever()
        return self.words.pop(0)

    async def aclose(self) -> None:
        self.closed = True
        await trio.lowlevel.checkpoint()


async def test_a_server_that_reads_nothing_is_dead_too(autojump_clock: MockClock) -> None:
    """The writer waits for ever; the heartbeat that it cannot write is not answered."""
    opened: list[Stuck] = []

    async def dial(endpoint: object, nursery: object) -> Stuck:
        await trio.lowlevel.checkpoint()
        opened.append(Stuck())
        return opened[-1]

    async with connect(URL, token="t", device_id="d", dial=dial) as client:
        await states(client, "online", "waiting")
        assert opened[0].closed


async def test_a_server_that_reads_nothing_is_left_on_goaway(autojump_clock: MockClock) -> None:
    opened: list[Stuck] = []

    async def dial(endpoint: object, nursery: object) -> Stuck:
        await trio.lowlevel.checkpoint()
        opened.append(Stuck(encode(GoAway(reconnect_after_ms=1000))))
        return opened[-1]

    async with connect(URL, token="t", device_id="d", dial=dial) as client:
        await client.send("x", to_user=1, wait=None)
        await states(client, "leaving", "waiting")
        assert trio.current_time() == pytest.approx(3, abs=0.1)
        assert opened[0].closed
    assert trio.current_time() < 10


async def test_an_old_error_is_not_the_reason_of_a_later_loss(autojump_clock: MockClock) -> None:
    async with online(Server()) as (client, link):
        await link.send(ErrorMessage(code=Code.RATE_LIMITED, message="slow", retry_after_ms=20_000))
        await trio.sleep(11)
        link.cut()
        (waiting,) = await states(client, "waiting")
        assert (waiting.code, waiting.reason) == (0, "connection lost")


# -- GoAway ------------------------------------------------------------------------------------------------


async def test_goaway_is_obeyed_and_nothing_is_lost(autojump_clock: MockClock) -> None:
    server = Server()
    async with online(server) as (client, link):
        went = trio.current_time()
        await link.send(
            GoAway(
                code=Code.GOING_AWAY,
                message="deploying",
                reconnect_after_ms=2_000,
                jitter_ms=3_000,
                endpoints=("tcp://b.test:1", "tcp://c.test:2"),
            )
        )
        (leaving,) = await states(client, "leaving")
        assert 2 <= leaving.delay <= 5
        assert leaving.reason == "deploying"
        # It stays in use until it is left.
        await link.send(chat(1))
        assert [d.server_seq for d in await take(client, 1)] == [1]
        await client.send("still here", to_user=5, wait=None, msg_id="x1")
        assert (await link.expect(ChatMessage))[0].content == "still here"
        server.faults.append(TransportFailed("b is not up yet"))
        after = await server.welcome([chat(2)])
        left, dialled = zip(*server.dialled[1:], strict=True)
        assert left[0] - went == pytest.approx(leaving.delay, abs=0.01)
        assert dialled == ("tcp://b.test:1", "tcp://c.test:2")
        assert (await after.expect(ChatMessage))[0].msg_id == "x1"
        assert [d.server_seq for d in await take(client, 1)] == [2]
        assert client.url == "tcp://c.test:2"
        await link.pump()  # the old link was closed by us


async def test_a_link_that_ends_during_goaway_is_waited_out(autojump_clock: MockClock) -> None:
    server = Server()
    async with online(server) as (client, link):
        went = trio.current_time()
        await link.send(GoAway(code=Code.GOING_AWAY, reconnect_after_ms=30_000, jitter_ms=0))
        await states(client, "leaving")
        link.cut()
        await server.welcome()
        assert server.dialled[-1][0] - went == pytest.approx(30, abs=0.01)


async def test_goaway_jitter_is_spread(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    delays = []
    for part in (0.0, 0.25, 0.999):
        monkeypatch.setattr(random, "random", lambda part=part: part)
        async with online(Server()) as (client, link):
            await link.send(GoAway(reconnect_after_ms=1_000, jitter_ms=4_000))
            (leaving,) = await states(client, "leaving")
            delays.append(leaving.delay)
    assert delays == pytest.approx([1.0, 2.0, 4.996])


async def test_an_endless_goaway_is_bounded(autojump_clock: MockClock) -> None:
    async with online(Server()) as (client, link):
        await link.send(GoAway(reconnect_after_ms=2**32 - 1, jitter_ms=2**32 - 1))
        (leaving,) = await states(client, "leaving")
        assert leaving.delay == 3600


# -- many lives --------------------------------------------------------------------------------------------


async def test_the_backoff_grows_and_heals(autojump_clock: MockClock) -> None:
    server = Server()
    async with online(server) as (client, link):
        server.faults.extend(TransportFailed("down") for _ in range(20))
        link.cut()
        waits = [each for each in await states(client, *["waiting"] * 20) if isinstance(each, StateChange)]
        assert max(each.delay for each in waits) <= 30
        assert max(each.delay for each in waits) > 10
        after = await server.welcome()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(after.pump)
            await trio.sleep(31)
            nursery.cancel_scope.cancel()
        after.cut()
        _, waiting = await states(client, "online", "waiting")
        assert waiting.delay <= 0.5
        await server.welcome()


async def test_an_unreliable_network_loses_and_doubles_nothing(autojump_clock: MockClock) -> None:
    """Links break at random moments in both directions; a small Logic behind them keeps the books."""
    rng = random.Random(5)
    server = Server()
    inbound = [chat(seq) for seq in range(1, 301)]
    stored: dict[str, str] = {}
    visible = 0

    async def serve() -> None:
        while True:
            link = await server.accept()
            with trio.move_on_after(rng.uniform(0.05, 3)):
                try:
                    await talk(link)
                except* (trio.EndOfChannel, trio.BrokenResourceError):
                    pass
            link.cut()

    async def talk(link: Link) -> None:
        nonlocal visible
        await link.log_in()
        async with trio.open_nursery() as nursery:

            async def push() -> None:
                nonlocal visible
                while True:
                    await trio.sleep(rng.uniform(0, 0.1))
                    visible = min(300, visible + 1)
                    if rng.random() < 0.7:
                        await link.send(inbound[visible - 1])

            nursery.start_soon(push)
            while True:
                frame = await link.next_frame()
                if frame.type == 20:
                    await answer(link, frame)
                elif isinstance(frame, ChatFrame):
                    stored.setdefault(frame.msg_id, frame.content)
                    if rng.random() < 0.8:
                        await link.send(MessageAck(msg_id=frame.msg_id, status=AckStatus.STORED), seq=frame.seq)

    async def answer(link: Link, frame: Any) -> None:
        request = decode(frame)
        assert isinstance(request, SyncRequest)
        last = min(visible, request.cursor + 20)
        await link.send(
            SyncResponse(messages=tuple(inbound[request.cursor : last]), next_cursor=last, has_more=last < visible),
            seq=frame.seq,
        )

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        async with connecting(
            server, settings=ClientSettings(start_timeout=math.inf, send_timeout=10_000, buffered_deliveries=16)
        ) as client:

            async def send() -> None:
                for number in range(100):
                    await client.send(f"text {number}", to_user=5)

            nursery.start_soon(send)
            with trio.fail_after(5000):
                taken = [(await client.__anext__()).server_seq for _ in range(300)]
                while len(stored) < 100 or client.unacknowledged:
                    await trio.sleep(1)
            assert client.statistics().logins > 5
        nursery.cancel_scope.cancel()
    assert taken == list(range(1, 301))
    assert list(stored.values()) == [f"text {number}" for number in range(100)]
