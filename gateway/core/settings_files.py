"""What an operator may turn about files. `config` composes it; every field says its unit and reason."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from gateway.core.settings import Count, Seconds, Settings

FILES_FOLDER = "files"
"""The store's name in `data_dir`."""


class FileSettings(Settings, frozen=True):
    """Files that clients send to users and groups: where they are kept, how long, and how much of it."""

    enabled: bool = True
    """Whether clients may send and fetch files at all."""
    directory: str = ""
    """Where they are kept; empty: `files` in `data_dir`. Nodes on different machines need one directory that all of
    them see (NFS 4 or the like, with flock): a file is fetched from the directory of the node that is asked."""
    max_size: Count = 104_857_600
    """Largest file in bytes; a larger one is refused with 4001."""
    max_bytes_per_user: Count = 1_073_741_824
    """Bytes that the files sent by one user may take together, until they expire; then 4302."""
    max_files_per_user: Count = 1_000
    """Files of one user that are kept at once, unfinished ones among them; then 4302."""
    bytes_per_second: Annotated[int, Meta(ge=65_536, le=2**53)] = 33_554_432
    """Bytes of files that one user may send and fetch in a second on this node; what is more waits, messages do
    not. A chunk counts as a full one, however short."""
    max_open_per_user: Count = 4
    """Files that one user may send and fetch at the same time on this node; then 4304."""
    max_open: Count = 256
    """Files that are sent and fetched at the same time on this node, each up to 1 MiB of memory; then 4300."""
    keep: Seconds = 604_800.0
    """Seconds that a file is kept after it was sent, fetched or not."""
    keep_partial: Seconds = 86_400.0
    """Seconds that an interrupted file waits for the rest of it."""
    keep_free: Annotated[int, Meta(ge=0, le=2**53)] = 268_435_456
    """Bytes that stay free on the disk: with less, files are refused with 4300."""
    patience: Seconds = 60.0
    """Seconds that a file may stand still, while it is sent (then 4403) or fetched (4303), before it is given up."""
    threads: Annotated[int, Meta(ge=1, le=64)] = 4
    """Reads and writes of the disk at the same time; each is a thread."""
