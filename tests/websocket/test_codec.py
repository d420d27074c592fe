"""The codec by tables: what is taken, what is refused with which code, at every cut point."""

from __future__ import annotations

import gc
import sys
from itertools import pairwise

import pytest

from gateway.protocol.websocket import ServerCodec, close_frame, close_frame_for, pong_frame, server_header
from tests.websocket.frames import close_body, frame

LIMIT = 100_000

Outcome = tuple[bytes, list[tuple[int, bytes]], bytes, object, object]


def codec(*, messages: bool = False, limit: int = LIMIT, max_fragments: int = 64, credit: int = 32) -> ServerCodec:
    return ServerCodec(limit, messages=messages, max_fragments=max_fragments, credit=credit)


def outcome(reader: ServerCodec, *chunks: bytes) -> Outcome:
    """Everything the codec has to say after these chunks."""
    payload, messages, answers = b"", [], b""
    for chunk in chunks:
        payload += reader.feed(chunk)
        if reader.attention:
            messages += reader.messages()
            answers += reader.answers()
    return payload, messages, answers, reader.failure, reader.peer_close


STREAMS = {
    "small": frame(b"hello"),
    "empty": frame(b""),
    "two bytes of length": frame(bytes(range(256)) * 2),
    "eight bytes of length": frame(b"x" * 70_000),
    "several": frame(b"one") + frame(b"") + frame(b"three" * 40) + frame(b"4"),
    "fragments": frame(b"one", fin=False) + frame(b"two", 0, fin=False) + frame(b"", 0, fin=False) + frame(b"3", 0),
    "ping within a message": frame(b"a" * 200, fin=False) + frame(b"ping", 9) + frame(b"b" * 9, 0) + frame(b"", 10),
    "close": frame(b"last") + frame(close_body(1000, b"bye \xe2\x82\xac"), 8) + frame(b"never seen"),
    "close without a code": frame(b"", 8),
    "refused at the end": frame(b"good") + frame(b"a", fin=False) + frame(b"bad", rsv=4),
    "text": frame("grün€𝄞".encode(), 1) + frame(b"\xe2\x82", 1, fin=False) + frame(b"\xac", 0),
    "not text": frame(b"fine", 1) + frame(b"\xed\xa0\x80", 1),
}


