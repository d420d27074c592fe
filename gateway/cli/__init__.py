"""The command line: which command is meant, and how it ends. What each one does is in its own file.

Exit codes: 0 done, or left in order; 1 cannot start, or failed; 2 wrong arguments or configuration; 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from gateway.cli.arguments import parse
from gateway.cli.failure import CommandFailed
from gateway.config import ConfigError

FAILED, MISUSED, INTERRUPTED = 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; nothing of ours ends in a traceback for what a user did."""
    arguments = parse(sys.argv[1:] if argv is None else argv)
    try:
        code: int = arguments.command(arguments)
        sys.stdout.flush()
    except ConfigError as error:
        for problem in error.problems:
            print(f"gateway: {problem}", file=sys.stderr)
        return MISUSED
    except CommandFailed as error:
        print(f"gateway: {error}", file=sys.stderr)
        return FAILED
    except BrokenPipeError:  # `python -m gateway config | head`: nobody reads any more, and Python must not flush again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return INTERRUPTED
    return code


__all__ = ["main"]
