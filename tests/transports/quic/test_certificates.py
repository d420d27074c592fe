"""The certificate of the QUIC port: from PEM files, or self-signed and renewed; replaced in place."""

from __future__ import annotations

import datetime
import logging
from pathlib import Path

import pytest
import trio
import trio.testing
import trustme
from aioquic.quic.configuration import QuicConfiguration
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec

from gateway.transports.quic.certificates import (
    FILE_NAME,
    Certificates,
    development_identity,
    load_identity,
    open_certificates,
)

DAY = 86_400.0


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def write(folder: Path, authority: trustme.CA, name: str = "server") -> tuple[Path, Path]:
    issued = authority.issue_cert("localhost")
    certificate, key = folder / f"{name}.crt", folder / f"{name}.key"
    certificate.write_bytes(b"".join(each.bytes() for each in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(str(key))
    return certificate, key


def test_pem_files(tmp_path: Path, authority: trustme.CA) -> None:
    certificate, key = write(tmp_path, authority)
    identity = load_identity(certificate, key)
    assert len(identity.fingerprint) == 64
    both = tmp_path / "both.pem"
    both.write_bytes(key.read_bytes() + certificate.read_bytes())
    assert load_identity(both).fingerprint == identity.fingerprint


def encrypted(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )


def test_every_refusal_names_the_setting_and_the_file(tmp_path: Path, authority: trustme.CA) -> None:
    certificate, key = write(tmp_path, authority)
    _, other = write(tmp_path, authority, "other")
    empty = tmp_path / "empty.pem"
    empty.write_bytes(b"")
    locked = tmp_path / "locked.key"
    locked.write_bytes(encrypted(ec.generate_private_key(ec.SECP256R1())))
    old = tmp_path / "dsa.key"
    old.write_bytes(
        dsa.generate_private_key(1024).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    for cert, private, expected in (
        (tmp_path / "none.crt", key, "certificate: .*none.crt cannot be read"),
        (certificate, tmp_path / "none.key", "key: .*none.key cannot be read"),
        (empty, key, "certificate: .*empty.pem is no PEM certificate chain"),
        (certificate, empty, "key: .*empty.pem holds no PEM private key"),
        (certificate, other, "key: .*other.key is not the key of the certificate in .*server.crt"),
        (certificate, locked, "key: .*locked.key is encrypted"),
        (certificate, old, "key: .*dsa.key is of no kind that TLS 1.3 knows"),
    ):
        with pytest.raises(ValueError, match=f"^{expected}"):
            load_identity(cert, private)


def test_what_is_reloaded_reaches_every_configuration(
    tmp_path: Path, authority: trustme.CA, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gateway.quic")
    certificate, key = write(tmp_path, authority)
    certificates = open_certificates(str(certificate), str(key), tmp_path)
    configuration = QuicConfiguration(is_client=False)
    certificates.install(configuration)
    first = certificates.fingerprint
    assert not certificates.reload()
    write(tmp_path, authority)
    assert certificates.reload()
    assert certificates.fingerprint != first
    assert configuration.certificate is certificates.current.chain[0]
    assert configuration.private_key is certificates.current.key
    key.write_bytes(b"broken")
    used = certificates.fingerprint
    assert not certificates.reload()
    assert certificates.fingerprint == used
    assert "holds no PEM private key" in caplog.records[-1].__dict__["reason"]


def test_the_development_one_is_what_browsers_take_by_hash(tmp_path: Path) -> None:
    identity = development_identity(tmp_path / "made")
    certificate = identity.chain[0]
    assert isinstance(identity.key, ec.EllipticCurvePrivateKey)
    assert isinstance(identity.key.curve, ec.SECP256R1)
    lifetime = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    assert datetime.timedelta(days=12) < lifetime <= datetime.timedelta(days=13)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    assert [str(each) for each in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1"]
    assert (tmp_path / "made" / FILE_NAME).stat().st_mode & 0o777 == 0o600


def test_it_outlives_a_restart_but_not_its_use(tmp_path: Path) -> None:
    now = [1_800_000_000.0]

    def clock() -> float:
        return now[0]

    first = development_identity(tmp_path, clock=clock).fingerprint
    now[0] += 10 * DAY
    assert development_identity(tmp_path, clock=clock).fingerprint == first
    now[0] += DAY
    second = development_identity(tmp_path, clock=clock).fingerprint
    assert second != first
    now[0] -= 100 * DAY  # the clock was wrong: one from the future would not be taken
    assert development_identity(tmp_path, clock=clock).fingerprint not in {first, second}


def test_one_that_others_could_read_or_that_is_broken_is_replaced(tmp_path: Path) -> None:
    first = development_identity(tmp_path).fingerprint
    (tmp_path / FILE_NAME).chmod(0o644)
    second = development_identity(tmp_path).fingerprint
    assert second != first
    (tmp_path / FILE_NAME).write_bytes(b"")
    assert development_identity(tmp_path).fingerprint != second


def test_where_it_cannot_be_kept_one_line_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ValueError, match=r"^certificate: cannot keep one in"):
        development_identity(tmp_path / "file")


async def test_it_is_renewed_while_the_node_runs(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    def clock() -> float:
        return 1_800_000_000.0 + trio.current_time()

    certificates = open_certificates("", "", tmp_path, clock=clock)
    configuration = QuicConfiguration(is_client=False)
    certificates.install(configuration)
    first = certificates.fingerprint
    nursery.start_soon(certificates.run)
    await trio.sleep(10.5 * DAY)
    assert certificates.fingerprint == first
    await trio.sleep(0.6 * DAY)
    assert certificates.fingerprint != first
    assert configuration.certificate is certificates.current.chain[0]
    nursery.cancel_scope.cancel()


async def test_pem_files_are_not_ours_to_renew(tmp_path: Path, authority: trustme.CA) -> None:
    certificate, key = write(tmp_path, authority)
    certificates: Certificates = open_certificates(str(certificate), str(key), tmp_path)
    with trio.fail_after(5):
        await certificates.run()
