"""What a person is told when a node has started."""

from __future__ import annotations

from gateway.backends.settings import JwtSettings, KeySettings
from gateway.cli.banner import banner, urls
from gateway.config import Config
from gateway.transports.settings import TcpSettings, TlsSettings
from gateway.transports.settings_webtransport import WebTransportSettings

ADDRESSES = {
    "tcp": "127.0.0.1:9000",
    "websocket": "127.0.0.1:8080",
    "quic": "127.0.0.1:8443",
    "console": "127.0.0.1:8090",
}


def test_where_it_listens_and_what_to_type_next() -> None:
    shown = banner(Config(), ADDRESSES)
    assert "tcp://127.0.0.1:9000\n" in shown
    assert "ws://127.0.0.1:8080/ws\n" in shown
    assert "http://127.0.0.1:8090/\n" in shown
    assert "python -m gateway token --user 1001\n" in shown
    assert "python -m gateway chat --user 1001 --to 1002\n" in shown
    assert "Development mode" in shown
    assert "certificate" not in shown


def test_what_listens_on_udp_and_whom_to_believe_there() -> None:
    shown = banner(Config(), ADDRESSES, "ab" * 32)
    assert "quic://127.0.0.1:8443\n" in shown
    assert "https://127.0.0.1:8443/im\n" in shown
    assert "ab" * 32 in shown
    off = Config(webtransport=WebTransportSettings(enabled=False))
    assert "https" not in banner(off, ADDRESSES)


def test_what_to_type_fits_this_node() -> None:
    shown = banner(Config(data_dir="a b"), {"tcp": "127.0.0.1:1"})
    assert "token --user 1001 --data-dir 'a b'\n" in shown
    assert "chat --user 1001 --to 1002 --data-dir 'a b' --url tcp://127.0.0.1:1\n" in shown
    assert "browser" not in shown


def test_with_keys_there_is_nothing_to_try() -> None:
    shown = banner(Config(auth=JwtSettings(keys={"a": KeySettings(algorithm="HS256", key="k" * 32)})), ADDRESSES)
    assert "Development" not in shown
    assert "token" not in shown
    assert "k" * 32 not in shown


def test_tls_shows() -> None:
    config = Config(tcp=TcpSettings(tls=TlsSettings(certificate="c.pem")))
    assert urls(config, ADDRESSES)["tcp"] == "tls://127.0.0.1:9000"
