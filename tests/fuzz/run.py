"""The fuzzer: `python -m tests.fuzz.run [libFuzzer options] [corpus directories]` (`make fuzz`)."""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["tests.framing.reference"]):
    from tests.framing import reference as reference  # noqa: PLC0414  (what is instrumented)

from gateway._framing import HEADER
from tests.fuzz.framing import check


def mutated(data: bytes, max_size: int, seed: int) -> bytes:
    """libFuzzer's own mutation; three times in four the first header's length is made right again."""
    data = atheris.Mutate(data, max_size)
    if seed % 4 and len(data) >= HEADER:
        data = (len(data) - HEADER).to_bytes(4) + data[4:]
    return data


if __name__ == "__main__":
    atheris.Setup(sys.argv, check, custom_mutator=mutated)
    atheris.Fuzz()
