"""How NATS is reached and who we are to it: addresses, files of secrets, TLS. nats-py is not needed here."""

from __future__ import annotations

import ssl
from pathlib import Path
from urllib.parse import urlsplit

from gateway.backends.settings_nats import NatsTlsSettings


def checked_server(server: str) -> str:
    """A server's address as it was written.

    Raises:
        ValueError: one line that says what is wrong; what may be a secret in it is not quoted.
    """
    rule = "must be like nats://host:4222 or tls://host:4222"
    try:
        parts = urlsplit(server)
        named, port = bool(parts.hostname), parts.port
    except ValueError:
        raise ValueError(rule) from None
    if "@" in server:
        raise ValueError(f"{rule}, without credentials: they have settings of their own")
    extra = parts.path.strip("/") or parts.query or parts.fragment
    if parts.scheme not in ("nats", "tls") or not named or port == 0 or extra or not server.isprintable():
        raise ValueError(f"{rule}, not {server[:80]!r}")
    return server


def tls_context(settings: NatsTlsSettings) -> ssl.SSLContext:
    """What we trust and who we are.

    Raises:
        ValueError: one line that names the setting and says what is wrong.
    """
    try:
        context = ssl.create_default_context(cafile=settings.ca or None)
    except (OSError, ValueError) as error:
        raise ValueError(f"tls.ca: {settings.ca} cannot be used ({error}); name a PEM file") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if settings.certificate:
        try:
            context.load_cert_chain(settings.certificate, settings.key or None, password=lambda: b"")
        except (OSError, ValueError) as error:
            raise ValueError(f"tls.certificate: {settings.certificate} cannot be used ({error})") from None
    return context


def read_nkey(path: str) -> str:
    """An NKey seed from its file.

    Raises:
        ValueError: one line that says what is wrong; never what the file holds.
    """
    seed = _read(path, "nkey_file").strip()
    if not seed.startswith("SU") or not seed.isalnum():
        raise ValueError(f"nkey_file: {path} holds no user seed (SU...)")
    return seed


def read_credentials(path: str) -> str:
    """A `.creds` file's text. nats-py would look for a missing part of it for ever.

    Raises:
        ValueError: one line that says what is wrong; never what the file holds.
    """
    text = _read(path, "credentials_file")
    for part in ("BEGIN NATS USER JWT", "BEGIN USER NKEY SEED"):
        if f"-----{part}-----\n" not in text.replace("\r\n", "\n"):
            raise ValueError(f"credentials_file: {path} is no .creds file: it has no {part!r}")
    return text


def _read(path: str, field: str) -> str:
    try:
        return Path(path).read_text("ascii")
    except OSError as error:
        raise ValueError(f"{field}: {path} cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise ValueError(f"{field}: {path} is no text file") from None
