"""Segments: the verbs on single records of a log and on their statuses, by position.

The callers hold the locks that a verb needs: on ``tail`` to write records, on ``front`` to claim, and on ``front`` or
by owning the record to change a status.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from zlib import crc32

from psync.engine.contract.log import Mark, Record, State
from psync.engine.directory.log.record_format import ALIGN_BYTES, HEAD_BYTES, fits, head_at, length_at, size_of
from psync.engine.directory.log.segment_files import SegmentFiles
from psync.engine.directory.log.status_batch import StatusBatch
from psync.engine.directory.log.status_file import (
    CLAIMED,
    FINAL,
    MAX_ATTEMPTS,
    STATUS_BYTES,
    StatusFile,
    at_position,
    first_word,
    status_of,
    words_at,
    words_of,
)
from psync.engine.encoding.framing import Unreadable

MAX_SCAN_BYTES = 1 << 18
"""Bytes of records that a scan reads at once, at most."""
MAX_CLAIM_BYTES = 1 << 16
"""Bytes of records that are claimed at once, at most."""
READ_AHEAD_BYTES = 1 << 14
"""Bytes that are read ahead for a claimer that takes one record after the other."""
_CLAIMED = State.CLAIMED
_new_status = functools.partial(tuple.__new__, Mark)
"""A `Mark` made of a tuple, unchecked."""
_new_record = functools.partial(tuple.__new__, Record)


class Segments(SegmentFiles):
    """The verbs on the records of one log. Not locked: the log does that."""

    _record_bytes = 256
    """Bytes of a record on average, when several were claimed last."""

    # -- one status ------------------------------------------------------------------------------------

    def status(self, position: int, tail: int) -> Mark | None:
        """The status of the record at `position`; None if the record was cleared away. Raises `Unreadable`."""
        found = self.find(position, tail)
        if found is None:
            return None
        _, statuses, offset = found
        return status_of(*statuses.get(offset >> 1), position)

    def exchange(self, position: int, tail: int, held: Mark, new: Mark, before: Callable[[], object] | None) -> bool:
        """Compare and set: the status goes from `held` to `new`, after `before` has run; False if it is not `held`."""
        found = self.find(position, tail)
        if found is None:
            return False
        _, statuses, offset = found
        if status_of(*statuses.get(offset >> 1), position) != held:
            return False
        if before is not None:
            before()
        word, owner = words_of(new)
        statuses.put(offset >> 1, at_position(word, position), owner)
        return True

    def batch(self, positions: Sequence[int], tail: int) -> StatusBatch:
        """The statuses of the records at `positions`, which are sorted, to be changed together."""
        found = ((position, self.find(position, tail)) for position in positions)
        return StatusBatch([(position, place[1], place[2] >> 1) for position, place in found if place is not None])

    def write_status(self, position: int, tail: int, status: Mark) -> None:
        """Overwrite the status of the record at `position`."""
        base, stop, _, statuses = self._last
        if base <= position < stop:
            offset = position - base
        else:
            found = self.find(position, tail)
            if found is None:
                raise Unreadable(f"the record at {position} was cleared away before it was final")
            _, statuses, offset = found
        word, owner = words_of(status)
        statuses.put(offset >> 1, word ^ (position & 0x1FFFE0) << 19, owner)  # `at_position` written out

    # -- statuses before records -------------------------------------------------------------------------

    def write_statuses(self, positions: list[int], end: int, tail: int, status: Mark) -> None:
        """Write a status for `positions` in the last segment, up to `end`, before there are any records there."""
        first = positions[0]
        written = bytearray((end - first) >> 1)
        for position in positions:
            _put(written, position - first, status, position)
        self.status_file(tail).write(bytes(written), (first - tail) >> 1)

    def cut_statuses(self, end: int, tail: int) -> None:
        """Remove all statuses behind `end`, the end of the log."""
        self.status_file(tail).cut((end - tail) >> 1)

    # -- claiming ----------------------------------------------------------------------------------------

    def claim(
        self, position: int, end: int, tail: int, owner: int, beat: int, lease: float
    ) -> tuple[Record | None, int, Mark | None]:
        """Claim the record at `position` if it is WAITING. Returns the record, its size and None.

        Returns None, the size (0 if it was cleared away) and the status if the record is not WAITING. A pread if the
        record was not read ahead, which is safe: a record never changes.
        """
        begin, data, statuses, base = self._ahead
        at = position - begin
        if at < 0 or at + HEAD_BYTES > len(data):
            found = self.find(position, tail)
            if found is None:
                return None, 0, None
            fd, statuses, at = found
            base = position - at
            # not behind the end: bytes that a killed append left there look right, and will be overwritten
            data = os.pread(fd, min(self.next_base(position, tail, end) - position, READ_AHEAD_BYTES), at)
            self._ahead = position, data, statuses, base
            at = 0
        start = at + HEAD_BYTES
        length, checksum, _, _ = head_at(data, at) if start <= len(data) else (0, -1, 0, 0)
        payload = data[start : start + length]
        if len(payload) != length or crc32(payload, position + 1 & 0xFFFFFFFF) != checksum:  # `fits` written out
            self.discard_read_ahead()
            found = self.find(position, tail)
            if found is None:
                return None, 0, None
            fd, statuses, at = found
            payload = self.load(fd, at, position)  # it is longer than what was read ahead, or newer, or damaged
            length = len(payload)
        size = (HEAD_BYTES + length + ALIGN_BYTES - 1) & -ALIGN_BYTES
        offset, attempt = (position - base) >> 1, 1
        word = first_word(CLAIMED, attempt, owner, beat, lease)
        if written := statuses.put_if_unwritten(offset, word ^ (position & 0x1FFFE0) << 19, owner):
            status = status_of(*written, position)
            if status.state:
                return None, size, status
            attempt = min(attempt + status.attempt, MAX_ATTEMPTS)
            word = first_word(CLAIMED, attempt, owner, beat, lease)
            statuses.put(offset, at_position(word, position), owner)
        return _new_record((position, _new_status((_CLAIMED, attempt, owner, beat, lease)), payload)), size, None

    def claim_run(
        self, position: int, end: int, tail: int, limit: int, owner: int, beat: int, lease: float, taken: list[Record]
    ) -> int:
        """Claim up to `limit` records in a row into `taken`, if they have no status yet; returns their bytes.

        Stops, perhaps at once, at a record that has a status, is large, or is damaged. pread, pread, pwrite.
        """
        found = self.find(position, tail)
        if found is None:
            return 0
        fd, statuses, offset = found
        wanted = min((limit + 1) * self._record_bytes, MAX_CLAIM_BYTES)  # not much more than will be claimed
        data = os.pread(fd, min(self.next_base(position, tail, end) - position, wanted), offset)
        old = statuses.read(len(data) >> 1, offset >> 1)
        status = Mark(_CLAIMED, 1, owner, beat, lease)
        written = bytearray()
        at, asked = 0, limit
        while limit and at + HEAD_BYTES <= len(data):
            length, checksum, _, _ = head_at(data, at)
            size = size_of(length)
            payload = data[at + HEAD_BYTES : at + HEAD_BYTES + length]
            if len(payload) != length or any(old[at >> 1 : (at >> 1) + STATUS_BYTES]):
                break
            if not fits(payload, checksum, position + at):
                break
            taken.append(
                _new_record((position + at, status, payload))
            )  # before its status says so: if that fails, the caller gives it back
            written += bytes(size >> 1)
            _put(written, at, status, position + at)
            at += size
            limit -= 1
        if at:
            statuses.write(bytes(written), offset >> 1)
            self._record_bytes = at // (asked - limit)
        else:
            self._record_bytes = min(2 * self._record_bytes, MAX_CLAIM_BYTES)
        return at

    # -- reading -----------------------------------------------------------------------------------------

    def read(self, position: int, tail: int) -> Record | None:
        """The record at `position`, its payload verified; None if it was cleared away. Raises `Unreadable`."""
        found = self.find(position, tail)
        if found is None:
            return None
        fd, statuses, offset = found
        status = status_of(*statuses.get(offset >> 1), position)
        return Record(position, status, self.load(fd, offset, position))

    def scan(self, begin: int, end: int, tail: int, passed: int = 0) -> Iterator[tuple[int, State, int]]:
        """(position, state, size) of each record from `begin` up to `end`. Payloads are not verified.

        Raises `Unreadable`; also if a record before `passed` has no status.
        """
        position = begin
        chunk = 4096
        while position < end:
            found = self.find(position, tail)
            if found is None:
                return
            stop = min(end, self.next_base(position, tail, end))
            data, states = self._chunk(found, min(chunk, stop - position))
            chunk = min(2 * chunk, MAX_SCAN_BYTES)
            at = 0
            while at + HEAD_BYTES <= len(data):
                state = _status_in(states, at, position, passed).state
                size = size_of(length_at(data, at, position))
                yield position, state, size
                at += size
                position += size
            _check_room(position, stop)
            if not at:
                return

    def final_up_to(self, begin: int, end: int, tail: int, passed: int = 0) -> int:
        """The position up to which all records from `begin` on are final, `end` at most.

        Raises `Unreadable`; also if a record before `passed` has no status.
        """
        position = begin
        chunk = 4096
        while position < end and (found := self.find(position, tail)) is not None:
            stop = min(end, self.next_base(position, tail, end))
            data, states = self._chunk(found, min(chunk, stop - position))
            chunk = min(2 * chunk, MAX_SCAN_BYTES)
            at = known = 0
            last = min(len(data) - HEAD_BYTES, 2 * (len(states) - STATUS_BYTES))
            while at <= last and states[at >> 1] in FINAL:
                here = position + at
                word, owner = words_at(states, at >> 1)
                if (alike := at_position(word, here)) != known:  # most statuses are alike
                    status_of(word, owner, here)
                    known = alike
                at += size_of(length_at(data, at, here))
            position += at
            _check_room(position, stop)
            if not at or at <= len(data) - HEAD_BYTES:
                _status_in(states, at, position, passed)
                break
        return position

    def _chunk(self, found: tuple[int, StatusFile, int], size: int) -> tuple[bytes, bytes]:
        """`size` bytes of records, and their statuses."""
        fd, statuses, offset = found
        data = os.pread(fd, size, offset)
        return data, statuses.read(len(data) >> 1, offset >> 1)


def _put(written: bytearray, at: int, status: Mark, position: int) -> None:
    """Put a status into a row of them, for the record at an offset in the same row of records."""
    word, owner = words_of(status)
    word = at_position(word, position)
    written[at >> 1 : (at >> 1) + STATUS_BYTES] = word.to_bytes(8, "little") + owner.to_bytes(8, "little")


def _check_room(position: int, stop: int) -> None:
    """Raise `Unreadable` if the records of a segment end at `position`, behind its end.

    The check of a head does not find every damaged length.
    """
    if position > stop:
        raise Unreadable(f"a record is longer than there is room for before {stop}")


def _status_in(states: bytes, at: int, position: int, passed: int) -> Mark:
    """The status in a row of them of the record at an offset in the same row of records. Raises `Unreadable`."""
    raw = states[at >> 1 : (at >> 1) + STATUS_BYTES]
    word, owner = words_at(raw.ljust(STATUS_BYTES, b"\0"))
    if not word and position < passed:
        raise Unreadable(f"the record at {position} had a status once, and has none any more")
    return status_of(word, owner, position)
