"""Collected by `make peers` alone: the peers stand on stacks that are fetched, not on PyPI packages of this Python."""

from __future__ import annotations

import os

collect_ignore_glob = [] if os.environ.get("PEERS") else ["test_*.py"]
collect_ignore = ["programs"]
