"""JwtAuthenticator: the contract, every algorithm, issuer and audience, the clock."""

from __future__ import annotations

import logging
from pathlib import Path

import jwt
import pytest

from gateway.backends.dev_keys import SigningKey, issue_token
from gateway.backends.jwt import JwtAuthenticator
from gateway.backends.keys import KeyRefused, VerifyingKey
from gateway.backends.settings import JwtSettings, KeySettings
from gateway.core.ports import Authenticator, Identity
from tests.backends.tokens import EC_KEY, ED_KEY, EXPIRED, GENERIC, NOW, RSA_KEY, SECRET, claims, outcome, pem, sign
from tests.contracts.authenticator import AuthenticatorContract

KEY = SigningKey("main", SECRET)


class TestJwtAuthenticator(AuthenticatorContract):
    @pytest.fixture
    async def authenticator(self) -> Authenticator:
        return JwtAuthenticator(KEY.verifying())

    def token(self, user_id: int, device_id: str, *, expires_in: float = 3600.0) -> str:
        return issue_token(KEY, user_id, device_id=device_id, ttl=expires_in)


def authenticator(**options: str | float) -> JwtAuthenticator:
    return JwtAuthenticator({"main": VerifyingKey("HS256", SECRET)}, clock=lambda: NOW, **options)  # type: ignore[arg-type]


GOOD = Identity(user_id=1001, expires_at=NOW + 60)


@pytest.mark.parametrize(("algorithm", "private"), [("RS256", RSA_KEY), ("ES256", EC_KEY), ("EdDSA", ED_KEY)])
async def test_public_key_algorithms(algorithm: str, private: object, tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_bytes(pem(private.public_key()))  # type: ignore[attr-defined]
    key = KeySettings(algorithm=algorithm, file=str(tmp_path / "key.pem"))  # type: ignore[arg-type]
    verifier = JwtAuthenticator.configured(JwtSettings(keys={"main": key}), clock=lambda: NOW)
    token = jwt.encode(claims(), private, algorithm=algorithm, headers={"kid": "main"})  # type: ignore[arg-type]
    assert await outcome(verifier, token) == GOOD
    body, _, signature = token.rpartition(".")
    for bad in (signature[:-4], signature + "AAAA", "AAAA", signature[4:] + signature[:4]):
        assert await outcome(verifier, f"{body}.{bad}") == GENERIC


async def test_a_token_without_kid_needs_an_only_key() -> None:
    token = sign(claims(), {"alg": "HS256"})
    assert await outcome(authenticator(), token) == GOOD
    two = JwtAuthenticator(
        {"main": VerifyingKey("HS256", SECRET), "next": VerifyingKey("HS256", b"n" * 32)}, clock=lambda: NOW
    )
    assert await outcome(two, token) == GENERIC


async def test_a_token_for_any_device_has_no_device_claim() -> None:
    assert await outcome(authenticator(), sign(claims(device_id=None)), "tablet") == GOOD


async def test_expiry_is_kept_to_the_instant() -> None:
    assert await outcome(authenticator(), sign(claims(exp=NOW + 0.5))) == Identity(user_id=1001, expires_at=NOW + 0.5)
    assert await outcome(authenticator(), sign(claims(exp=int(NOW)))) == EXPIRED
    assert await outcome(authenticator(clock_skew=300), sign(claims(exp=int(NOW)))) == EXPIRED


async def test_only_a_token_that_was_good_is_told_that_it_expired() -> None:
    old = claims(exp=int(NOW) - 1)
    assert await outcome(authenticator(), sign(old, secret=b"x" * 32)) == GENERIC
    assert await outcome(authenticator(), sign(old), "stolen") == GENERIC
    assert await outcome(authenticator(), sign({**old, "sub": "0"})) == GENERIC


async def test_not_before_with_clock_skew() -> None:
    assert await outcome(authenticator(), sign(claims(nbf=NOW + 2))) == GENERIC
    assert await outcome(authenticator(clock_skew=5), sign(claims(nbf=NOW + 2))) == GOOD
    assert await outcome(authenticator(), sign(claims(nbf=NOW))) == GOOD


async def test_issuer() -> None:
    strict = authenticator(issuer="https://id.example")
    assert await outcome(strict, sign(claims(iss="https://id.example"))) == GOOD
    for wrong in (None, "", "https://id.example/", "https://ID.example"):
        assert await outcome(strict, sign(claims(iss=wrong))) == GENERIC


async def test_audience() -> None:
    strict = authenticator(audience="chat")
    assert await outcome(strict, sign(claims(aud="chat"))) == GOOD
    assert await outcome(strict, sign(claims(aud=["mail", "chat"]))) == GOOD
    for wrong in (None, "mail", [], ["mail"], "chats"):
        assert await outcome(strict, sign(claims(aud=wrong))) == GENERIC
    assert await outcome(authenticator(), sign(claims(aud="mail"))) == GENERIC


async def test_the_log_says_why_and_never_what(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    token = sign(claims(), secret=b"x" * 32)
    await outcome(authenticator(), token)
    (record,) = caplog.records
    assert (record.message, record.__dict__["reason"]) == ("token_refused", "signature")
    assert not any(piece in str(record.__dict__) for piece in token.split("."))


def test_an_authenticator_needs_a_key() -> None:
    with pytest.raises(ValueError, match="needs a key"):
        JwtAuthenticator({})


def test_a_refused_key_is_named() -> None:
    with pytest.raises(KeyRefused, match=r"^auth\.keys\.spring: give either"):
        JwtAuthenticator.configured(JwtSettings(keys={"spring": KeySettings(algorithm="HS256")}))


def test_secrets_stay_out_of_representations() -> None:
    assert "000102" not in repr(VerifyingKey("HS256", SECRET)) + repr(authenticator().__dict__)
