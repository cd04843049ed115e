"""Marks of many records of a log: read together, changed, and written together, where they lie near each other.

Marks of records that follow each other lie in a row, with zeros between them where records are long. Such zeros are
written, too, where they can't be the mark of a record that nobody has come to yet, and that somebody claims meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from psync.engine.contract.log import Mark
from psync.engine.directory.log.status_file import SIZE, MarkFile, at_position, mark_of, words_at, words_of

NEAR = 1 << 15
"""Bytes of marks that are read at once, at most."""


class _Run(NamedTuple):
    """What was read of one file of marks, from an offset on."""

    file: MarkFile
    begin: int
    marks: bytearray
    changed: list[tuple[int, int]]
    """Where in `marks`, and of which position, in order."""


class MarkRuns:
    """The marks at some positions, given in order, each with its file and offset there. Not locked: the log does that.

    A pread, and for those that are changed a pwrite, for all that lie in a row.
    """

    def __init__(self, places: Sequence[tuple[int, MarkFile, int]]) -> None:
        """Raises OSError."""
        self._where: dict[int, tuple[_Run, int]] = {}
        self._runs: list[_Run] = []
        first = 0
        for number, (_, file, offset) in enumerate(places):
            last = number + 1 == len(places)
            if last or places[number + 1][1] is not file or places[number + 1][2] + SIZE - places[first][2] > NEAR:
                self._read(places[first : number + 1], file, places[first][2], offset + SIZE)
                first = number + 1

    def _read(self, places: Sequence[tuple[int, MarkFile, int]], file: MarkFile, begin: int, end: int) -> None:
        run = _Run(file, begin, bytearray(file.read(end - begin, begin).ljust(end - begin, b"\0")), [])
        self._runs.append(run)
        for position, _, offset in places:
            self._where[position] = run, offset - begin

    def mark(self, position: int) -> Mark | None:
        """As it was read; None if it was cleared away before. Raises `Unreadable`."""
        if position not in self._where:
            return None
        run, at = self._where[position]
        word, owner = words_at(run.marks, at)
        return mark_of(word, owner, position)

    def change(self, position: int, mark: Mark) -> None:
        """To be written. In order of the positions."""
        run, at = self._where[position]
        word, owner = words_of(mark)
        word = at_position(word, position)
        run.marks[at : at + SIZE] = word.to_bytes(8, "little") + owner.to_bytes(8, "little")
        run.changed.append((at, position))

    def write(self, passed: int) -> None:
        """Killed in the middle, each of them is the old or the new one. Raises OSError.

        `passed`: all records before this position have been marked.
        """
        for run in self._runs:
            begin = end = 0
            for at, position in run.changed:
                if end and (position >= passed or any(run.marks[end:at])):
                    run.file.write(bytes(run.marks[begin:end]), run.begin + begin)
                    end = 0
                if not end:
                    begin = at
                end = at + SIZE
            if end:
                run.file.write(bytes(run.marks[begin:end]), run.begin + begin)
