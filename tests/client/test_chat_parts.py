"""What the chat prints, remembers and reads; the whole program is in test_chat_program."""

from __future__ import annotations

import io
import json
import os
import pty
import stat
import time
from pathlib import Path
from typing import Any

import pytest
import trio

from gateway.client.chat import ChatOptions, chat
from gateway.client.chat_files import ChatFiles, free_path
from gateway.client.chat_input import LONGEST_LINE, read_lines
from gateway.client.chat_screen import Machines, People, amount, moment, printable
from gateway.client.chat_state import ChatState, StateUnreadable, open_state, state_path
from gateway.client.messages import Complaint, Delivery, Event, OfferedFile, Receipt, Signal, State, StateChange, Synced
from gateway.protocol.files import file_reference
from gateway.protocol.types import AckStatus

URL = "tcp://127.0.0.1:9000"


def people() -> tuple[People, io.StringIO]:
    output = io.StringIO()
    return People(1002, output), output


def told(output: io.StringIO) -> list[str]:
    return output.getvalue().splitlines()


def delivery(seq: int, content: str = "hej", *, missed: bool = False, sender: int = 1001, group: int = 0) -> Delivery:
    return Delivery(
        msg_id=f"m{seq}",
        from_user=sender,
        to_user=0 if group else 1002,
        group_id=group,
        content=content,
        sent_at=int(time.time() * 1000),
        server_seq=seq,
        missed=missed,
    )


def test_missed_messages_are_marked_and_counted() -> None:
    screen, output = people()
    for seq in (1, 2, 3):
        screen.delivery(delivery(seq, f"text {seq}", missed=True))
    screen.notice(Synced(missed=3, cursor=3))
    screen.delivery(delivery(4, "now"))
    lines = told(output)
    assert lines[0] == "-- missed while away:"
    assert [line.split(": ")[1] for line in lines[1:4]] == ["text 1", "text 2", "text 3"]
    assert lines[4] == "-- 3 missed"
    assert lines[5].endswith(" 1001: now")


def test_the_count_comes_after_the_last_missed_one() -> None:
    """The Sync is told before the program has taken everything."""
    screen, output = people()
    screen.delivery(delivery(1, missed=True))
    screen.notice(Synced(missed=2, cursor=2))
    screen.delivery(delivery(2, missed=True))
    assert told(output)[-1] == "-- 2 missed"
    screen.notice(Synced(missed=0, cursor=2))
    assert told(output)[-1] == "-- 2 missed"


def test_nothing_missed() -> None:
    screen, output = people()
    screen.notice(Synced(missed=0, cursor=9))
    assert told(output) == ["-- nothing missed"]


def test_ticks_grow_and_never_go_back() -> None:
    screen, output = people()
    screen.sent("a", "hello there, this is a line that is longer than forty characters")
    for status in (AckStatus.ACCEPTED, AckStatus.STORED, AckStatus.STORED, AckStatus.READ, AckStatus.DELIVERED):
        screen.notice(Receipt(msg_id="a", status=status))
    screen.notice(Receipt(msg_id="somebody else's", status=AckStatus.READ))
    short = "hello there, this is a line that is lon…"
    assert told(output) == [f"✓  {short}", f"✓✓ read: {short}"]


def test_a_rejected_line_says_why() -> None:
    screen, output = people()
    screen.sent("a", "hello")
    screen.notice(Receipt(msg_id="a", status=AckStatus.REJECTED, code=4402))
    screen.failed("long", "too long")
    assert told(output) == ["✗ hello: 4402 upstream_unavailable", "✗ long: too long"]


def test_state_lines() -> None:
    screen, output = people()
    for state in (State.CONNECTING, State.WAITING, State.ONLINE):
        screen.notice(StateChange(state=state, url=URL))
    screen.notice(StateChange(state=State.WAITING, url=URL, code=4403, reason="silence", delay=1.25))
    screen.notice(StateChange(state=State.ONLINE, url=URL))
    screen.notice(StateChange(state=State.LEAVING, url=URL, code=4400, reason="deploy", delay=3))
    assert told(output) == [
        f"-- connected to {URL} (TCP)",
        "-- 4403 heartbeat_timeout: silence; connecting again in 1.2 s",
        f"-- connected again to {URL} (TCP)",
        "-- the server is going away (deploy); changing over in 3.0 s",
    ]


