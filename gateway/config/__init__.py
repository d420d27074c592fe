"""The configuration: the Structs that the rooms declare, composed, read from their sources, checked, explained.

Knows what may be set and where it was set; what a setting does is its own room's business.
"""

from __future__ import annotations

from gateway.config.loading import Loaded as Loaded
from gateway.config.loading import check as check
from gateway.config.loading import load as load
from gateway.config.sources import ConfigError as ConfigError
from gateway.config.sources import Flag as Flag
from gateway.config.tree import Config as Config

__all__ = ["Config", "ConfigError", "Flag", "Loaded", "check", "load"]
