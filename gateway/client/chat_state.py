"""How far this terminal has shown its messages: one small file for each (URL, user, device)."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import msgspec

DIRECTORY = "chat"
"""In the data directory."""


class StateUnreadable(Exception):
    """The file is there and says nothing we understand."""


class _Content(msgspec.Struct, forbid_unknown_fields=True):
    url: str
    user: int
    device: str
    cursor: int


class ChatState:
    """Written after each message shown: what was interrupted in between is shown again rather than never."""

    def __init__(self, path: Path, url: str, user: int, device: str) -> None:
        self.path = path
        self._content = _Content(url=url, user=user, device=device, cursor=0)

    @property
    def cursor(self) -> int:
        """Everything up to this server_seq was shown."""
        return self._content.cursor

    def load(self) -> None:
        """Raises StateUnreadable; a file that is not there is a beginning."""
        try:
            found = msgspec.json.decode(self.path.read_bytes(), type=_Content)
        except FileNotFoundError:
            return
        except (OSError, msgspec.MsgspecError) as error:
            raise StateUnreadable(f"cannot read {self.path}: {error}; without it everything is shown again") from None
        mine = (self._content.url, self._content.user, self._content.device)
        if (found.url, found.user, found.device) == mine and found.cursor >= 0:
            self._content = found

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


def state_path(data_dir: Path, url: str, user: int, device: str) -> Path:
    """Where the state of this chat is kept: readable names, the URL by its digest."""
    digest = hashlib.sha256(url.encode()).hexdigest()[:12]
    return data_dir / DIRECTORY / f"{user}-{device}-{digest}.json"
