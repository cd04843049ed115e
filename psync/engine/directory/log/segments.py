"""What happens to the records and marks of one log. Who may do what, and when, is `logs`' matter."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from zlib import crc32

from psync.engine.contract.log import Mark, Record, State
from psync.engine.directory.log.record_format import ALIGN, HEAD, fits, head_at, length_at, size_of
from psync.engine.directory.log.segment_files import NOTHING_AHEAD, SegmentFiles
from psync.engine.directory.log.status_batch import MarkRuns
from psync.engine.directory.log.status_file import (
    CLAIMED,
    FINAL,
    MOST_ATTEMPTS,
    SIZE,
    MarkFile,
    at_position,
    first_word,
    mark_of,
    words_at,
    words_of,
)
from psync.engine.encoding.framing import Unreadable

_STRETCH = 1 << 18
"""Bytes of records that are looked through at once, at most."""
_RUN = 1 << 16
"""Bytes of records that are claimed at once, at most."""
_AHEAD = 1 << 14
"""Bytes that are read ahead for who takes one record after the other."""
_CLAIMED = State.CLAIMED
new_mark = functools.partial(tuple.__new__, Mark)
"""A `Mark` of a tuple, without a look at it."""
new_record = functools.partial(tuple.__new__, Record)


class Segments(SegmentFiles):
    """The verbs on the records of one log. Not locked: the log does that."""

    _typical = 256
    """Bytes of a record, as they were when several were claimed last."""

    # -- one mark --------------------------------------------------------------------------------------

    def mark(self, position: int, tail: int) -> Mark | None:
        """The mark of the record at `position`; None if it was cleared away."""
        found = self._find(position, tail)
        if found is None:
            return None
        _, marks, offset = found
        return mark_of(*marks.get(offset >> 1), position)

    def exchange_mark(
        self, position: int, tail: int, held: Mark, new: Mark, before: Callable[[], object] | None
    ) -> bool:
        """The mark goes from `held` to `new`, after `before`; False if it is not `held`."""
        found = self._find(position, tail)
        if found is None:
            return False
        _, marks, offset = found
        if mark_of(*marks.get(offset >> 1), position) != held:
            return False
        if before is not None:
            before()
        word, owner = words_of(new)
        marks.put(offset >> 1, at_position(word, position), owner)
        return True

    def marks_at(self, positions: Sequence[int], tail: int) -> MarkRuns:
        """The marks of the records at `positions`, which are in order."""
        found = ((position, self._find(position, tail)) for position in positions)
        return MarkRuns([(position, place[1], place[2] >> 1) for position, place in found if place is not None])

    def write_mark(self, position: int, tail: int, mark: Mark) -> None:
        """The mark of the record at `position`, whatever it was."""
        base, stop, _, marks = self._last
        if base <= position < stop:
            offset = position - base
        else:
            found = self._find(position, tail)
            if found is None:
                raise Unreadable(f"the record at {position} was cleared away before it was final")
            _, marks, offset = found
        word, owner = words_of(mark)
        marks.put(offset >> 1, word ^ (position & 0x1FFFE0) << 19, owner)  # `at_position` written out

    # -- marks before records ----------------------------------------------------------------------------

    def set_marks(self, positions: list[int], end: int, tail: int, mark: Mark) -> None:
        """Before there are any records at `positions`, which lie in the last segment, up to `end`: what marks them."""
        first = positions[0]
        written = bytearray((end - first) >> 1)
        for position in positions:
            _put(written, position - first, mark, position)
        self._mark_file(tail).write(bytes(written), (first - tail) >> 1)

    def cut_marks(self, end: int, tail: int) -> None:
        """Nothing is marked behind the end of the log."""
        self._mark_file(tail).forget_from((end - tail) >> 1)

    # -- claiming ----------------------------------------------------------------------------------------

    def claim(
        self, position: int, end: int, tail: int, owner: int, beat: int, lease: float
    ) -> tuple[Record | None, int, Mark | None]:
        """The record, if it was WAITING and is CLAIMED now; its size (0 if it is gone); its mark if it is something
        else. A pread if the record was not read ahead: a record never changes."""
        begin, data, marks, base = self._ahead
        at = position - begin
        if at < 0 or at + HEAD > len(data):
            found = self._find(position, tail)
            if found is None:
                return None, 0, None
            fd, marks, at = found
            base = position - at
            # nothing from behind the end: what a killed append left there looks right, and will be something else
            data = os.pread(fd, min(self._next_base(position, tail, end) - position, _AHEAD), at)
            self._ahead = position, data, marks, base
            at = 0
        start = at + HEAD
        length, checksum, _, _ = head_at(data, at) if start <= len(data) else (0, -1, 0, 0)
        payload = data[start : start + length]
        if len(payload) != length or crc32(payload, position + 1 & 0xFFFFFFFF) != checksum:  # `fits` written out
            self._ahead = NOTHING_AHEAD
            found = self._find(position, tail)
            if found is None:
                return None, 0, None
            fd, marks, at = found
            payload = self._load(fd, at, position)  # it is not read so far, or has come since, or is damaged
            length = len(payload)
        size = (HEAD + length + ALIGN - 1) & -ALIGN
        offset, attempt = (position - base) >> 1, 1
        word = first_word(CLAIMED, attempt, owner, beat, lease)
        if marked := marks.put_first(offset, word ^ (position & 0x1FFFE0) << 19, owner):
            mark = mark_of(*marked, position)
            if mark.state:
                return None, size, mark
            attempt = min(attempt + mark.attempt, MOST_ATTEMPTS)
            word = first_word(CLAIMED, attempt, owner, beat, lease)
            marks.put(offset, at_position(word, position), owner)
        return new_record((position, new_mark((_CLAIMED, attempt, owner, beat, lease)), payload)), size, None

    def claim_run(
        self, position: int, end: int, tail: int, limit: int, owner: int, beat: int, lease: float, taken: list[Record]
    ) -> int:
        """pread, pread, pwrite: up to `limit` records in a row, which nobody was ever at, are CLAIMED and in `taken`.

        Returns how many bytes they take; fewer, perhaps none, where one was marked before, is large, or is damaged.
        """
        found = self._find(position, tail)
        if found is None:
            return 0
        fd, marks, offset = found
        wanted = min((limit + 1) * self._typical, _RUN)  # little of what is not claimed
        data = os.pread(fd, min(self._next_base(position, tail, end) - position, wanted), offset)
        old = marks.read(len(data) >> 1, offset >> 1)
        mark = Mark(_CLAIMED, 1, owner, beat, lease)
        written = bytearray()
        at, wished = 0, limit
        while limit and at + HEAD <= len(data):
            length, checksum, _, _ = head_at(data, at)
            size = size_of(length)
            payload = data[at + HEAD : at + HEAD + length]
            if len(payload) != length or any(old[at >> 1 : (at >> 1) + SIZE]):
                break
            if not fits(payload, checksum, position + at):
                break
            taken.append(new_record((position + at, mark, payload)))  # before it is so: what fails is undone
            written += bytes(size >> 1)
            _put(written, at, mark, position + at)
            at += size
            limit -= 1
        if at:
            marks.write(bytes(written), offset >> 1)
            self._typical = at // (wished - limit)
        else:
            self._typical = min(2 * self._typical, _RUN)
        return at

    # -- looking -----------------------------------------------------------------------------------------

    def read(self, position: int, tail: int) -> Record | None:
        """The record at `position`, its payload verified; None if it was cleared away. Raises `Unreadable`."""
        found = self._find(position, tail)
        if found is None:
            return None
        fd, marks, offset = found
        mark = mark_of(*marks.get(offset >> 1), position)
        return Record(position, mark, self._load(fd, offset, position))

    def scan(self, begin: int, end: int, tail: int, passed: int = 0) -> Iterator[tuple[int, State, int]]:
        """(position, state, size) of each record from `begin` up to `end`. Payloads are not read.

        Raises `Unreadable`; also if one before `passed` was never marked.
        """
        position = begin
        stretch = 4096
        while position < end:
            found = self._find(position, tail)
            if found is None:
                return
            stop = min(end, self._next_base(position, tail, end))
            data, states = self._stretch(found, min(stretch, stop - position))
            stretch = min(2 * stretch, _STRETCH)
            at = 0
            while at + HEAD <= len(data):
                state = _marked(states, at, position, passed).state
                size = size_of(length_at(data, at, position))
                yield position, state, size
                at += size
                position += size
            _check_room(position, stop)
            if not at:
                return

    def final_up_to(self, begin: int, end: int, tail: int, passed: int = 0) -> int:
        """Up to where from `begin` on, at most `end`, all records are final. Raises `Unreadable`; also if one before
        `passed` was never marked."""
        position = begin
        stretch = 4096
        while position < end and (found := self._find(position, tail)) is not None:
            stop = min(end, self._next_base(position, tail, end))
            data, states = self._stretch(found, min(stretch, stop - position))
            stretch = min(2 * stretch, _STRETCH)
            at = known = 0
            last = min(len(data) - HEAD, 2 * (len(states) - SIZE))
            while at <= last and states[at >> 1] in FINAL:
                here = position + at
                word, owner = words_at(states, at >> 1)
                if (alike := at_position(word, here)) != known:  # most say the same
                    mark_of(word, owner, here)
                    known = alike
                at += size_of(length_at(data, at, here))
            position += at
            _check_room(position, stop)
            if not at or at <= len(data) - HEAD:
                _marked(states, at, position, passed)
                break
        return position

    def _stretch(self, found: tuple[int, MarkFile, int], size: int) -> tuple[bytes, bytes]:
        """So many bytes of records, and the marks of those."""
        fd, marks, offset = found
        data = os.pread(fd, size, offset)
        return data, marks.read(len(data) >> 1, offset >> 1)


def _put(written: bytearray, at: int, mark: Mark, position: int) -> None:
    """Into marks in a row, that of the record at an offset of records in a row."""
    word, owner = words_of(mark)
    word = at_position(word, position)
    written[at >> 1 : (at >> 1) + SIZE] = word.to_bytes(8, "little") + owner.to_bytes(8, "little")


def _check_room(position: int, stop: int) -> None:
    """Raise `Unreadable` if records in a row end at `position`, behind where they must: the check of a head does not
    find every length that was damaged, and one that is too short leads to no head."""
    if position > stop:
        raise Unreadable(f"a record is longer than there is room for before {stop}")


def _marked(states: bytes, at: int, position: int, passed: int) -> Mark:
    """Of marks in a row, what that says of the record at an offset of records in a row. Raises `Unreadable`."""
    raw = states[at >> 1 : (at >> 1) + SIZE]
    word, owner = words_at(raw.ljust(SIZE, b"\0"))
    if not word and position < passed:
        raise Unreadable(f"the record at {position} was marked once, and is not any more")
    return mark_of(word, owner, position)
