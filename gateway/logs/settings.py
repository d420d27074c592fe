"""What an operator may turn in the logs. Settings only."""

from __future__ import annotations

from typing import Literal

from gateway.core.settings import Settings


class LogSettings(Settings, frozen=True):
    """What the node says about itself, on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least important lines that are written. Other people's libraries write from warning on, except at debug."""
    format: Literal["auto", "readable", "json"] = "auto"
    """One JSON object per line, or text for people; auto is readable on a terminal and JSON elsewhere."""
