"""The policy alone: back-off, the code table, GoAway, tokens, endpoints."""

from __future__ import annotations

import itertools

import pytest

from gateway.client import ClientSettings, Refused, Unreachable, UnsupportedTransport
from gateway.client.backoff import Backoff
from gateway.client.connection import Ending
from gateway.client.endpoint import Endpoint, parse_url, told_endpoints
from gateway.client.reconnection import Reconnection
from gateway.protocol.codes import Code, Reconnect, reconnect_after

ORIGIN = parse_url("tcps://a.test:9000")


def policy(*, renewable: bool = False, random: float = 1.0, origin: Endpoint = ORIGIN) -> Reconnection:
    return Reconnection(
        [origin], ClientSettings(backoff_base=1, backoff_cap=8), renewable=renewable, random=lambda: random
    )


def test_backoff_doubles_to_its_cap_with_full_jitter() -> None:
    backoff = Backoff(0.5, 30, lambda: 1.0)
    assert [backoff.delay() for _ in range(8)] == [0.5, 1, 2, 4, 8, 16, 30, 30]
    backoff.reset()
    assert backoff.delay() == 0.5
    assert Backoff(0.5, 30, lambda: 0.0).delay() == 0.0
    for _ in range(5000):
        assert backoff.delay() <= 30


@pytest.mark.parametrize("code", [code for code in Code if reconnect_after(code) is Reconnect.NEVER])
def test_never_is_never(code: Code) -> None:
    for renewable, online_for in itertools.product((False, True), (-1.0, 100.0)):
        with pytest.raises(Refused, match=f"{int(code)} {code.label}: go away") as caught:
            policy(renewable=renewable).after(Ending(code=code, reason="go away", online_for=online_for), 0)
        assert caught.value.code == code


@pytest.mark.parametrize("code", [code for code in Code if code and reconnect_after(code) is Reconnect.WITH_BACKOFF])
def test_backoff_codes_back_off(code: Code) -> None:
    line = policy()
    assert [line.after(Ending(code=code), 0) for _ in range(5)] == [1, 2, 4, 8, 8]


@pytest.mark.parametrize("code", [0, 1006, 4999, 3000])
def test_a_lost_link_backs_off(code: int) -> None:
    assert policy().after(Ending(code=code, online_for=1), 0) == 1


@pytest.mark.parametrize("code", [code for code in Code if reconnect_after(code) is Reconnect.WITH_NEW_TOKEN])
def test_a_refused_token_needs_a_new_one(code: Code) -> None:
    with pytest.raises(Refused, match="a new token is needed"):
        policy().after(Ending(code=code), 0)
    line = policy(renewable=True)
    assert line.after(Ending(code=code, online_for=50), 0) == 0.0
    assert line.after(Ending(code=code), 0) == 1.0
    with pytest.raises(Refused):
        line.after(Ending(code=code), 0)


def test_a_login_between_forgives_earlier_refusals() -> None:
    line = policy(renewable=True)
    for _ in range(10):
        line.after(Ending(code=Code.TOKEN_EXPIRED, online_for=50), 0)
        line.after(Ending(code=Code.TOKEN_EXPIRED), 0)


def test_only_a_connection_that_lived_resets_the_backoff() -> None:
    """A server that takes us in and throws us out at once must not be hammered."""
    line = policy()
    assert [line.after(Ending(code=Code.SLOW_CONSUMER, online_for=1), 0) for _ in range(4)] == [1, 2, 4, 8]
    assert line.after(Ending(online_for=8), 0) == 1


def test_the_server_may_ask_for_more_patience() -> None:
    line = policy(random=0.5)
    assert line.after(Ending(code=Code.NODE_FULL, retry_after=20), 0) == 20.5


def test_goaway_is_waited_out_then_its_endpoints_come_first() -> None:
    line = policy()
    told = ("tcps://b.test:1", "ftp://c.test:2", "tcp://plain.test:3", "d.test:4", "tcps://b.test:1", "rubbish//")
    ending = Ending(code=Code.GOING_AWAY, not_before=107.0, endpoints=told, online_for=50)
    assert line.after(ending, 100.0) == 7.0
    seen = []
    for _ in range(4):
        seen.append(line.endpoints[0].url)
        line.after(Ending(reason="refused"), 0)
    assert seen == ["tcps://b.test:1", "tcps://d.test:4", "tcps://a.test:9000", "tcps://b.test:1"]
    assert line.after(Ending(code=Code.GOING_AWAY, not_before=90.0), 100.0) == 0.0
    assert line.endpoints[0] == ORIGIN


