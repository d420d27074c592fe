"""Headless Chromium and a real node for the tests of the page. Collected only by `make browser`, which names both."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

CHROMIUM, CHROMEDRIVER = os.environ.get("CHROMIUM", ""), os.environ.get("CHROMEDRIVER", "")
collect_ignore_glob = [] if CHROMIUM and CHROMEDRIVER else ["test_*.py"]

if CHROMIUM and CHROMEDRIVER:
    from tests.browser.chromium import Browser
    from tests.browser.node import NodeProcess

    @pytest.fixture(scope="session")
    def browsers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Browser, Browser]]:
        """Two browsers of two people, started once: a start costs seconds."""
        with ExitStack() as stack:
            started = [
                stack.enter_context(Browser.started(CHROMIUM, CHROMEDRIVER, tmp_path_factory.mktemp(name)))
                for name in ("first", "second")
            ]
            yield started[0], started[1]

    @pytest.fixture
    def first(browsers: tuple[Browser, Browser]) -> Iterator[Browser]:
        """One person's browser, with a single empty window."""
        with browsers[0].cleared():
            yield browsers[0]

    @pytest.fixture
    def second(browsers: tuple[Browser, Browser]) -> Iterator[Browser]:
        """Another person's."""
        with browsers[1].cleared():
            yield browsers[1]

    @pytest.fixture
    def node(tmp_path: Path) -> Iterator[NodeProcess]:
        """A node in development mode with a data directory of its own, serving."""
        node = NodeProcess(tmp_path)
        try:
            node.start()
            yield node
        finally:
            node.kill()
            print(node.said())
