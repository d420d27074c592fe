"""The codec against wsproto: what its client writes we read, and the reverse; broken streams both judge alike."""

from __future__ import annotations

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from wsproto.frame_protocol import FrameProtocol, Opcode, ParseFailed

from gateway.protocol.websocket import ServerCodec, close_frame, pong_frame, server_header
from tests.websocket.frames import close_body, frame

LIMIT = 1 << 20

patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # the machine may be loaded

payloads = st.one_of(st.binary(max_size=200), st.integers(0, 70_000).map(lambda n: bytes(i & 0xFF for i in range(n))))
texts = st.text(alphabet="az\0ü€𝄞", max_size=60)
keys = st.binary(min_size=4, max_size=4)
Message = tuple[int, bytes]


@st.composite
def conversations(draw: st.DrawFn) -> tuple[bytes, list[Message], bytes]:
    """What a client of wsproto writes: the stream, the messages in it, the pongs that it asks for."""
    client = FrameProtocol(client=True, extensions=[])
    stream, messages, pongs = b"", [], b""
    for _ in range(draw(st.integers(1, 6))):
        if draw(st.booleans()):
            text = draw(texts)
            pieces: list[bytes | str] = [text[:20], text[20:]] if draw(st.booleans()) else [text]
            messages.append((1, text.encode()))
        else:
            data = draw(payloads)
            cut = draw(st.integers(0, len(data)))
            pieces = [data[:cut], data[cut:]] if draw(st.booleans()) else [data]
            messages.append((2, data))
        for n, piece in enumerate(pieces):
            stream += client.send_data(piece, fin=n == len(pieces) - 1)
            if draw(st.integers(0, 3)) == 0:
                ping = draw(st.binary(max_size=125))
                stream += client.ping(ping)
                pongs += pong_frame(ping)
    return stream, messages, pongs


def raw(payload: object) -> bytes:
    """A payload of wsproto's, whatever it made of it."""
    return payload.encode() if isinstance(payload, str) else bytes(payload)  # type: ignore[call-overload]


def chunks(data: bytes, cuts: list[int]) -> list[bytes]:
    at = sorted({cut % (len(data) + 1) for cut in cuts})
    return [data[a:b] for a, b in zip([0, *at], [*at, len(data)], strict=True)]


@patient
@given(conversations(), st.lists(st.integers(0, 1 << 20), max_size=8))
def test_what_wsproto_writes_is_read(conversation: tuple[bytes, list[Message], bytes], cuts: list[int]) -> None:
    stream, messages, pongs = conversation
    reader = ServerCodec(LIMIT, messages=True)
    found, answers = [], b""
    for chunk in chunks(stream, cuts):
        assert reader.feed(chunk) == b""
        found += reader.messages()
        answers += reader.answers()
    assert (found, answers) == (messages, pongs)
    assert not reader.ended
    assert reader.pending == 0


@patient
@given(st.lists(st.tuples(payloads, keys, st.booleans()), max_size=8), st.lists(st.integers(0, 1 << 20), max_size=8))
def test_the_stream_is_the_payload(parts: list[tuple[bytes, bytes, bool]], cuts: list[int]) -> None:
    data, going = b"", False
    for payload, key, fin in parts:
        data += frame(payload, 0 if going else 2, fin=fin, key=key)
        going = not fin
    reader = ServerCodec(LIMIT)
    assert b"".join(reader.feed(chunk) for chunk in chunks(data, cuts)) == b"".join(payload for payload, _, _ in parts)
    assert not reader.attention


@patient
@given(payloads, st.sampled_from([1000, 1001, 4100, 4300]), texts, st.binary(max_size=125))
def test_wsproto_reads_what_we_write(payload: bytes, code: int, reason: str, ping: bytes) -> None:
    peer = FrameProtocol(client=True, extensions=[])
    peer.receive_bytes(pong_frame(ping) + server_header(len(payload)) + payload + close_frame(code, reason))
    frames = list(peer.received_frames())
    assert (frames[0].opcode, frames[0].payload) == (Opcode.PONG, ping)
    assert b"".join(raw(f.payload) for f in frames[1:-1]) == payload
    told = reason.encode()[:123].decode("utf-8", "ignore")
    assert frames[-1].payload == (code, told)


Verdict = tuple[list[Message], list[bytes], str]


def theirs(stream: bytes) -> Verdict:
    """What wsproto makes of a stream."""
    peer = FrameProtocol(client=False, extensions=[])
    peer.receive_bytes(stream)
    messages: list[Message] = []
    pings: list[bytes] = []
    gathered, opcode = b"", 0
    try:
        for found in peer.received_frames():
            if found.opcode is Opcode.CLOSE:
                return messages, pings, f"closed {int(found.payload[0])}"
            if found.opcode is Opcode.PING:
                pings.append(raw(found.payload))
            elif found.opcode is not Opcode.PONG:
                opcode = opcode or int(found.opcode)
                gathered += raw(found.payload)
                if found.message_finished:
                    messages.append((opcode, gathered))
                    gathered, opcode = b"", 0
    except ParseFailed as failure:
        return messages, pings, f"refused {int(failure.code)}"
    return messages, pings, "going on"


def ours(stream: bytes) -> Verdict:
    reader = ServerCodec(1 << 61, messages=True, max_fragments=1 << 20, credit=1 << 20)
    reader.feed(stream)
    answers = FrameProtocol(client=True, extensions=[])
    answers.receive_bytes(reader.answers())
    pings = [raw(pong.payload) for pong in answers.received_frames()]
    verdict = "going on"
    if reader.failure is not None:
        verdict = f"refused {reader.failure[0]}"
    elif reader.peer_close is not None:
        verdict = f"closed {reader.peer_close[0]}"
    return reader.messages(), pings, verdict


@st.composite
def broken_streams(draw: st.DrawFn) -> bytes:
    """Mostly frames, of which some are not what they should be."""
    stream = b""
    for _ in range(draw(st.integers(1, 5))):
        opcode = draw(st.sampled_from([0, 0, 1, 1, 2, 2, 8, 9, 10, 3, 15]))
        body = draw(st.one_of(st.binary(max_size=140), texts.map(str.encode)))
        if opcode == 8 and draw(st.booleans()):
            body = close_body(
                draw(st.sampled_from([0, 999, 1000, 1004, 1006, 1011, 1016, 2999, 3000, 4999, 5000])), body
            )
        stream += frame(
            body,
            opcode,
            fin=draw(st.integers(0, 3)) > 0,
            rsv=draw(st.sampled_from([0] * 12 + [1, 2, 4])),
            key=draw(st.one_of(keys, keys, keys, keys, st.none())),
        )
    cut = draw(st.integers(0, len(stream)))
    return stream if draw(st.booleans()) else stream[:cut]


@patient
@given(broken_streams())
@example(frame(b"", 8))
@example(frame(b"\xed", 1, fin=False))
@example(b"\x00\x80")
def test_both_judge_alike(stream: bytes) -> None:
    mine, wsprotos = ours(stream), theirs(stream)
    if mine[2].startswith("refused") and wsprotos[2] == "going on":
        # We refuse as soon as the header tells; wsproto waits for all of it.
        wsprotos = (*wsprotos[:2], theirs(stream + bytes(150))[2])
    if wsprotos[2].startswith("refused") and mine[2].startswith("refused"):
        # Which of two faults in one frame is named first is anybody's choice; pings and messages before it are not.
        mine, wsprotos = (*mine[:2], "refused"), (*wsprotos[:2], "refused")
    assert mine == wsprotos
