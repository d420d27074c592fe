"""Writing lines without ever waiting for whoever reads them: a stalled log reader must not stall the node."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from typing import TextIO

MOST_WAITING = 1_000
"""Lines between the node and the stream; further ones are dropped and counted."""
LAST_WORDS = 1.0
"""Seconds that closing waits for the stream to take what is queued."""


class LineWriter(logging.Handler):
    """Formats on the caller's thread and writes on its own, a daemon: it never holds up the process's end."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._waiting: queue.Queue[str | None] = queue.Queue(MOST_WAITING)
        self.dropped = 0
        """Lines that were never written because the stream did not take them."""
        self._told = 0
        self._thread = threading.Thread(target=self._write, name="log-writer", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue one line; drop it when there is no room."""
        try:
            self._waiting.put_nowait(self.format(record))
        except queue.Full:
            self.dropped += 1
        except Exception:  # a line that cannot be made must not end what wanted it written
            self.dropped += 1

    def close(self) -> None:
        """Write what is queued, for at most `LAST_WORDS` seconds."""
        if self._thread.is_alive():
            with contextlib.suppress(queue.Full):
                self._waiting.put(None, timeout=LAST_WORDS)
            self._thread.join(LAST_WORDS)
        super().close()

    def _write(self) -> None:
        while (line := self._waiting.get()) is not None:
            try:
                self._stream.write(self._told_of_losses() + line + "\n")
                if self._waiting.empty():
                    self._stream.flush()
            except (OSError, ValueError):  # the stream is gone; the node goes on without its lines
                self.dropped += 1
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def _told_of_losses(self) -> str:
        lost, self._told = self.dropped - self._told, self.dropped
        if not lost:
            return ""
        about = logging.LogRecord("gateway.logs", logging.WARNING, "", 0, "log_lines_dropped", None, None)
        about.count = lost
        return self.format(about) + "\n"
