"""What an operator may turn in the console. Settings only."""

from __future__ import annotations

from gateway.core.settings import Port, Secret, Settings


class ConsoleSettings(Settings, frozen=True):
    """HTTP for operators: health, readiness, metrics and, in development mode, the chat page."""

    enabled: bool = True
    """Whether to listen at all."""
    host: str = "127.0.0.1"
    """Address to listen on. One that is not loopback needs `token`."""
    port: Port = 8090
    """Port to listen on; 0 lets the system choose."""
    token: Secret = ""
    """If set, every request must carry `Authorization: Bearer` with it. At least 16 characters."""