def race() -> Reconnection:
    origins = [parse_url(url) for url in ("quic://a.test:1", "wss://a.test", "tcps://a.test")]
    return Reconnection(origins, ClientSettings(), renewable=False, random=lambda: 0.0)


def test_what_carried_a_session_begins_the_next_race_and_is_forgotten_when_it_fails() -> None:
    line = race()
    assert [each.scheme for each in line.endpoints] == ["quic", "wss", "tcps"]
    line.won(line.endpoints[1])
    line.after(Ending(online_for=3), 0)
    assert [each.scheme for each in line.endpoints] == ["wss", "quic", "tcps"]
    line.after(Ending(reason="nobody there"), 0)
    assert [each.scheme for each in line.endpoints] == ["quic", "wss", "tcps"]


def test_a_link_that_led_to_no_login_begins_last() -> None:
    line = race()
    line.won(line.endpoints[0])
    line.after(Ending(reason="no answer to the login in time"), 0)
    assert [each.scheme for each in line.endpoints] == ["wss", "tcps", "quic"]


def test_after_a_goaway_the_race_comes_last() -> None:
    line = race()
    line.won(line.endpoints[0])
    line.after(Ending(code=Code.GOING_AWAY, not_before=1.0, endpoints=("b.test:9",), online_for=1), 0)
    seen = []
    for _ in range(2):
        seen.append([each.url for each in line.endpoints])
        line.after(Ending(reason="refused"), 0)
    assert seen == [["quic://b.test:9"], ["quic://a.test:1", "wss://a.test:443/ws", "tcps://a.test:9000"]]


def test_an_endpoint_that_works_is_kept() -> None:
    line = policy()
    line.after(Ending(code=Code.GOING_AWAY, not_before=1.0, endpoints=("b.test:1",)), 0)
    line.after(Ending(online_for=3), 0)
    assert line.endpoints[0].host == "b.test"


def test_what_will_not_change_ends_the_first_attempt_only() -> None:
    with pytest.raises(Unreachable, match="HTTP 403"):
        policy().after(Ending(reason="HTTP 403", final=True), 0)
    line = policy()
    line.after(Ending(online_for=1), 0)
    assert line.after(Ending(reason="HTTP 403", final=True), 0) > 0


def test_plain_text_may_follow_plain_text() -> None:
    origin = parse_url("ws://a.test/im")
    followed = told_endpoints(origin, ["b.test:81", "wss://c.test/x", "tcp://d.test"])
    assert [each.url for each in followed] == ["ws://b.test:81/im", "wss://c.test:443/x", "tcp://d.test:9000"]


def test_a_flood_of_endpoints_is_cut() -> None:
    assert len(told_endpoints(ORIGIN, [f"h{number}.test" for number in range(1000)])) == 16


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("tcp://127.0.0.1:9000", Endpoint("tcp", "127.0.0.1", 9000)),
        ("tcp://host", Endpoint("tcp", "host", 9000)),
        ("TCPS://Host:1/", Endpoint("tcps", "host", 1)),
        ("ws://h:8080", Endpoint("ws", "h", 8080, "/ws")),
        ("ws://h/ws?a=b", Endpoint("ws", "h", 80, "/ws?a=b")),
        ("wss://[::1]/x", Endpoint("wss", "::1", 443, "/x")),
        ("quic://h", Endpoint("quic", "h", 8443)),
        ("https://h:8443", Endpoint("https", "h", 8443, "/im")),
    ],
)
def test_urls(url: str, wanted: Endpoint) -> None:
    assert parse_url(url) == wanted
    assert parse_url(wanted.url) == wanted


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://h:1/im", "'http' is not supported; supported are quic://"),
        ("quic://h:1/im", "has no path"),
        ("", "not a URL of a gateway"),
        ("127.0.0.1:9000", "not a URL of a gateway"),
        ("tcp://", "names no host"),
        ("tcp://h:99999", "is not a URL"),
        ("tcp://h:0", "port 0"),
        ("tcp://h:1/path", "has no path"),
        ("tcp://u:secret@h:1", "user, password"),
        ("ws://h/a b", "percent-encoded"),
        ("ws://h/ä", "percent-encoded"),
        ("ws://[::1", "is not a URL"),
    ],
)
def test_bad_urls(url: str, why: str) -> None:
    with pytest.raises(UnsupportedTransport, match=why) as caught:
        parse_url(url)
    assert "secret" not in str(caught.value)
