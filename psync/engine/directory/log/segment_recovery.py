"""What is asked of a log's segments after a power cut (see `mending`), and when something is damaged (see `repair`)."""

from __future__ import annotations

import bisect
import os

from psync.engine.contract.log import Mark, State
from psync.engine.directory.fs.syscalls import read_all
from psync.engine.directory.layout import number_in
from psync.engine.directory.log.record_format import ALIGN, HEAD, encode, head_at, length_at, size_of
from psync.engine.directory.log.segment_files import NOTHING_AHEAD
from psync.engine.directory.log.segments import Segments
from psync.engine.directory.log.status_file import mark_of
from psync.engine.encoding.framing import Unreadable


class Salvage(Segments):
    """The segments of one log, which the caller keeps everybody else from."""

    # -- after the host was started anew ---------------------------------------------------------------

    def follow(self, position: int) -> tuple[int, int]:
        """Where the records end that lie in a row from `position` on, as far as they were appended whole, all or none;
        and how many there are."""
        end, count, seen = position, 0, 0
        while at := bisect.bisect_right(self._bases, position):
            base = self._bases[at - 1]
            fd = self._file(base)
            try:
                length = len(self._load(fd, position - base, position))
            except Unreadable:
                break
            more = head_at(os.pread(fd, HEAD, position - base))[2]
            position += size_of(length)
            seen += 1
            if not more:
                end, count = position, seen
        return end, count

    def drop_behind(self, end: int) -> int:
        """Nothing lies behind `end`, and nothing is marked there; where the last segment begins now."""
        kept = [base for base in self._bases if base <= end]
        for name in self._fs.listing(self._folder):
            base = number_in(name.removesuffix(".marks"))
            if base is not None and base > end:
                os.unlink(f"{self._folder}/{name}")
        self.close()
        base = kept[-1] if kept else end
        if kept:
            self.cut(end, base)
        self.cut_marks(end, base)
        return base

    def fill(self, payload: bytes, position: int, base: int) -> None:
        """One record of zeros, which take no room."""
        fd = self._file(base, create=True)
        os.pwrite(fd, encode(payload, position)[:HEAD], position - base)
        os.ftruncate(fd, position - base + size_of(len(payload)))

    # -- what is damaged -------------------------------------------------------------------------------

    def examine(self, position: int, end: int, tail: int, passed: int) -> tuple[int, Unreadable | None]:
        """Where the record at `position` ends, and what is wrong with it or with its mark, if anything.

        One that is itself damaged ends where the next one begins that is not, one that was cleared away with its
        segment.
        """
        found = self._find(position, tail)
        if found is None:
            later = [base for base in self._bases if base > position]
            return (min(later) if later else end), None
        fd, marks, offset = found
        stop = self._next_base(position, tail, end)
        try:
            size = size_of(len(self._load(fd, offset, position)))
            word, owner = marks.get(offset >> 1)
            if not word and position < passed:
                raise Unreadable("it was marked once, and is not any more")
            mark_of(word, owner, position)
            return position + size, None
        except Unreadable as error:
            following = position + ALIGN
            while following < stop and not self._is_sound(
                fd, offset + following - position, following, stop - following
            ):
                following += ALIGN
            return min(following, stop), error

    def retire(self, position: int, end: int, tail: int) -> bytes:
        """What is damaged from `position` to `end` becomes one record that fits and is DEAD; returns what was there."""
        found = self._find(position, tail)
        assert found is not None
        fd, _, offset = found
        size = end - position
        data = read_all(fd, size, offset)
        self.write_mark(position, tail, Mark(State.DEAD))
        if len(data) < size:
            os.pwrite(fd, b"\0", offset + size - 1)
        payload = data.ljust(size, b"\0")[HEAD:]
        os.pwrite(fd, encode(payload, position)[:HEAD], offset)
        self._ahead = NOTHING_AHEAD
        return data

    def _is_sound(self, fd: int, offset: int, position: int, room: int) -> bool:
        """Whether a record begins there that fits its checksum, in so many bytes."""
        head = os.pread(fd, HEAD, offset)
        try:
            if len(head) < HEAD or size_of(length_at(head, 0, position)) > room:
                return False
            self._load(fd, offset, position)
        except Unreadable:
            return False
        return True
