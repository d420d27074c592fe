"""Sending and fetching files against a scripted server: what it refuses, promises and breaks."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path
from typing import Any

import pytest
import trio

from gateway.client import ClientSettings, Delivery, FileFailed, OfferedFile, file_of
from gateway.client import files as transfers
from gateway.protocol.codes import Code
from gateway.protocol.files import CHUNK, WINDOW, announcement, file_reference
from gateway.protocol.messages import FileAck, FileChunk, FileOffer, MessageAck
from gateway.protocol.types import AckStatus
from tests.client.server import Link, Server, next_notice, online
from tests.client.test_sending import during

CONTENT = random.Random(9).randbytes(600_000)
REFERENCE = file_reference(1001, "f-1")
THEIRS = file_reference(1002, "f-1")
IMPATIENT = ClientSettings(file_patience=0.3)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "a.bin"
    path.write_bytes(CONTENT)
    return path


def file(content: bytes = CONTENT) -> OfferedFile:
    """What somebody sent."""
    return OfferedFile(
        reference=THEIRS,
        from_user=1002,
        to_user=1001,
        name="a.bin",
        size=len(content),
        sha256=hashlib.sha256(content).digest(),
    )


async def receive(link: Link, start: int = 0, *, until: int = len(CONTENT), step: int = WINDOW // 2) -> bytes:
    """Take an offer and its chunks, acknowledging as a node does; what came."""
    offer, seq = await link.expect(FileOffer)
    await link.send(FileAck(file_id=offer.file_id, received=start), seq=seq)
    content, told = b"", start
    while start + len(content) < until:
        chunk, _ = await link.expect(FileChunk)
        assert chunk.offset == start + len(content)
        content += chunk.data
        if start + len(content) - told >= step:
            told = start + len(content)
            await link.send(FileAck(file_id=offer.file_id, received=told), seq=seq)
    return content


async def announce(link: Link, status: AckStatus = AckStatus.STORED, code: int = 0) -> None:
    """Say that all is there, and that it was announced."""
    await link.send(FileAck(file_id="f-1", received=len(CONTENT), message=REFERENCE))
    await link.send(MessageAck(msg_id=REFERENCE, status=status, code=code, server_seq=7))


async def test_it_is_sent_until_it_is_announced(source: Path) -> None:
    async with online(Server()) as (client, link):

        async def script() -> None:
            assert await receive(link) == CONTENT
            await announce(link)

        sent = await during(lambda: client.send_file(source, to_user=1002, file_id="f-1"), script)
        assert (sent.reference, sent.size, sent.server_seq) == (REFERENCE, len(CONTENT), 7)


async def test_never_more_than_the_window_is_ahead(source: Path) -> None:
    async with online(Server()) as (client, link), trio.open_nursery() as nursery:
        nursery.start_soon(lambda: client.send_file(source, to_user=1002, file_id="f-1"))
        offer, seq = await link.expect(FileOffer)
        await link.send(FileAck(file_id=offer.file_id), seq=seq)
        for _ in range(WINDOW // CHUNK):
            await link.expect(FileChunk)
        with trio.move_on_after(0.2):
            await link.expect(FileChunk)
            pytest.fail("more than the window")
        nursery.cancel_scope.cancel()


async def test_a_file_that_stands_still_is_given_up(source: Path) -> None:
    async with online(Server(), settings=IMPATIENT) as (client, link):
        with pytest.raises(FileFailed, match="nothing moved") as failed:
            await during(lambda: client.send_file(source, to_user=1002), lambda: link.expect(FileOffer))
        assert failed.value.code == 0


async def test_a_node_that_takes_short_frames_gets_short_chunks(tmp_path: Path) -> None:
    path = tmp_path / "small"
    path.write_bytes(CONTENT[:5000])
    async with online(Server(), max_frame=1_500) as (client, link):

        async def script() -> None:
            assert await receive(link, until=5000) == CONTENT[:5000]
            await announce(link)

        await during(lambda: client.send_file(path, to_user=1002, file_id="f-1"), script)


async def test_over_a_cut_only_the_rest_is_sent(source: Path) -> None:
    server = Server()
    async with online(server, settings=ClientSettings(backoff_base=0.001)) as (client, link):

        async def script() -> None:
            first = await receive(link, until=10 * CHUNK)
            link.cut()
            again = await server.welcome()
            assert first + await receive(again, len(first)) == CONTENT
            await announce(again)

        await during(lambda: client.send_file(source, to_user=1002, file_id="f-1"), script)


async def test_it_is_offered_again_until_somebody_says_that_it_is_announced(source: Path) -> None:
    async with online(Server(), settings=ClientSettings(resend_after=0.05)) as (client, link):

        async def script() -> None:
            await receive(link)
            await link.send(FileAck(file_id="f-1", received=len(CONTENT), message=REFERENCE))
            await link.expect(FileOffer)
            await announce(link)

        await during(lambda: client.send_file(source, to_user=1002, file_id="f-1"), script)
        assert not [frame for frame in link.frames if frame.type == 42]


async def test_not_waiting_for_the_announcement(source: Path) -> None:
    async with online(Server()) as (client, link):

        async def script() -> None:
            await receive(link)
            await link.send(FileAck(file_id="f-1", received=len(CONTENT), message=REFERENCE))

        sent = await during(lambda: client.send_file(source, to_user=1002, file_id="f-1", announced=False), script)
        assert sent.server_seq == 0


@pytest.mark.parametrize("code", [Code.FRAME_TOO_LARGE, Code.INVALID_PAYLOAD, Code.RATE_LIMITED])
async def test_some_refusals_are_final(source: Path, code: Code) -> None:
    async with online(Server()) as (client, link):

        async def script() -> None:
            offer, seq = await link.expect(FileOffer)
            await link.send(FileAck(file_id=offer.file_id, code=code, message="no"), seq=seq)

        with pytest.raises(FileFailed, match="no") as failed:
            await during(lambda: client.send_file(source, to_user=1002), script)
        assert (failed.value.code, failed.value.reason) == (code, "no")


async def test_others_are_worth_another_try(source: Path) -> None:
    async with online(Server(), settings=ClientSettings(backoff_cap=0.01)) as (client, link):

        async def script() -> None:
            for code in (Code.TOO_MANY_STREAMS, Code.NODE_FULL, Code.UPSTREAM_UNAVAILABLE, Code.HEARTBEAT_TIMEOUT):
                offer, seq = await link.expect(FileOffer)
                await link.send(FileAck(file_id=offer.file_id, code=code), seq=seq)
            await receive(link)
            await announce(link)

        await during(lambda: client.send_file(source, to_user=1002, file_id="f-1"), script)


async def test_a_file_that_logic_rejects(source: Path) -> None:
    async with online(Server()) as (client, link):

        async def script() -> None:
            await receive(link)
            await announce(link, AckStatus.REJECTED, Code.INVALID_PAYLOAD)

        with pytest.raises(FileFailed) as failed:
            await during(lambda: client.send_file(source, group_id=7, file_id="f-1"), script)
        assert failed.value.code == Code.INVALID_PAYLOAD


async def test_what_cannot_be_sent_is_not_tried(source: Path, tmp_path: Path) -> None:
    async with online(Server()) as (client, link):
        wrong: list[dict[str, Any]] = [
            {},
            {"to_user": 1, "group_id": 2},
            {"to_user": -1},
            {"to_user": 1, "file_id": "a b"},
            {"to_user": 1, "name": "../x"},
            {"to_user": 1, "content_type": "\n"},
        ]
        for fields in wrong:
            with pytest.raises(ValueError, match=r"must|give"):
                await client.send_file(source, **fields)
        with pytest.raises(FileNotFoundError):
            await client.send_file(tmp_path / "nothing", to_user=1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: client.send_file(source, to_user=1002, file_id="f-1"))
            await link.expect(FileOffer)
            with pytest.raises(ValueError, match="under way"):
                await client.send_file(source, to_user=1002, file_id="f-1")
            nursery.cancel_scope.cancel()


# -- fetching ---------------------------------------------------------------------------------------------------------


async def hand_out(link: Link, content: bytes = CONTENT, *, end: int | None = None) -> int:
    """Answer one request for a file; from which byte it was asked for."""
    ask, seq = await link.expect(FileAck)
    assert (ask.file_id, ask.code) == (THEIRS, 0)
    end = len(content) if end is None else end
    for offset in range(ask.received, end, CHUNK):
        data = content[offset : min(end, offset + CHUNK)]
        chunk = FileChunk(file_id=THEIRS, offset=offset, data=data, last=offset + len(data) == len(content))
        await link.send(chunk, seq=seq)
    return ask.received


async def test_it_is_fetched_to_its_place(tmp_path: Path) -> None:
    async with online(Server()) as (client, link):

        async def script() -> None:
            stray = FileChunk(file_id=THEIRS, offset=5 * CHUNK, data=b"not asked for", last=True)
            await link.send(stray, FileChunk(file_id=REFERENCE, data=b"neither"), FileAck(file_id="x", code=4004))
            assert await hand_out(link) == 0

        await during(lambda: client.fetch(file(), tmp_path / "new" / "a.bin"), script)
        assert (tmp_path / "new" / "a.bin").read_bytes() == CONTENT


async def test_over_a_cut_only_the_rest_is_fetched(tmp_path: Path) -> None:
    server = Server()
    async with online(server, settings=ClientSettings(backoff_base=0.001)) as (client, link):

        async def script() -> None:
            await hand_out(link, end=10 * CHUNK)
            while not (tmp_path / "got.part").exists() or (tmp_path / "got.part").stat().st_size < 10 * CHUNK:
                await trio.sleep(0.001)
            link.cut()
            assert await hand_out(await server.welcome()) == 10 * CHUNK

        await during(lambda: client.fetch(file(), tmp_path / "got"), script)
        assert (tmp_path / "got").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("sent", "why"),
    [(CONTENT[:-1] + b"!", "other bytes"), (CONTENT[:-1], "other bytes"), (CONTENT + b"!", "more bytes")],
)
async def test_what_is_not_what_its_sender_promised_is_not_kept(tmp_path: Path, sent: bytes, why: str) -> None:
    async with online(Server()) as (client, link):

        async def script() -> None:
            await hand_out(link, sent)

        with pytest.raises(FileFailed, match=why):
            await during(lambda: client.fetch(file(), tmp_path / "got"), script)
    assert not (tmp_path / "got").exists()
    assert not (tmp_path / "got.part").exists()


async def test_a_fetch_that_is_refused(tmp_path: Path) -> None:
    async with online(Server(), settings=ClientSettings(backoff_cap=0.01)) as (client, link):

        async def refuse() -> None:
            _, seq = await link.expect(FileAck)
            await link.send(FileAck(file_id=THEIRS, code=Code.TOO_MANY_STREAMS), seq=seq)
            _, seq = await link.expect(FileAck)
            await link.send(FileAck(file_id=THEIRS, code=Code.INVALID_PAYLOAD, message="no such file"), seq=seq)

        with pytest.raises(FileFailed, match="no such file"):
            await during(lambda: client.fetch(file(), tmp_path / "got"), refuse)


async def test_a_fetch_that_stands_still_is_given_up(tmp_path: Path) -> None:
    async with online(Server(), settings=IMPATIENT) as (client, link):
        with pytest.raises(FileFailed, match="nothing moved"):
            await during(lambda: client.fetch(file(), tmp_path / "got"), lambda: link.expect(FileAck))


async def test_a_server_faster_than_the_disk_is_asked_to_stop_and_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfers, "MOST_WAITING", 2 * CHUNK)
    asked: list[tuple[int, int]] = []
    async with online(Server(), settings=ClientSettings(backoff_cap=0.001)) as (client, link):

        async def script() -> None:
            done = False
            while not done:
                ask, seq = await link.expect(FileAck)
                asked.append((ask.received, ask.code))
                if ask.code:
                    continue
                burst = [
                    FileChunk(
                        file_id=THEIRS,
                        offset=offset,
                        data=CONTENT[offset : offset + CHUNK],
                        last=offset + CHUNK >= len(CONTENT),
                    )
                    for offset in range(ask.received, min(len(CONTENT), ask.received + 10 * CHUNK), CHUNK)
                ]
                done = burst[-1].last and len(burst) <= 2
                await link.send(*burst, seq=seq)

        await during(lambda: client.fetch(file(), tmp_path / "got"), script)
        assert (tmp_path / "got").read_bytes() == CONTENT
        assert Code.SLOW_CONSUMER in [code for _, code in asked]


async def test_an_offer_is_a_notice_and_a_claim_is_checked() -> None:
    offer = FileOffer(file_id=THEIRS, to_user=1001, name="a.bin", size=3, sha256=b"x" * 32)
    async with online(Server()) as (client, link):
        await link.send(FileOffer(file_id="no reference"), FileOffer(file_id=THEIRS, name="../x"), offer)
        notice = await next_notice(client, OfferedFile)
        assert (notice.reference, notice.from_user, notice.size) == (THEIRS, 1002, 3)
    good = Delivery(msg_id=THEIRS, from_user=1002, content=announcement(offer), content_type=40)
    assert file_of(good) is not None
    assert file_of(Delivery(msg_id=THEIRS, from_user=1003, content=announcement(offer), content_type=40)) is None
    assert file_of(Delivery(msg_id=THEIRS, from_user=1002, content=announcement(offer))) is None
