"""The committed corpus and the golden frames pass the fuzz target; also without the fuzzer."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.framing.corpus import CORPUS
from tests.fuzz.framing import check

FOUND = Path(__file__).resolve().parent / "corpus"


@pytest.mark.parametrize("folder", [FOUND, CORPUS], ids=lambda path: path.name)
def test_every_file_passes(folder: Path) -> None:
    files = [path for path in sorted(folder.iterdir()) if path.suffix not in (".json", ".md")]
    assert len(files) > 10
    for path in files:
        check(path.read_bytes())
