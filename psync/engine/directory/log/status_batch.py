"""Status batch: statuses of many records, read together, changed, and written together where they lie near each other.

The statuses of records that follow each other lie in a row, with zeros between them where records are long. A batch
writes such zeros, too, but only before `passed`: further on a claimer may write a status there meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from psync.engine.contract.log import Mark
from psync.engine.directory.log.status_file import STATUS_BYTES, StatusFile, at_position, status_of, words_at, words_of

MAX_BATCH_BYTES = 1 << 15
"""Bytes of statuses that are read at once, at most."""


class _Row(NamedTuple):
    """Statuses that were read from one file, from an offset on."""

    file: StatusFile
    begin: int
    statuses: bytearray
    changed: list[tuple[int, int]]
    """The changed ones: offset in `statuses` and position of the record, sorted."""


class StatusBatch:
    """The statuses at some positions, given in order, each with its file and offset. Not locked: the log does that.

    A pread for all that lie in a row, and a pwrite for those that are changed.
    """

    def __init__(self, places: Sequence[tuple[int, StatusFile, int]]) -> None:
        """Raises OSError."""
        self._found: dict[int, tuple[_Row, int]] = {}
        self._rows: list[_Row] = []
        first = 0
        for number, (_, file, offset) in enumerate(places):
            last = number + 1 == len(places)
            if (
                last
                or places[number + 1][1] is not file
                or places[number + 1][2] + STATUS_BYTES - places[first][2] > MAX_BATCH_BYTES
            ):
                self._read(places[first : number + 1], file, places[first][2], offset + STATUS_BYTES)
                first = number + 1

    def _read(self, places: Sequence[tuple[int, StatusFile, int]], file: StatusFile, begin: int, end: int) -> None:
        row = _Row(file, begin, bytearray(file.read(end - begin, begin).ljust(end - begin, b"\0")), [])
        self._rows.append(row)
        for position, _, offset in places:
            self._found[position] = row, offset - begin

    def status(self, position: int) -> Mark | None:
        """The status that was read; None if the record had been cleared away. Raises `Unreadable`."""
        if position not in self._found:
            return None
        row, at = self._found[position]
        word, owner = words_at(row.statuses, at)
        return status_of(word, owner, position)

    def change(self, position: int, status: Mark) -> None:
        """Set a status, for `write`. Called in the order of the positions."""
        row, at = self._found[position]
        word, owner = words_of(status)
        word = at_position(word, position)
        row.statuses[at : at + STATUS_BYTES] = word.to_bytes(8, "little") + owner.to_bytes(8, "little")
        row.changed.append((at, position))

    def write(self, passed: int) -> None:
        """Write the changed statuses. After a kill in the middle each is the old or the new one. Raises OSError.

        `passed`: all records before this position have a status.
        """
        for row in self._rows:
            begin = end = 0
            for at, position in row.changed:
                if end and (position >= passed or any(row.statuses[end:at])):
                    row.file.write(bytes(row.statuses[begin:end]), row.begin + begin)
                    end = 0
                if not end:
                    begin = at
                end = at + STATUS_BYTES
            if end:
                row.file.write(bytes(row.statuses[begin:end]), row.begin + begin)