def test_who_said_it() -> None:
    screen, output = people()
    screen.delivery(delivery(1, sender=1002))
    screen.delivery(delivery(2, group=7))
    screen.notice(Signal(from_user=1001, kind="typing"))
    screen.notice(Event(kind="news"))
    screen.notice(Complaint(code=4004, reason="no"))
    assert [line.split(" ", 1)[1] for line in told(output)] == [
        "you, elsewhere to 1002: hej",
        "1001 in group 7: hej",
        "1001: typing",
        "event news",
        "the server says 4004 invalid_payload: no",
    ]


def test_nobody_else_steers_this_terminal() -> None:
    assert printable("a\x1b[31m\r\nb\u202e\x00ä✓") == "a\\x1b[31m\\r\\nb\\u202e\\x00ä✓"
    screen, output = people()
    screen.delivery(delivery(1, "\x1b]0;owned\x07"))
    assert "\x1b" not in output.getvalue()


@pytest.mark.parametrize("unix_ms", [0, 2**63, 2**64 - 1, 253_402_300_800_000 * 1000])
def test_any_timestamp_can_be_shown(unix_ms: int) -> None:
    assert moment(unix_ms)


def test_machines_read_json() -> None:
    output = io.StringIO()
    screen = Machines(output)
    screen.sent("a", "ä\n")
    screen.delivery(delivery(1))
    screen.failed("x", "why")
    for notice in (
        Receipt(msg_id="a", status=AckStatus.STORED),
        StateChange(state=State.ONLINE, url=URL),
        Synced(missed=0, cursor=1),
        Signal(from_user=1, kind="k", data=b"\xff"),
    ):
        screen.notice(notice)
    lines = [json.loads(line) for line in told(output)]
    assert [line["type"] for line in lines] == [
        "sent",
        "message",
        "failed",
        "receipt",
        "state",
        "synced",
        "signal",
    ]
    assert lines[0]["content"] == "ä\n"
    assert lines[3]["status"] == "stored"
    assert lines[6]["data"] == "ff"


def test_state_is_kept_in_one_step_and_private(tmp_path: Path) -> None:
    path = state_path(tmp_path / "data", URL, 1002, "terminal")
    state = ChatState(path, [URL], 1002, "terminal")
    state.load()
    assert state.cursor == 0
    state.save(7)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    again = ChatState(path, [URL], 1002, "terminal")
    again.load()
    assert again.cursor == 7


def test_state_belongs_to_one_url_user_and_device(tmp_path: Path) -> None:
    paths = {
        state_path(tmp_path, *key)
        for key in ((URL, 1, "a"), (URL, 2, "a"), (URL, 1, "b"), ("ws://127.0.0.1:9000/ws", 1, "a"))
    }
    assert len(paths) == 4
    shared = tmp_path / "shared"
    ChatState(shared, [URL], 1, "a").save(9)
    other = ChatState(shared, [URL], 2, "a")
    other.load()
    assert other.cursor == 0


def test_a_server_is_known_by_any_url_that_reached_it(tmp_path: Path) -> None:
    one, two, three = "quic://a:1", "wss://a:2/ws", "tcp://a:3"
    open_state(tmp_path, [one], 1, "a").save(5)
    open_state(tmp_path, [two], 1, "a").save(9)
    state = open_state(tmp_path, [two, one], 1, "a")
    assert state.cursor == 5  # the one that has shown less
    state.save(12)
    assert open_state(tmp_path, [one], 1, "a").cursor == open_state(tmp_path, [two], 1, "a").cursor == 12
    assert len([*state.path.parent.iterdir()]) == 1
    for other in (open_state(tmp_path, [three], 1, "a"), open_state(tmp_path, [one], 1, "b")):
        assert other.cursor == 0


def test_a_state_of_one_url_as_it_was_written_before(tmp_path: Path) -> None:
    path = state_path(tmp_path, URL, 1, "a")
    path.parent.mkdir()
    path.write_text(f'{{"url": "{URL}", "user": 1, "device": "a", "cursor": 4}}')
    assert open_state(tmp_path, ["quic://a:1", URL], 1, "a").cursor == 4


