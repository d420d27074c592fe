"""`config`: what is configured, and what can be."""

from __future__ import annotations

import argparse

from gateway.config import load
from gateway.config.reference import as_json, as_markdown, as_toml, defaults


def config(arguments: argparse.Namespace) -> int:
    """Print it in the form that was asked for."""
    if arguments.markdown:
        print(as_markdown(), end="")
        return 0
    loaded = defaults() if arguments.defaults else load(arguments.config, flags=arguments.flags)
    print(as_json(loaded) if arguments.json else as_toml(loaded), end="")
    return 0
