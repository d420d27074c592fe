"""Threat 23, the part of the keys: they rotate while nobody is refused, and an old one ends with its removal."""

from __future__ import annotations

from gateway.backends.jwt import JwtAuthenticator
from gateway.backends.settings import JwtSettings, KeySettings
from gateway.core.ports import Identity
from tests.backends.tokens import GENERIC, NOW, claims, outcome, sign

OLD = "the secret of the year 2025, long enough"
NEW = "the secret of the year 2026, long enough"


def configured(**secrets: str) -> JwtAuthenticator:
    keys = {kid: KeySettings(algorithm="HS256", key=secret) for kid, secret in secrets.items()}
    return JwtAuthenticator.configured(JwtSettings(keys=keys), clock=lambda: NOW)


def token(kid: str, secret: str) -> str:
    return sign(claims(), secret=secret.encode(), kid=kid)


async def test_both_keys_hold_in_the_overlap_and_one_before_and_after() -> None:
    good = Identity(user_id=1001, expires_at=NOW + 60)
    before, overlap, after = configured(y2025=OLD), configured(y2025=OLD, y2026=NEW), configured(y2026=NEW)
    assert await outcome(before, token("y2025", OLD)) == good
    assert await outcome(before, token("y2026", NEW)) == GENERIC
    assert await outcome(overlap, token("y2025", OLD)) == good
    assert await outcome(overlap, token("y2026", NEW)) == good
    assert await outcome(after, token("y2025", OLD)) == GENERIC
    assert await outcome(after, token("y2026", NEW)) == good


async def test_a_key_does_not_speak_under_another_keys_name() -> None:
    overlap = configured(y2025=OLD, y2026=NEW)
    assert await outcome(overlap, token("y2025", NEW)) == GENERIC
    assert await outcome(overlap, token("y2026", OLD)) == GENERIC
