"""Configured keys: what is wrong with one is said at start, without quoting it."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa

from gateway.backends.keys import KeyRefused, load_key
from gateway.backends.settings import Algorithm, KeySettings
from tests.backends.tokens import EC_KEY, ED_KEY, RSA_KEY, PublicKey, pem

PUBLIC: dict[str, PublicKey] = {
    "EdDSA": ED_KEY.public_key(),
    "ES256": EC_KEY.public_key(),
    "RS256": RSA_KEY.public_key(),
}


def refusal(algorithm: Algorithm, key: bytes | str) -> str:
    text = key if isinstance(key, str) else key.decode()
    with pytest.raises(KeyRefused) as caught:
        load_key(KeySettings(algorithm=algorithm, key=text))
    assert not any(len(line) > 20 and line in str(caught.value) for line in text.splitlines())
    return str(caught.value)


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_key_is_no_hs256_secret(name: str) -> None:
    key = PUBLIC[name]
    openssh = key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    for text in (pem(key), b"\n  " + pem(key), openssh, b'{"kty": "OKP", "crv": "Ed25519", "x": "' + b"A" * 43 + b'"}'):
        assert "looks like a public key" in refusal("HS256", text)


def test_a_der_key_in_a_file_is_no_hs256_secret(tmp_path: Path) -> None:
    der = PUBLIC["RS256"].public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "key").write_bytes(der)
    with pytest.raises(KeyRefused, match="looks like a public key"):
        load_key(KeySettings(algorithm="HS256", file=str(tmp_path / "key")))


@pytest.mark.parametrize("name", PUBLIC)
def test_each_public_key_is_for_its_own_algorithm(name: str) -> None:
    algorithms: tuple[Algorithm, ...] = ("EdDSA", "ES256", "RS256")
    for algorithm in algorithms:
        if algorithm == name:
            assert load_key(KeySettings(algorithm=algorithm, key=pem(PUBLIC[name]).decode())).algorithm == name
        else:
            assert "not of the kind" in refusal(algorithm, pem(PUBLIC[name]))


def test_weak_and_unusual_keys() -> None:
    weak = rsa.generate_private_key(public_exponent=65_537, key_size=1024).public_key()
    assert "at least 2048 bits" in refusal("RS256", pem(weak))
    assert "not of the kind" in refusal("ES256", pem(ec.generate_private_key(ec.SECP384R1()).public_key()))
    other = ed448.Ed448PrivateKey.generate().public_key()
    text = other.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    assert "not of the kind" in refusal("EdDSA", text)
    assert "at least 32 bytes, this has 31" in refusal("HS256", "s" * 31)


def test_a_private_key_does_not_belong_here() -> None:
    private = EC_KEY.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    assert "private key" in refusal("ES256", private)
    assert "looks like a public key" in refusal("HS256", private)


@pytest.mark.parametrize(
    "text", ["x" * 40, "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", "\u20ac" * 40]
)
def test_no_pem(text: str) -> None:
    assert "no public key in PEM" in refusal("RS256", text)


def test_key_or_file(tmp_path: Path) -> None:
    with pytest.raises(KeyRefused, match="either"):
        load_key(KeySettings(algorithm="HS256"))
    with pytest.raises(KeyRefused, match="either"):
        load_key(KeySettings(algorithm="HS256", key="s" * 40, file="x"))
    for path, why in ((tmp_path / "missing", "No such file"), (tmp_path, "Is a directory"), ("a\x00b", "null byte")):
        with pytest.raises(KeyRefused, match=why):
            load_key(KeySettings(algorithm="HS256", file=str(path)))
    (tmp_path / "large").write_bytes(b"x" * 70_000)
    with pytest.raises(KeyRefused, match="too large"):
        load_key(KeySettings(algorithm="HS256", file=str(tmp_path / "large")))


def test_a_newline_at_the_end_of_a_secret_file_does_not_count(tmp_path: Path) -> None:
    for ending in ("", "\n", "\r\n"):
        (tmp_path / "secret").write_bytes(b"s" * 32 + ending.encode())
        assert load_key(KeySettings(algorithm="HS256", file=str(tmp_path / "secret"))).material == b"s" * 32
