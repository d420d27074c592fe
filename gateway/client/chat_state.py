"""How far this terminal has shown its messages: one small file for each user, device and server.

A server is known by its URLs, for it tells no name of its store: who was reached at one of them before is the same
again, also at another one given beside it. Two servers at one URL are told apart by nobody; two URLs of one server that
were never given together show their messages once each, which is the better mistake.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

DIRECTORY = "chat"
"""In the data directory."""


class StateUnreadable(Exception):
    """The file is there and says nothing we understand."""


class _Content(msgspec.Struct, forbid_unknown_fields=True):
    user: int
    device: str
    cursor: int
    urls: list[str] = []
    url: str = ""
    """What stood there when a server had one URL."""

    def concerns(self, urls: Sequence[str], user: int, device: str) -> bool:
        known = {*self.urls, self.url}
        return (self.user, self.device) == (user, device) and self.cursor >= 0 and not known.isdisjoint(urls)


class ChatState:
    """Written after each message shown: what was interrupted in between is shown again rather than never."""

    def __init__(self, path: Path, urls: Sequence[str], user: int, device: str) -> None:
        self.path = path
        self._content = _Content(urls=[*urls], user=user, device=device, cursor=0)
        self._superseded: list[Path] = []

    @property
    def cursor(self) -> int:
        """Everything up to this server_seq was shown."""
        return self._content.cursor

    def load(self) -> None:
        """Take over what is there; a file that is not there, or is another's, is a beginning.

        Raises:
            StateUnreadable: it cannot be read.
        """
        found = _read(self.path)
        mine = self._content
        if found is not None and found.concerns(mine.urls, mine.user, mine.device):
            mine.urls = [*dict.fromkeys([*mine.urls, *found.urls, *filter(None, [found.url])])]
            mine.cursor = found.cursor

    def save(self, cursor: int) -> None:
        """Replace the file in one step. Raises OSError."""
        if cursor == self._content.cursor and self.path.exists():
            return
        self._content.cursor = cursor
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = self.path.with_name(f"{self.path.name}.{os.getpid()}")
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(msgspec.json.encode(self._content))
        draft.replace(self.path)
        for each in self._superseded:
            each.unlink(missing_ok=True)
        self._superseded.clear()

    def supersede(self, others: Sequence[Path]) -> None:
        """These turned out to be of the same server: they are removed when this one is written."""
        self._superseded = [*others]


def open_state(data_dir: Path, urls: Sequence[str], user: int, device: str) -> ChatState:
    """The state for a server with these URLs, loaded. Of several files the one that has shown least counts.

    Raises:
        StateUnreadable: one of this user and device cannot be read.
    """
    found = []
    for path in sorted((data_dir / DIRECTORY).glob(f"{user}-{device}-*.json")):
        content = _read(path)
        if content is not None and content.concerns(urls, user, device):
            found.append((content.cursor, path))
    found.sort()
    path = found[0][1] if found else state_path(data_dir, urls[0], user, device)
    state = ChatState(path, urls, user, device)
    state.load()
    state.supersede([other for _, other in found[1:]])
    return state


def state_path(data_dir: Path, url: str, user: int, device: str) -> Path:
    """Where a new state is kept: readable names, the URL by its digest."""
    digest = hashlib.sha256(url.encode()).hexdigest()[:12]
    return data_dir / DIRECTORY / f"{user}-{device}-{digest}.json"


def _read(path: Path) -> _Content | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Content)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        raise StateUnreadable(f"cannot read {path}: {error}; without it everything is shown again") from None
