"""How what was typed becomes arguments, and what is said when it cannot: one line, with what was probably meant.

No command is known here.
"""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong; positional words may stand on either side of options."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)
        self.set_defaults(parser=self)

    def error(self, message: str) -> NoReturn:
        """Exit with 2."""
        self.exit(2, f"gateway: {message}; see {self.prog} --help\n")

    def parse_all(self, words: Sequence[str], commands: Iterable[str]) -> argparse.Namespace:
        """Parse `words`, of which the first may be one of `commands`; exits for what nobody understands."""
        known = [*commands]
        if words and not words[0].startswith("-") and words[0] not in known:
            self.error(f"there is no command {words[0]!r}{_meant(words[0], known) or ': ' + ', '.join(known)}")
        found, rest = self.parse_known_args(words)
        parser: Parser = found.parser
        if rest:
            parser._take(found, rest)
        return found

    def _take(self, found: argparse.Namespace, rest: Sequence[str]) -> None:
        """Words that came behind an option belong to the last list of words, if there is one."""
        for word in rest:
            if word.startswith("-"):
                flag = word.partition("=")[0]
                self.error(f"there is no {flag}{_meant(flag, self._option_string_actions)}")
        lists = [each for each in self._get_positional_actions() if each.nargs in ("*", "+")]
        if not lists:
            self.error(f"{rest[0]!r} is one word too many")
        last = lists[-1]
        read = last.type if callable(last.type) else str
        try:
            values = [read(word) for word in rest]
        except argparse.ArgumentTypeError as error:
            self.error(f"argument {last.metavar}: {error}")
        setattr(found, last.dest, [*(getattr(found, last.dest) or ()), *values])


def _meant(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, [*known], n=1, cutoff=0.6)
    return f" (did you mean {close[0]}?)" if close else ""
