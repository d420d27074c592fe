"""Builds the Cython extensions.

GATEWAY_COVERAGE=1 builds them with line tracing and bounds checks (see `make coverage`).
"""

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

TRACED = os.environ.get("GATEWAY_COVERAGE") == "1"
OPTIMISE = ["-O0", "-g"] if TRACED else ["-O3", "-fno-plt"]
MACROS = [("CYTHON_TRACE", "1"), ("CYTHON_TRACE_NOGIL", "1"), ("CYTHON_USE_SYS_MONITORING", "0")] if TRACED else []
DIRECTIVES = {"language_level": 3, "boundscheck": TRACED, "wraparound": False, "cdivision": True, "linetrace": TRACED}


def extension(path: Path) -> Extension:
    return Extension(
        f"gateway.{path.stem}",
        [str(path)],
        extra_compile_args=OPTIMISE,
        define_macros=MACROS,
        depends=[str(part) for part in path.parent.glob(f"{path.stem}*.px[di]")],
    )


setup(
    ext_modules=cythonize(
        [extension(path) for path in sorted(Path("gateway").glob("_*.pyx"))],
        compiler_directives=DIRECTIVES,
        build_dir="build/traced" if TRACED else "build/cython",
    )
)