@pytest.mark.parametrize("content", [b"", b"{", b'{"cursor": "x"}', b"\xff"])
async def test_a_broken_state_is_told(tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "state"
    path.write_bytes(content)
    with pytest.raises(StateUnreadable, match="without it everything is shown again"):
        ChatState(path, [URL], 1, "a").load()
    assert await chat(ChatOptions(urls=[URL], token="t", user=1, to=2, state=path)) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"urls": ["gopher://x"]}, "not supported"),
        ({"urls": []}, "no URL was given"),
        ({"user": 0}, "say who you are"),
        ({"to": 0}, "whom or which group"),
        ({"group": 3}, "whom or which group"),
        ({"device": "a b"}, "the device must be"),
    ],
)
async def test_wrong_options_are_one_line(
    tmp_path: Path, wrong: dict[str, object], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options: dict[str, object] = {"urls": [URL], "token": "t", "user": 1, "to": 2, "data_dir": tmp_path}
    assert await chat(ChatOptions(**(options | wrong))) == 2  # type: ignore[arg-type]
    error = capsys.readouterr().err
    assert error.startswith("chat: ")
    assert why in error
    assert error.count("\n") == 1


async def lines_of(descriptor: int) -> list[str]:
    with trio.fail_after(10):
        return [line async for line in read_lines(descriptor)]


async def test_lines_from_a_pipe() -> None:
    read, write = os.pipe()
    os.write(write, "one\r\ntwo \n\nÄ".encode() + b"\xff")
    os.close(write)
    assert await lines_of(read) == ["one", "two ", "", "Ä\ufffd"]
    os.close(read)


async def test_lines_from_a_file(tmp_path: Path) -> None:
    """epoll refuses regular files."""
    path = tmp_path / "input"
    path.write_bytes(b"a\nb\n" + b"x" * (LONGEST_LINE * 2 + 5))
    with path.open("rb") as file:
        lines = await lines_of(file.fileno())
    assert lines[:2] == ["a", "b"]
    assert "".join(lines[2:]) == "x" * (LONGEST_LINE * 2 + 5)
    nothing = os.open("/dev/null", os.O_RDONLY)
    assert await lines_of(nothing) == []
    os.close(nothing)


async def test_lines_from_a_terminal() -> None:
    master, slave = pty.openpty()
    os.write(master, b"hello\n\x04")
    assert await lines_of(slave) == ["hello"]
    os.close(master)
    assert await lines_of(slave) == []
    os.close(slave)


async def test_waiting_for_a_line_can_be_cancelled() -> None:
    read, write = os.pipe()
    with trio.move_on_after(0.01) as scope:
        await lines_of(read)
    assert scope.cancelled_caught
    os.close(read)
    os.close(write)


def a_file(number: int = 1, *, name: str = "a.txt", sender: int = 1001, size: int = 5, group: int = 0) -> OfferedFile:
    return OfferedFile(
        reference=file_reference(sender, f"f-{number}"),
        from_user=sender,
        name=name,
        size=size,
        sha256=b"x" * 32,
        group_id=group,
    )


def test_files_are_numbered_and_shown_once(tmp_path: Path) -> None:
    screen, output = people()
    files = ChatFiles(screen, tmp_path, to=1001, group=0)
    for _ in range(2):
        files.offered(a_file())
        files.offered(a_file(2, name="b\x1b[31m.txt", size=1_500_000, group=7, sender=1002))
    assert told(output) == [
        "-- 1001 sends a file: a.txt (5 bytes); /fetch 1",
        "-- you, elsewhere, sent a file to group 7: b\\x1b[31m.txt (1.5 MB); /fetch 2",
    ]


def test_a_machine_is_told_of_files_in_json() -> None:
    output = io.StringIO()
    screen = Machines(output)
    screen.file(3, a_file())
    screen.file_done("/tmp/a", "1001-x", fetched=True)
    first, second = map(json.loads, told(output))
    assert (first["type"], first["number"], first["sha256"]) == ("file", 3, "78" * 32)
    assert second == {"type": "file_fetched", "path": "/tmp/a", "reference": "1001-x"}


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (999_999, "1000.0 kB"), (20_971_520, "21.0 MB"),
     (2**53, "9.0 PB")],
)  # fmt: skip
def test_amounts_are_for_people(size: int, text: str) -> None:
    assert amount(size) == text


def test_a_senders_name_is_never_a_path_and_never_hidden(tmp_path: Path) -> None:
    for name in ("../x", "a/b", "", "..", "a\0"):
        with pytest.raises(ValueError, match="name must"):
            free_path(tmp_path, name)
    assert free_path(tmp_path, ".bashrc") == tmp_path / "bashrc"
    assert free_path(tmp_path, "...") == tmp_path / "file"
    (tmp_path / "a.tar.gz").touch()
    (tmp_path / "plain").touch()
    assert free_path(tmp_path, "a.tar.gz") == tmp_path / "a.tar (2).gz"
    assert free_path(tmp_path, "plain") == tmp_path / "plain (2)"


def test_what_is_no_command_is_said(tmp_path: Path) -> None:
    files = ChatFiles(people()[0], tmp_path, to=1001, group=0)
    client: Any = None
    for line in ("/sendx a", "/send", "send a", "/fetch x", "/fetch -1", " /send a", "/help"):
        assert not files.command(line, client)
