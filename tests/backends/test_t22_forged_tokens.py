"""Threat 22: forged and twisted tokens. Each has a valid signature where it can have one, and all get one answer."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.backends.jwt import JwtAuthenticator
from gateway.backends.keys import VerifyingKey
from gateway.core.ports import Identity
from tests.backends.tokens import ED_KEY, GENERIC, NOW, RSA_KEY, SECRET, claims, outcome, part, pem, sign

KEYS = {
    "main": VerifyingKey("HS256", SECRET),
    "rsa": VerifyingKey("RS256", RSA_KEY.public_key()),
    "ed": VerifyingKey("EdDSA", ED_KEY.public_key()),
}
GOOD = Identity(user_id=1001, expires_at=NOW + 60)


@pytest.fixture
def authenticator() -> JwtAuthenticator:
    return JwtAuthenticator(KEYS, clock=lambda: NOW)


async def test_the_forger_can_make_good_ones(authenticator: JwtAuthenticator) -> None:
    """Or the refusals below would prove nothing."""
    assert await outcome(authenticator, sign(claims())) == GOOD
    assert await outcome(authenticator, sign(claims(), nonsense={"a": [1]})) == GOOD


@pytest.mark.parametrize("name", ["none", "None", "NONE", "nOnE", ""])
@pytest.mark.parametrize("kid", ["main", "rsa", None])
async def test_none(authenticator: JwtAuthenticator, name: str, kid: str | None) -> None:
    header = {"alg": name} if kid is None else {"alg": name, "kid": kid}
    assert await outcome(authenticator, sign(claims(), header)) == GENERIC
    unsigned = (part(header) + b"." + part(claims()) + b".").decode()
    assert await outcome(authenticator, unsigned) == GENERIC


async def test_hs256_with_the_public_key_as_its_secret(authenticator: JwtAuthenticator) -> None:
    for kid in ("rsa", "ed"):
        public = pem(KEYS[kid].material)
        for secret in (public, public.strip(), b"\n".join(public.splitlines()[1:-1])):
            assert await outcome(authenticator, sign(claims(), secret=secret, kid=kid)) == GENERIC


async def test_another_keys_algorithm(authenticator: JwtAuthenticator) -> None:
    """Each key is for one algorithm, whatever others are configured beside it."""
    for kid in ("main", "ed"):
        assert await outcome(authenticator, jwt.encode(claims(), RSA_KEY, "RS256", {"kid": kid})) == GENERIC
    for algorithm in ("RS384", "RS512", "PS256"):
        assert await outcome(authenticator, jwt.encode(claims(), RSA_KEY, algorithm, {"kid": "rsa"})) == GENERIC
    signed = part({"alg": "HS512", "kid": "main"}) + b"." + part(claims())
    token = signed + b"." + part(hmac.digest(SECRET, signed, hashlib.sha512))
    assert await outcome(authenticator, token.decode()) == GENERIC


@pytest.mark.parametrize(
    "kid",
    [
        "../../etc/passwd",
        "/dev/null",
        "main\x00.pem",
        "' UNION SELECT 'x' --",
        "http://evil.example/key",
        "__class__",
        "",
        "MAIN",
        "m" * 2000,
    ],
)
async def test_kid_is_only_looked_up(authenticator: JwtAuthenticator, kid: str) -> None:
    for secret in (SECRET, b"", b"x", hashlib.sha256(b"").digest()):
        assert await outcome(authenticator, sign(claims(), secret=secret, kid=kid)) == GENERIC


@pytest.mark.parametrize("kid", [None, 0, True, [], ["main"], {}, {"main": 1}, 1.5])
async def test_kid_of_another_type(authenticator: JwtAuthenticator, kid: Any) -> None:
    assert await outcome(authenticator, sign(claims(), kid=kid)) == GENERIC


@pytest.mark.parametrize(
    "extra",
    [
        {"jwk": {"kty": "oct", "k": "AAAA"}},
        {"jku": "http://127.0.0.1/keys.json"},
        {"x5u": "http://127.0.0.1/chain.pem"},
        {"x5c": ["AAAA"]},
        {"crit": []},
        {"crit": ["exp"]},
        {"crit": ["b64"], "b64": False},
        {"b64": True},
        {"zip": "DEF"},
        {"enc": "A256GCM"},
        {"jwk": None},
    ],
)
async def test_headers_that_bring_their_own_key_or_rules(
    authenticator: JwtAuthenticator, extra: dict[str, Any]
) -> None:
    assert await outcome(authenticator, sign(claims(), **extra)) == GENERIC


async def test_an_escaped_header_name_is_the_same_name(authenticator: JwtAuthenticator) -> None:
    assert await outcome(authenticator, sign(claims(), b'{"alg":"HS256","kid":"main","\\u006awk":{}}')) == GENERIC


@pytest.mark.parametrize(
    "exp",
    [None, "1800000060", True, [], {}, -1, 0, 10**18, 10**300, -(10**300), 253_402_300_800, 1e300],
)
async def test_exp_missing_or_no_sensible_number(authenticator: JwtAuthenticator, exp: Any) -> None:
    assert await outcome(authenticator, sign(claims(exp=exp))) == GENERIC


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e400", "9" * 2000, "null", "0x7fffffff", "1_800"])
async def test_exp_as_python_would_read_it(authenticator: JwtAuthenticator, text: str) -> None:
    assert await outcome(authenticator, sign(b'{"sub":"1001","exp":' + text.encode() + b"}")) == GENERIC


@pytest.mark.parametrize("nbf", [int(NOW) + 1, NOW + 0.1, "0", True, [], 10**300, 1e300])
async def test_nbf_ahead_or_no_number(authenticator: JwtAuthenticator, nbf: Any) -> None:
    assert await outcome(authenticator, sign(claims(nbf=nbf))) == GENERIC


@pytest.mark.parametrize("name", ["nbf", "iss", "aud", "device_id"])
async def test_null_is_not_absence(authenticator: JwtAuthenticator, name: str) -> None:
    assert await outcome(authenticator, sign(json.dumps({**claims(), name: None}).encode())) == GENERIC


@pytest.mark.parametrize("size", [4097, 5000, 1_000_000])
async def test_too_large_is_refused_before_it_is_parsed(
    authenticator: JwtAuthenticator, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = sign(claims(filler="x" * size))
    assert len(token) > 4096
    monkeypatch.setattr("gateway.backends.jwt._decode_header", None)
    monkeypatch.setattr("gateway.backends.jwt._SHAPE", None)
    assert await outcome(authenticator, token) == GENERIC


async def test_the_largest_token_is_accepted(authenticator: JwtAuthenticator) -> None:
    filler = next(n for n in range(2800, 3100) if len(sign(claims(filler="x" * n))) in (4095, 4096))
    assert await outcome(authenticator, sign(claims(filler="x" * filler))) == GOOD


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
async def test_deep_json(authenticator: JwtAuthenticator, opening: bytes) -> None:
    deep = opening * (2700 // len(opening))
    closing = (b"]" if opening == b"[" else b"1") + (b"" if opening == b"[" else b"}" * (len(deep) // len(opening)))
    for body in (deep, b'{"sub":"1001","exp":1800000060,"x":' + deep, b'{"x":' + deep[:1200] + closing[:300]):
        assert await outcome(authenticator, sign(body)) == GENERIC
        assert await outcome(authenticator, sign(claims(), body)) == GENERIC


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'"x"',
        b"1",
        b"{}",
        b"{",
        b'{"sub":"1001","exp":1800000060',
        b"\xff\xfe",
        b'{"sub":"\xed\xa0\x80"}',
    ],
)
async def test_claims_that_are_no_object(authenticator: JwtAuthenticator, body: bytes) -> None:
    assert await outcome(authenticator, sign(body)) == GENERIC


@pytest.mark.parametrize(
    "header", [b"", b"null", b"[]", b"{}", b"{", b"\xff", b'{"alg":1,"kid":"main"}', b'{"kid":"main"}']
)
async def test_headers_that_are_no_header(authenticator: JwtAuthenticator, header: bytes) -> None:
    assert await outcome(authenticator, sign(claims(), header)) == GENERIC


async def test_one_spelling_only(authenticator: JwtAuthenticator) -> None:
    token = sign(claims())
    head, body, signature = token.split(".")
    for twisted in (
        token + "=",
        token + "\n",
        " " + token,
        "Bearer " + token,
        token + ".",
        "." + token,
        f"{head}.{body}.{signature}!",
        f"{head}.{body}\n.{signature}",
        f"{head}=.{body}.{signature}",
        f"{head}.{body}.{signature[:-1]}{'B' if signature[-1] != 'B' else 'C'}",
        token.replace("J", "\uff2a", 1),
        token.replace("-", "+").replace("_", "/") + "+",
        "\ud800" + token,
        f"{head}..{signature}",
        f"{head}.{body}",
        f"{head}.{body}.{signature}.{signature}.{signature}",
    ):
        assert await outcome(authenticator, twisted) == GENERIC


@given(st.one_of(st.text(max_size=300), st.binary(max_size=200).map(lambda b: part(b).decode())))
def test_no_text_does_anything_but_be_refused(text: str) -> None:
    import trio

    async def ask() -> None:
        for token in (text, f"{text}.{text}.{text}"):
            assert await outcome(JwtAuthenticator(KEYS), token) == GENERIC

    trio.run(ask)


@given(
    st.dictionaries(
        st.sampled_from(["sub", "exp", "nbf", "iss", "aud", "device_id", "x"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
            max_leaves=5,
        ),
    )
)
def test_signed_claims_of_any_type_give_an_answer(body: dict[str, Any]) -> None:
    import trio

    async def ask() -> None:
        answer = await outcome(JwtAuthenticator(KEYS, clock=time.time), sign(body))
        assert isinstance(answer, Identity) or answer in (GENERIC, (4101, "the token has expired"))

    trio.run(ask)
