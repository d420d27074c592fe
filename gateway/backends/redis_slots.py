"""Which server of a Redis Cluster has which key: slots, and the map as a server tells it. Nobody is asked here."""

from __future__ import annotations

from binascii import crc_hqx
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

import msgspec

Server = tuple[str, int]
"""Host and port."""

SLOTS: Final = 16_384


def slot(key: bytes) -> int:
    """The key's slot. Keys of ours hold no `{`, which would name a part that counts alone."""
    return crc_hqx(key, 0) % SLOTS


class Topology(msgspec.Struct, frozen=True):
    """Who has what, as of some moment; a server that has less or more since answers MOVED."""

    owners: tuple[Server | None, ...] = (None,) * SLOTS
    """The master of each slot; None where a slot has none."""

    def owner(self, key: bytes) -> Server | None:
        """The master of a key."""
        return self.owners[slot(key)]

    def masters(self) -> set[Server]:
        """All that have slots."""
        return {left for left, right in pairwise((*self.owners, None)) if left is not None and left != right}


def read_topology(answer: Sequence[Any], asked: Server) -> Topology:
    """What CLUSTER SLOTS told; a server that does not know its own name is the one that was `asked`.

    Raises:
        ValueError: it is no such answer.
    """
    owners: list[Server | None] = [None] * SLOTS
    try:
        for first, last, (host, port, *_), *_ in answer:
            if not 0 <= first <= last < SLOTS:
                raise ValueError(f"there are no slots {first} to {last}")
            name = host.decode() if host else asked[0]
            if name != "?":  # its name is to be announced, and nobody told it the name
                owners[first : last + 1] = [(name, int(port))] * (last + 1 - first)
    except (TypeError, AttributeError, UnicodeDecodeError) as error:
        raise ValueError(f"no answer to CLUSTER SLOTS: {error}") from error
    return Topology(tuple(owners))


def read_info(answer: object) -> Mapping[str, str]:
    """The lines `name:value` of CLUSTER INFO."""
    text = answer.decode(errors="replace") if isinstance(answer, bytes) else ""
    return dict(line.partition(":")[::2] for line in text.splitlines())
