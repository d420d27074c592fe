"""Threat 26, the part of the token: a `sub` that is no decimal int64 above zero goes no further, well signed or not."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.backends.jwt import JwtAuthenticator
from gateway.backends.keys import VerifyingKey
from gateway.core.ports import Identity
from tests.backends.tokens import GENERIC, NOW, SECRET, claims, outcome, sign

AUTHENTICATOR = JwtAuthenticator({"main": VerifyingKey("HS256", SECRET)}, clock=lambda: NOW)


@pytest.mark.parametrize("user_id", [1, 9, 1001, 2**63 - 1])
async def test_every_user_id_there_can_be(user_id: int) -> None:
    assert await outcome(AUTHENTICATOR, sign(claims(sub=str(user_id)))) == Identity(
        user_id=user_id, expires_at=NOW + 60
    )


@pytest.mark.parametrize(
    "sub",
    [
        None,
        "",
        "0",
        "-1",
        "+1",
        "01",
        "1.0",
        "1e3",
        " 1",
        "1 ",
        "1\n",
        "1\r\nPUB im.access.broadcast 0\r\n",
        ">",
        "*",
        "1.>",
        "1:2",
        "{1}",
        "1\x00",
        "1_000",
        "0x10",
        "\u0661\u0662",
        "\uff11",
        "user123",
        str(2**63),
        "9" * 19,
        "9" * 2000,
        "1" * 1_000_000,
        "1.2",
        1001,
        1001.0,
        1001.5,
        True,
        2**63,
        10**300,
        ["1001"],
        {"id": "1001"},
    ],
)
async def test_t26_any_other_user_id_is_refused(sub: Any) -> None:
    assert await outcome(AUTHENTICATOR, sign(claims(sub=sub))) == GENERIC
