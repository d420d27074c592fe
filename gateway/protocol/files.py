"""Files on the wire: which offers are valid, and the names that files go by. Nothing is stored here.

A sender names a file by a `file_id` of their own. Everybody else knows it by its reference, which holds the sender's
user id, so that nobody's names meet anybody else's: `{user_id}-{base64url(SHA-256(file_id)) without padding}`.
"""

from __future__ import annotations

import hashlib
import re
from base64 import urlsafe_b64encode
from typing import Any

import msgspec

from gateway._framing import is_name
from gateway.protocol.messages import FileOffer

CHUNK = 16_384
"""Most bytes of a file in one FileChunk: what a message has to wait for behind it is that much at most."""
WINDOW = 262_144
"""Bytes of FileChunks that a sender may be ahead of the last FileAck's `received`."""
MOST_BYTES = 2**53
"""A larger size could not be told apart by every client."""
FILE_CONTENT = 40
"""`content_type` of the Message that announces a file: its content is the Announcement as JSON."""
NAME_BYTES = 255
TYPE_CHARACTERS = 128
DIGEST_BYTES = 32

_REFERENCE = re.compile(r"([1-9][0-9]{0,18})-([A-Za-z0-9_-]{43})", re.ASCII)
_NOT_IN_A_NAME = re.compile(r"[\x00-\x1f\x7f-\x9f/\\\u2028\u2029]")


def file_key(file_id: str) -> str:
    """What a store may call the file: 43 of `A-Z a-z 0-9 _ -`, whatever the sender calls it."""
    return urlsafe_b64encode(hashlib.sha256(file_id.encode()).digest()).rstrip(b"=").decode()


def file_reference(user_id: int, file_id: str) -> str:
    """The name by which recipients know a file of this sender; at most 63 characters, so it is a msg_id, too."""
    return f"{user_id}-{file_key(file_id)}"


def parse_reference(text: str) -> tuple[int, str] | None:
    """The sender and the key of a reference; None when it is none."""
    found = _REFERENCE.fullmatch(text)
    return None if found is None else (int(found[1]), found[2])


def offer_problem(offer: FileOffer) -> str:
    """Why a client's offer is not valid; empty when it is. Nothing of it is escaped or mended."""
    if not is_name(offer.file_id):
        return "file_id must be 1 to 64 of A-Z a-z 0-9 _ -"
    if (offer.to_user > 0) == (offer.group_id > 0) or min(offer.to_user, offer.group_id) < 0:
        return "one of to_user and group_id must be set"
    if offer.size > MOST_BYTES:
        return "no file is that large"
    if len(offer.sha256) != DIGEST_BYTES:
        return "sha256 must be the 32 bytes of the digest"
    return name_problem(offer.name) or type_problem(offer.content_type)


def name_problem(name: str) -> str:
    """Why a file cannot be called so; empty when it can. A name is for people and never a path."""
    if not name or len(name.encode("utf-8", "replace")) > NAME_BYTES:
        return f"name must have 1 to {NAME_BYTES} bytes"
    if name in (".", "..") or _NOT_IN_A_NAME.search(name):
        return "name must be a file's name, without a path and without control characters"
    return ""


def type_problem(content_type: str) -> str:
    """Why this is no content_type; empty when it is one."""
    good = len(content_type) <= TYPE_CHARACTERS and content_type.isascii() and content_type.isprintable()
    return "" if good else f"content_type must be at most {TYPE_CHARACTERS} printable ASCII characters"


class Announcement(msgspec.Struct, frozen=True, kw_only=True):
    """The content of a Message with content_type 40. `file_id` is the reference, `sha256` is in hexadecimal."""

    file_id: str
    name: str
    size: int
    sha256: str
    content_type: str = ""


def announcement(offer: FileOffer) -> str:
    """What the Message that announces `offer` (with the reference as its file_id) says."""
    fields = Announcement(
        file_id=offer.file_id,
        name=offer.name,
        size=offer.size,
        sha256=offer.sha256.hex(),
        content_type=offer.content_type,
    )
    return msgspec.json.encode(fields).decode()


def parse_announcement(content: str) -> Announcement | None:
    """Read it; None when it is not one: whoever can send a message can write what they like into it."""
    try:
        found: Any = msgspec.json.decode(content, type=Announcement)
        digest = bytes.fromhex(found.sha256)
    except (msgspec.MsgspecError, ValueError):
        return None
    sound = (
        parse_reference(found.file_id) is not None
        and 0 <= found.size <= MOST_BYTES
        and len(digest) == DIGEST_BYTES
        and not name_problem(found.name)
        and not type_problem(found.content_type)
    )
    return found if sound else None
