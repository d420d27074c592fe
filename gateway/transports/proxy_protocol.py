"""PROXY protocol version 2, as a proxy in front of us writes it. Sans-I/O: bytes in, the client's address out.

Layout: <https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt>, section 2.2.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Final

SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
HEADER: Final = 16
"""Bytes up to and including the length of what follows."""
LIMIT: Final = 2_048
"""Most bytes that may follow: the largest address block has 216, the rest are optional fields that we skip."""

_VERSION_2: Final = 0x20
_LOCAL, _PROXY = 0, 1
_FAMILIES: Final = {0x1: 4, 0x2: 16}
"""AF_INET and AF_INET6, with the bytes of one address. Anything else (UNSPEC, UNIX) names nobody."""
_STREAM: Final = 0x1


class ProxyHeaderError(ValueError):
    """These bytes are no PROXY v2 header; the message says why."""


def body_length(header: bytes) -> int:
    """How many bytes follow the first 16.

    Raises:
        ProxyHeaderError: another protocol, another version, an unknown command, or too long.
    """
    if header[:12] != SIGNATURE:
        raise ProxyHeaderError("no PROXY v2 signature")
    if header[12] & 0xF0 != _VERSION_2 or header[12] & 0x0F not in (_LOCAL, _PROXY):
        raise ProxyHeaderError("unknown PROXY version or command")
    length = int.from_bytes(header[14:16])
    if length > LIMIT:
        raise ProxyHeaderError("PROXY header too long")
    return length


def client_address(header: bytes, body: bytes) -> str | None:
    """The client's IP address as text; None when the proxy speaks for itself (LOCAL, health checks) or names nobody.

    Raises:
        ProxyHeaderError: the address block is cut short, or is not of a byte stream.
    """
    if header[12] & 0x0F == _LOCAL:
        return None
    size = _FAMILIES.get(header[13] >> 4)
    if size is None:
        return None
    if header[13] & 0x0F != _STREAM:
        raise ProxyHeaderError("PROXY header of a datagram")
    if len(body) < 2 * size + 4:
        raise ProxyHeaderError("PROXY address cut short")
    return plain_address(str(ipaddress.ip_address(body[:size])))


def plain_address(address: str) -> str:
    """IPv4 that travels as IPv6 (`::ffff:192.0.2.7`), as IPv4: one client, one name."""
    if not address.startswith("::ffff:"):
        return address
    mapped = ipaddress.IPv6Address(address.partition("%")[0]).ipv4_mapped
    return str(mapped) if mapped is not None else address


class TrustedProxies:
    """Whose headers are believed."""

    def __init__(self, networks: Iterable[str]) -> None:
        """Raises:
        ValueError: a text that is no network.
        """
        self._networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
        for text in networks:
            try:
                self._networks.append(ipaddress.ip_network(text))
            except ValueError as error:
                raise ValueError(f"trusted_proxies: {text!r} is no network such as 10.0.0.0/8 ({error})") from None
        if not self._networks:
            raise ValueError("trusted_proxies is empty: name the networks whose PROXY headers are believed")

    def __contains__(self, address: str) -> bool:
        parsed = ipaddress.ip_address(address.partition("%")[0])
        return any(parsed.version == network.version and parsed in network for network in self._networks)