@pytest.mark.parametrize("messages", [False, True], ids=["stream", "messages"])
@pytest.mark.parametrize("name", STREAMS)
def test_every_cut_point_gives_the_same(name: str, messages: bool) -> None:
    data = STREAMS[name]
    whole = outcome(codec(messages=messages), data)
    step = max(1, len(data) // 500)
    for at in range(0, len(data) + 1, step):
        assert outcome(codec(messages=messages), data[:at], data[at:]) == whole
    if len(data) < 2_000:
        assert outcome(codec(messages=messages), *(data[i : i + 1] for i in range(len(data)))) == whole
        assert outcome(codec(messages=messages), *(data[i : i + 7] for i in range(0, len(data), 7))) == whole


def test_what_the_streams_hold() -> None:
    found = {name: outcome(codec(messages=True), data) for name, data in STREAMS.items()}
    assert found["several"][1] == [(2, b"one"), (2, b""), (2, b"three" * 40), (2, b"4")]
    assert found["fragments"][1] == [(2, b"onetwo3")]
    assert found["ping within a message"][1:3] == ([(2, b"a" * 200 + b"b" * 9)], pong_frame(b"ping"))
    assert found["close"][1:] == ([(2, b"last")], b"", None, (1000, "bye €"))
    assert found["close without a code"][3:] == (None, (1005, ""))
    assert found["refused at the end"][1:4] == ([(2, b"good")], b"", (1002, "reserved bits are set"))
    assert found["text"][1] == [(1, "grün€𝄞".encode()), (1, "€".encode())]
    assert found["not text"][1:4] == ([(1, b"fine")], b"", (1007, "text is not UTF-8"))


def test_in_stream_mode_payload_is_passed_on_as_it_comes() -> None:
    reader = codec()
    data = frame(b"0123456789", fin=False) + frame(b"abcdef", 0)
    assert reader.feed(data[:9]) == b"012"
    assert reader.pending == 0
    assert reader.feed(data[9:20]) == b"3456789"
    assert reader.pending == 4
    assert reader.feed(data[20:]) == b"abcdef"
    assert not reader.attention


@pytest.mark.parametrize(
    "size", [0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 63, 64, 124, 125, 126, 127, 1000, 65_535, 65_536]
)
@pytest.mark.parametrize("key", [b"\x00\x00\x00\x00", b"\x01\x02\x03\x04", b"\xff\x00\xff\x80"])
def test_unmasking(size: int, key: bytes) -> None:
    payload = bytes((7 * i + 3) & 0xFF for i in range(size))
    data = frame(payload, key=key)
    assert codec().feed(data) == payload
    head = len(data) - size
    for at in (head + 1, head + 3, head + 6, head + 9):
        if at < len(data):
            reader = codec()
            assert reader.feed(data[:at]) + reader.feed(data[at:]) == payload


REFUSED = {
    "unmasked": (frame(b"x", key=None), 1002),
    "RSV1": (frame(b"x", rsv=4), 1002),
    "RSV2": (frame(b"x", rsv=2), 1002),
    "RSV3": (frame(b"x", rsv=1), 1002),
    **{f"opcode {n}": (frame(b"x", n), 1002) for n in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
    "nothing to continue": (frame(b"x", 0), 1002),
    "a message within a message": (frame(b"x", fin=False) + frame(b"y"), 1002),
    "text within a message": (frame(b"x", fin=False) + frame(b"y", 1), 1002),
    "fragmented ping": (frame(b"x", 9, fin=False), 1002),
    "fragmented close": (frame(close_body(1000), 8, fin=False), 1002),
    "long ping": (frame(b"x" * 126, 9), 1002),
    "long pong, the header alone": (frame(b"", 10, length=126)[:2], 1002),
    "long close": (frame(b"x" * 200, 8), 1002),
    "length 5 in two bytes": (frame(b"12345", width=2), 1002),
    "length 125 in two bytes": (frame(b"", length=125, width=2), 1002),
    "length 126 in eight bytes": (frame(b"", length=126, width=8), 1002),
    "length 65535 in eight bytes": (frame(b"", length=65_535, width=8), 1002),
    "length 2^63": (frame(b"", length=1 << 63, width=8), 1002),
    "length 2^62": (frame(b"", length=1 << 62, width=8), 1009),
    "length 2^62, before the key": (frame(b"", length=1 << 62, width=8)[:10], 1009),
    "over the limit by one": (frame(b"", length=LIMIT + 1), 1009),
    "over the limit together": (frame(b"x" * LIMIT, fin=False) + frame(b"y", 0), 1009),
    "over the limit, the sum overflows": (frame(b"x", fin=False) + frame(b"", 0, length=(1 << 63) - 1), 1009),
    "a text": (frame(b"hello", 1), 1003),
    "a text, the header alone": (frame(b"hello", 1)[:2], 1003),
    "half a close code": (frame(b"\x03", 8), 1002),
    **{
        f"close code {n}": (frame(close_body(n), 8), 1002)
        for n in (0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535)
    },
    "close reason": (frame(close_body(1000, b"\xc0\xaf"), 8), 1007),
    "close reason cut within a character": (frame(close_body(1000, b"\xe2\x82"), 8), 1007),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    data, code = REFUSED[name]
    reader = codec()
    reader.feed(data + b"whatever follows" * 10)
    assert reader.ended
    assert reader.attention
    assert reader.failure is not None
    assert reader.failure[0] == code
    assert reader.failure[1]
    assert reader.peer_close is None
    assert reader.pending == 0
    assert reader.feed(frame(b"more")) == b""
    bytewise = codec()
    for i in range(len(data)):
        bytewise.feed(data[i : i + 1])
    assert bytewise.failure == reader.failure


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1011, 1012, 1014, 3000, 3999, 4000, 4403, 4999])
def test_close_codes_that_are_heard(code: int) -> None:
    reader = codec()
    reader.feed(frame(close_body(code, b"why"), 8))
    assert (reader.ended, reader.failure, reader.peer_close) == (True, None, (code, "why"))


def test_the_limit_itself_is_allowed() -> None:
    assert codec().feed(frame(b"x" * LIMIT)) == b"x" * LIMIT
    assert codec(limit=5).feed(frame(b"12345")) == b"12345"
    small = codec(limit=5)
    assert small.feed(frame(b"123456")) == b""
    assert small.failure == (1009, "messages hold at most 5 bytes")


def test_t08_fragments_are_counted() -> None:
    allowed = frame(b"", fin=False) + frame(b"", 0, fin=False) * 62 + frame(b"end", 0)
    assert codec().feed(allowed * 2) == b"endend"
    reader = codec()
    empty = frame(b"", 0, fin=False)
    reader.feed(frame(b"", fin=False) + empty * 63)
    assert not reader.ended
    reader.feed(empty)
    assert reader.failure == (1009, "messages have at most 64 fragments")


def test_t08_control_frames_spend_credit() -> None:
    reader = codec(credit=3)
    reader.feed(frame(b"1", 9) + frame(b"", 10) + frame(b"2", 9))
    assert reader.answers() == pong_frame(b"1") + pong_frame(b"2")
    assert not reader.attention
    assert reader.credit == 0
    reader.credit = 1
    reader.feed(frame(b"3", 9) * 2)
    assert reader.failure == (1008, "too many pings")
    assert reader.answers() == pong_frame(b"3")


def test_after_our_own_close_only_the_peers_counts() -> None:
    reader = codec()
    assert reader.feed(frame(b"cut in two")[:9]) == b"cut"
    reader.close()
    assert reader.feed(frame(b"cut in two")[9:] + frame(b"late") + frame(b"ping", 9)) == b""
    assert reader.answers() == b""
    assert not reader.ended
    reader.feed(frame(close_body(4000), 8))
    assert reader.peer_close == (4000, "")


INVALID_TEXT = [
    bytes.fromhex(text)
    for text in (
        *("80", "bf", "c080", "c1bf", "e08080", "e09fbf", "eda080", "edbfbf", "f0808080", "f08fbfbf", "f4908080"),
        *("f5808080", "ff", "c328", "e28228", "e228a1", "f09d8428"),
    )
]


@pytest.mark.parametrize("bad", INVALID_TEXT)
@pytest.mark.parametrize("before", [b"", b"1234567", b"12345678", "grün grün".encode()])
def test_text_fails_on_the_first_impossible_byte(bad: bytes, before: bytes) -> None:
    text = before + bad
    first = next(at for at in range(len(text)) if not could_go_on(text[: at + 1]))
    data = frame(text, 1, length=125)
    reader = codec(messages=True)
    for i in range(6 + first):
        reader.feed(data[i : i + 1])
        assert not reader.ended
    reader.feed(data[6 + first : 7 + first])
    assert reader.failure == (1007, "text is not UTF-8")


def could_go_on(prefix: bytes) -> bool:
    """Whether some continuation makes it UTF-8, by asking Python."""
    tails = [
        b"",
        b"\x80",
        b"\xbf",
        b"\x80\x80",
        b"\xbf\xbf",
        b"\x80\x80\x80",
        b"\xbf\xbf\xbf",
        b"\x90\x80\x80",
        b"\x9f\x80",
    ]
    for tail in [*tails, b"\xa0\x80", b"\x8f\x80\x80", b"\x90\x80"]:
        try:
            (prefix + tail).decode()
        except UnicodeDecodeError:
            continue
        return True
    return False


def test_every_character_is_text() -> None:
    text = "".join(chr(n) for n in range(0x110000) if not 0xD800 <= n <= 0xDFFF).encode()
    reader = codec(messages=True, limit=1 << 24)
    reader.feed(frame(text, 1))
    assert [len(message) for _, message in reader.messages()] == [len(text)]


def test_messages_are_gathered_within_the_limit_only() -> None:
    reader = codec(messages=True)
    reader.feed(frame(b"x" * 1000, fin=False))
    reader.feed(frame(b"y" * 1000, 0, fin=False))
    assert reader.pending == 2000
    reader.feed(frame(b"", 0, length=LIMIT))
    assert reader.failure is not None
    assert reader.pending == 0


def test_headers() -> None:
    assert server_header(0) == b"\x82\x00"
    assert server_header(125) == b"\x82\x7d"
    assert server_header(126) == b"\x82\x7e\x00\x7e"
    assert server_header(65_535) == b"\x82\x7e\xff\xff"
    assert server_header(65_536, 1) == b"\x81\x7f" + (65_536).to_bytes(8, "big")
    for length, opcode in ((-1, 2), (1, 16), (1, -1), (126, 9)):
        with pytest.raises(ValueError, match="no frame"):
            server_header(length, opcode)


def test_close_frames() -> None:
    assert close_frame(1005) == b"\x88\x00"
    assert close_frame(4300, "full") == b"\x88\x06\x10\xccfull"
    assert close_frame_for(0, "bye") == b"\x88\x05\x03\xe8bye"
    assert close_frame_for(17, "") == b"\x88\x02\x03\xf3"
    for code in (0, 999, 1006, 1015, 5000, -1, 70_000):
        with pytest.raises(ValueError, match="no close code"):
            close_frame(code)
    for filler in range(4):
        long = close_frame(1000, "x" * filler + "€" * 100)
        assert len(long) <= 127
        assert set(long[4:].decode()) <= set("x€")
    with pytest.raises(ValueError, match="no frame"):
        pong_frame(b"x" * 126)


def test_arguments() -> None:
    for limit, max_fragments in ((0, 64), (1 << 62, 64), (5, 0)):
        with pytest.raises(ValueError, match="positive"):
            ServerCodec(limit, max_fragments=max_fragments)
    with pytest.raises(TypeError):
        codec().feed(None)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        codec().feed(bytearray(b"x"))  # type: ignore[arg-type]


def test_an_idle_codec_is_small() -> None:
    reader = codec()
    reader.feed(frame(b"hello"))
    assert sys.getsizeof(reader) < 200
    assert all(part is None or isinstance(part, type) for part in gc.get_referents(reader))


def test_nothing_is_kept_of_what_was_handed_out() -> None:
    reader = codec()
    taken = [reader.feed(frame(bytes([n]) * 64)) for n in range(100)]
    assert taken == [bytes([n]) * 64 for n in range(100)]
    assert all(first is not second for first, second in pairwise(taken))
