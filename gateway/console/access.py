"""Who may ask the console: everybody on this machine, or whoever carries the token (threat 29). No HTTP server here."""

from __future__ import annotations

from collections.abc import Mapping
from hmac import compare_digest
from ipaddress import IPv4Address, IPv6Address, ip_address


def parse_address(host: str) -> IPv4Address | IPv6Address | None:
    """The IP address that `host` is, or None for a name."""
    try:
        return ip_address(host)
    except ValueError:
        return None


def is_loopback(host: str) -> bool:
    """Whether listening on `host` can be reached from this machine only. Of names, only `localhost` counts."""
    address = parse_address(host)
    if address is None:
        return host.lower() == "localhost"
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address.is_loopback


class Doorkeeper:
    """Decides by a request's headers whether it may be answered."""

    def __init__(self, token: str) -> None:
        self._expected = f"bearer {token}".encode() if token else b""

    def refusal(self, headers: Mapping[str, str]) -> tuple[int, str] | None:
        """Status and reason, or None to let it in. `headers` has lower-case names.

        Without a token the console is on loopback, and then `Host` must be too: a page elsewhere whose name is
        pointed at 127.0.0.1 (DNS rebinding) would otherwise be let in by the visitor's own browser.
        """
        if self._expected:
            scheme, _, token = headers.get("authorization", "").partition(" ")
            given = f"{scheme.lower()} {token.strip()}".encode()
            return None if compare_digest(given, self._expected) else (401, "a bearer token is needed here")
        host = headers.get("host", "localhost")
        if not is_loopback(_without_port(host)):
            return 403, "this console answers to 127.0.0.1 and localhost only"
        return None


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]
