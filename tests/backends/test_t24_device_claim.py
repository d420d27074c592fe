"""Threat 24, the part of the token: device A's token is of no use to device B."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.backends.jwt import JwtAuthenticator
from gateway.backends.keys import VerifyingKey
from gateway.core.ports import Identity
from tests.backends.tokens import GENERIC, NOW, SECRET, claims, outcome, sign

AUTHENTICATOR = JwtAuthenticator({"main": VerifyingKey("HS256", SECRET)}, clock=lambda: NOW)


async def test_its_own_device() -> None:
    good = Identity(user_id=1001, expires_at=NOW + 60)
    assert await outcome(AUTHENTICATOR, sign(claims(device_id="phone-A")), "phone-A") == good


@pytest.mark.parametrize("device", ["phone-B", "phone-a", "phone-A ", "phone-A\x00", "phone-", "", "*"])
async def test_another_device(device: str) -> None:
    assert await outcome(AUTHENTICATOR, sign(claims(device_id="phone-A")), device) == GENERIC


@pytest.mark.parametrize("claim", ["", 1, True, ["phone"], {"phone": True}, "*"])
async def test_a_claim_that_names_no_device(claim: Any) -> None:
    assert await outcome(AUTHENTICATOR, sign(claims(device_id=claim))) == GENERIC
