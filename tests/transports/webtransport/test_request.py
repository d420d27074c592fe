"""What every request is answered, and which open a session."""

from __future__ import annotations

import pytest

from gateway.protocol.http3 import H3Code
from gateway.protocol.qpack import Headers
from gateway.transports.settings_webtransport import WebTransportSettings
from gateway.transports.webtransport.request import MalformedRequest, WebTransportRules, judge, offered_protocols
from tests.transports.webtransport.fake import ORIGIN, Client, headers_frame


def answered(**fields: str) -> tuple[int, dict[str, str], str]:
    client = Client()
    client.settle()
    client.connect(**fields)
    return client.answer()


def test_a_connect_is_accepted_by_either_name_with_and_without_origin_and_with_a_query() -> None:
    for name in ("webtransport", "webtransport-h3"):
        assert answered(_protocol=name) == (200, {}, "")
    assert answered(origin=ORIGIN) == (200, {}, "")
    assert answered(origin="HTTPS://CHAT.example.org:443")[0] == 200
    assert answered(_path="/im?room=1")[0] == 200


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "https://chat.example.org.evil",
        "http://chat.example.org",
        "https://chat.example.org:444",
        "x",
        "https://",
    ],
)
def test_t09_foreign_origins_are_refused_in_words(origin: str) -> None:
    status, _, body = answered(origin=origin)
    assert (status, body) == (403, "pages of this origin may not connect\n")


def test_origins_of_the_websocket_count_until_the_settings_have_their_own() -> None:
    shared = WebTransportRules(WebTransportSettings(), ["https://a.example"])
    assert ("https", "a.example", 443) in shared.origins
    own = WebTransportRules(WebTransportSettings(origins=("https://b.example",)), ["https://a.example"])
    assert own.origins == {("https", "b.example", 443)}
    own.allow(["http://127.0.0.1:8090"])
    assert ("http", "127.0.0.1", 8090) in own.origins
    with pytest.raises(ValueError, match=r"webtransport\.origins"):
        own.allow(["nonsense"])
    with pytest.raises(ValueError, match=r"webtransport\.path"):
        WebTransportRules(WebTransportSettings(path="/a b"))


def test_other_requests_get_a_short_helpful_answer() -> None:
    status, fields, body = answered(_method="GET", _protocol="")
    assert (status, fields["allow"]) == (405, "CONNECT")
    assert "new WebTransport" in body
    assert int(fields["content-length"]) == len(body)
    assert answered(_method="GET", _protocol="", _path="/")[0] == 404
    assert answered(_path="/ws")[0] == 404
    assert answered(_protocol="connect-udp")[0] == 405
    assert "opened at /im" in answered(_path="/favicon.ico")[2]


def test_the_content_of_a_request_is_not_wanted() -> None:
    client = Client()
    client.connect(0, _method="POST", _protocol="")
    assert (client.peer.stops, client.peer.resets, client.peer.finished) == ({0: H3Code.NO_ERROR}, {}, [0])
    client.say(0, b"\x00\x80\x00\xff\xffcontent without end")
    assert client.http3.statistics()["streams"] == 1
    client.reset(0, H3Code.NO_ERROR)
    assert client.http3.statistics()["streams"] == 0


def test_the_subprotocol_is_chosen_when_it_is_offered_among_others() -> None:
    assert answered(wt_available_protocols='"im.v2", "im.v1";q=1')[1] == {"wt-protocol": '"im.v1"'}
    assert answered(wt_available_protocols='"im.v2"')[1] == {}
    assert answered(wt_available_protocols="im.v1")[1] == {}, "not a string: the field is ignored"
    assert answered(sec_webtransport_http3_draft02="1")[1] == {"sec-webtransport-http3-draft": "draft02"}


def test_lists_of_strings_are_read_as_such_or_not_at_all() -> None:
    assert offered_protocols([b'"a"', b'"b" , "c\\"d"']) == ["a", "b", 'c"d']
    for wrong in (b"a", b'"a" "b"', b'"a', b'("a" "b")', b"1", b'"a";x="y", "b"'):
        assert offered_protocols([wrong]) in ([], ["a", "b"])


GOOD: Headers = [
    (b":method", b"GET"),
    (b":scheme", b"https"),
    (b":authority", b"gw"),
    (b":path", b"/"),
]


@pytest.mark.parametrize(
    "headers",
    [
        GOOD[1:],
        [*GOOD[:3]],
        [GOOD[0], GOOD[0], *GOOD[1:]],
        [*GOOD, (b":protocol", b"webtransport")],
        [*GOOD, (b":status", b"200")],
        [*GOOD, (b"Upper", b"x")],
        [*GOOD, (b"a b", b"x")],
        [*GOOD, (b"a", b"x\ny")],
        [*GOOD, (b"a", b"x\0y")],
        [*GOOD, (b"connection", b"close")],
        [*GOOD, (b"transfer-encoding", b"chunked")],
        [(b"a", b"x"), *GOOD],
        [(b":method", b"GET"), (b":scheme", b"https"), (b":path", b"/")],
        [(b":method", b"CONNECT"), (b":protocol", b"webtransport"), (b":scheme", b"https"), (b":authority", b"gw")],
        [(b":method", b"CONNECT"), (b":authority", b"gw"), (b":path", b"/")],
        [(b":method", b"CONNECT"), (b":protocol", b"webtransport"), *GOOD[1:3], (b":path", b"")],
    ],
)
def test_what_is_no_request_resets_its_stream_and_nothing_else(headers: Headers) -> None:
    rules = WebTransportRules(WebTransportSettings())
    with pytest.raises(MalformedRequest):
        judge(headers, rules)
    client = Client()
    client.settle()
    client.say(4, headers_frame(headers))
    assert client.peer.resets == {4: H3Code.MESSAGE_ERROR}
    assert client.peer.closed is None
    client.connect()
    assert client.answer()[0] == 200


def test_two_origins_are_refused() -> None:
    client = Client()
    client.settle()
    fields: Headers = [(b":method", b"CONNECT"), (b":protocol", b"webtransport"), *GOOD[1:3], (b":path", b"/im")]
    client.say(0, headers_frame([*fields, (b"origin", ORIGIN.encode()), (b"origin", ORIGIN.encode())]))
    assert client.answer()[0] == 400
