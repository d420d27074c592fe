"""What `make cluster` runs, as a person at a terminal has it: a line per process, and Ctrl-C leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
import trio

from examples.cluster import ORDER, ROOT
from tests.cluster.world import PATIENCE


def alive(pid: int) -> bool:
    """Whether there is such a process."""
    return Path(f"/proc/{pid}").exists()


def within(folder: Path) -> list[Path]:
    """What is in a folder."""
    return list(folder.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
async def test_ctrl_c_or_a_closed_terminal_ends_all_of_it(tmp_path: Path, number: signal.Signals) -> None:
    cluster = partial(
        trio.run_process,
        [sys.executable, "-m", "examples.cluster"],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        check=False,
    )
    told = ""
    started: dict[str, str] = {}
    try:
        async with trio.open_nursery() as nursery:
            process: trio.Process = await nursery.start(cluster)
            assert process.stdout is not None
            with trio.fail_after(2 * PATIENCE):
                while "Ctrl-C ends everything" not in told:
                    told += (await process.stdout.receive_some()).decode()
                    started = dict(re.findall(r"^  (\S+) +pid (\d+) ", told, re.MULTILINE))
                assert set(started) == {name for names in ORDER for name in names}
                assert all(alive(int(pid)) for pid in started.values())
                assert within(tmp_path)
                process.send_signal(number)
                while chunk := await process.stdout.receive_some():
                    told += chunk.decode()
                assert await process.wait() == 0
        assert "ending" in told
        assert not [name for name, pid in started.items() if alive(int(pid))]
        assert not within(tmp_path)
    finally:
        for pid in started.values():  # where it failed
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
