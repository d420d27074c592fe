"""Servers and loads as processes of their own, and the CPU they use. What is measured lives in the benchmarks."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import threading
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ENVIRONMENT = {"PYTHONPATH": str(HERE.parent), "PATH": "/usr/bin:/bin"}


def cpu(pid: int) -> tuple[int, int]:
    """Nanoseconds that a process's threads have run, user and system, and have waited for a core to run on."""
    tasks = Path(f"/proc/{pid}/task")
    times = [(task / "schedstat").read_text().split() for task in tasks.iterdir()]
    return sum(int(each[0]) for each in times), sum(int(each[1]) for each in times)


def on_core(number: int) -> None:
    """Stay on one core: 0 for servers, -1 (the last) for loads."""
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[number]})


def prefer(pid: int, nice: int) -> None:
    """Give a process, and the session that it is in, precedence over others (below 0, as root) or the reverse."""
    if nice:
        os.setpriority(os.PRIO_PROCESS, pid, nice)
        group = Path(f"/proc/{pid}/autogroup")  # sessions share the processor first, their processes after that
        if group.exists():
            group.write_text(str(nice))


def until_told() -> None:
    """In a server: leave when whoever started us has ended or closed our input."""
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()


def run(script: str, *words: object, timeout: float = 120) -> Any:
    """Run a load to its end; its one line of JSON."""
    done = subprocess.run(
        [sys.executable, str(HERE / script), *map(str, words)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=HERE.parent,
        env=ENVIRONMENT,
        timeout=timeout,
    )
    return json.loads(done.stdout)


class Server:
    """A process that prints one line when it is ready and serves until it is stopped."""

    def __init__(self, script: str, name: str, *words: object) -> None:
        self.name = name
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / script), name, *map(str, words)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=HERE.parent,
            env=ENVIRONMENT,
        )
        self.said = self.line()

    def line(self) -> str:
        """The next line that it prints."""
        assert self.process.stdout is not None
        said = self.process.stdout.readline().strip()
        if not said:
            raise SystemExit(f"{self.name} ended early")
        return said

    def tell(self, text: str) -> str:
        """Write it a line; its answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()
        return self.line()

    def stop(self) -> None:
        """End the process and wait for it."""
        self.process.kill()
        self.process.communicate()


def versions(packages: Iterable[str]) -> dict[str, str]:
    """What was measured with."""
    return {"python": platform.python_version()} | {name: version(name) for name in packages}
