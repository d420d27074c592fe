"""A missing extension is told at once, with what to do about it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HIDE = """
import sys
class Hide:
    def find_spec(self, name, path=None, target=None):
        if name == "gateway._framing":
            raise {error}
sys.meta_path.insert(0, Hide())
import {module}
"""


@pytest.mark.parametrize("module", ["gateway.protocol", "gateway.protocol.messages", "gateway.protocol.subjects"])
@pytest.mark.parametrize(
    "error", ["ModuleNotFoundError(f'No module named {name!r}', name=name)", "ImportError('wrong ELF class')"]
)
def test_a_missing_extension_is_a_loud_import_error(module: str, error: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", HIDE.format(error=error, module=module)],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ended.returncode == 1
    last = ended.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: gateway._framing, the compiled hot path, cannot be imported.")
    assert "`make run`" in last
    assert "`python setup.py build_ext --inplace`" in last
    assert ("No module named" in last) or ("wrong ELF class" in last)
