"""Command template: makes a command for each line of input, with GNU parallel's placeholders.

``{}`` the line, ``{.}`` without its extension, ``{/}`` its last part, ``{//}`` its folder, ``{/.}`` the last part
without the extension, ``{#}`` its number, from 1. A command without any of these gets the line as its last word. The
shell runs a command that is a single word with blanks in it, and each text put into it is quoted. Without a command,
each line is a command for the shell.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from zlib import crc32

Jobs = dict[str, tuple[list[str], str]]
"""Jobs by id: the command and its line of input."""
SHELL = ("/bin/sh", "-c")
_places = re.compile(r"\{(\.|/|//|/\.|#)?\}")
_extension = re.compile(r"\.[^/.]*\Z")


class Template:
    """The command that is run for every line."""

    def __init__(self, words: Sequence[str]) -> None:
        self.for_shell = len(words) == 0 or (len(words) == 1 and len(words[0].split()) > 1)
        self._quoted = len(words) > 0
        self._words = tuple(words) or ("{}",)
        self._mark = f"{crc32(chr(0).join(words).encode(errors='surrogateescape')):08x}"
        if not any(map(_places.search, self._words)):
            self._words = (f"{words[0]} {{}}",) if self.for_shell else (*words, "{}")

    @property
    def program(self) -> str | None:
        """Return the program that all lines share; None if it depends on the line."""
        if self.for_shell:
            return SHELL[0]
        return None if _places.search(self._words[0]) else self._words[0]

    def command(self, line: str, number: int) -> list[str]:
        """Return the words of the command for a line."""
        words = [_places.sub(lambda found: self._put(found[1], line, number), word) for word in self._words]
        return [*SHELL, *words] if self.for_shell else words

    def _put(self, which: str | None, line: str, number: int) -> str:
        text = filled(which, line, number)
        if not (self._quoted and self.for_shell) or which == "#":
            return text
        import shlex  # imported late: most templates do not need it

        return shlex.quote(text)

    def named(self, lines: Iterable[str]) -> Jobs:
        """Return command and line by id. A job's id is made of its command and its line; the second of two equal lines
        is another job."""
        jobs: Jobs = {}
        seen: dict[str, int] = {}
        for number, line in enumerate(lines, start=1):
            seen[line] = times = seen.get(line, 0) + 1
            again = f".{times}" if times > 1 else ""
            jobs[f"{self._mark}{again} {line}"] = self.command(line, number), line
        return jobs


def filled(which: str | None, line: str, number: int) -> str:
    """Return the text for the placeholder ``{which}``."""
    if which is None:
        return line
    if which == "#":
        return str(number)
    folder, slash, last = line.rpartition("/")
    if which == "//":
        return (folder or slash) if slash else "."
    whole = line if which == "." else last
    return _extension.sub("", whole) if "." in which else whole
