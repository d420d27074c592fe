"""PROXY v2: every shape of the header, and whoever may send one."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.transports.proxy_protocol import (
    HEADER,
    LIMIT,
    SIGNATURE,
    ProxyHeaderError,
    TrustedProxies,
    body_length,
    client_address,
    plain_address,
)

TCP4, TCP6, UDP4, UNIX, UNSPEC = 0x11, 0x21, 0x12, 0x31, 0x00


def proxy_header(
    source: str = "192.0.2.7", *, family: int | None = None, command: int = 0x21, extra: bytes = b""
) -> bytes:
    address = ipaddress.ip_address(source)
    if family is None:
        family = TCP4 if address.version == 4 else TCP6
    body = address.packed * 2 + (40_000).to_bytes(2) + (9000).to_bytes(2) + extra
    return SIGNATURE + bytes([command, family]) + len(body).to_bytes(2) + body


def parse(data: bytes) -> str | None:
    assert len(data) == HEADER + body_length(data[:HEADER])
    return client_address(data[:HEADER], data[HEADER:])


@pytest.mark.parametrize("source", ["192.0.2.7", "2001:db8::7"])
@pytest.mark.parametrize("extra", [b"", b"\x03\x00\x04abcd"])
def test_names_the_client(source: str, extra: bytes) -> None:
    assert parse(proxy_header(source, extra=extra)) == source


def test_ipv4_in_ipv6_is_ipv4() -> None:
    assert parse(proxy_header("::ffff:192.0.2.7")) == "192.0.2.7"
    assert plain_address("::ffff:192.0.2.7") == "192.0.2.7"
    assert plain_address("fe80::1%eth0") == "fe80::1%eth0"
    assert plain_address("::ffff:0:192.0.2.7") == "::ffff:0:192.0.2.7"


def test_names_nobody() -> None:
    assert parse(proxy_header(command=0x20)) is None, "LOCAL: a health check"
    assert parse(SIGNATURE + bytes([0x20, UNSPEC, 0, 0])) is None
    assert parse(proxy_header(family=UNIX)) is None
    assert parse(proxy_header(family=UNSPEC)) is None


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"PROXY TCP4 192.0.2.7 ", "signature"),
        (b"\x00" * 16, "signature"),
        (SIGNATURE + b"\x11\x11\x00\x0c", "version"),
        (SIGNATURE + b"\x22\x11\x00\x0c", "command"),
        (SIGNATURE + b"\x21\x11" + (LIMIT + 1).to_bytes(2), "too long"),
        (SIGNATURE + b"\x21\x11\x00\x0b" + bytes(11), "cut short"),
        (SIGNATURE + b"\x21\x21\x00\x23" + bytes(35), "cut short"),
        (proxy_header(family=UDP4), "datagram"),
    ],
)
def test_refused(data: bytes, why: str) -> None:
    with pytest.raises(ProxyHeaderError, match=why):
        parse(data)


@given(st.binary(min_size=HEADER, max_size=HEADER + 300), st.booleans())
def test_any_bytes_give_an_address_or_the_error(data: bytes, signed: bool) -> None:
    if signed:
        data = SIGNATURE + data[12:]
    try:
        length = body_length(data[:HEADER])
        assert length <= LIMIT
        address = client_address(data[:HEADER], data[HEADER : HEADER + length])
    except ProxyHeaderError:
        return
    assert address is None or ipaddress.ip_address(address)


def test_trusted() -> None:
    trusted = TrustedProxies(["10.0.0.0/8", "192.0.2.7", "2001:db8::/32"])
    assert "10.1.2.3" in trusted
    assert "192.0.2.7" in trusted
    assert "192.0.2.8" not in trusted
    assert "2001:db8:1::1" in trusted
    assert "fe80::1%eth0" not in trusted


def test_trusted_refuses_what_is_no_network() -> None:
    with pytest.raises(ValueError, match=r"trusted_proxies: '10\.0\.0\.1/8' is no network"):
        TrustedProxies(["10.0.0.1/8"])
    with pytest.raises(ValueError, match="trusted_proxies: 'proxy' is no network"):
        TrustedProxies(["proxy"])
    with pytest.raises(ValueError, match="trusted_proxies is empty"):
        TrustedProxies([])
