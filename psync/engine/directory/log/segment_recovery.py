"""Segment recovery: the verbs on segments after a power cut (see `recovery`) or damage (see `repair`)."""

from __future__ import annotations

import bisect
import os

from psync.engine.contract.log import Mark, State
from psync.engine.directory.fs.atomic import AtomicFiles
from psync.engine.directory.fs.syscalls import read_all
from psync.engine.directory.layout import number_in
from psync.engine.directory.log.record_format import ALIGN_BYTES, HEAD_BYTES, encode, head_at, length_at, size_of
from psync.engine.directory.log.segments import Segments
from psync.engine.directory.log.status_file import status_of
from psync.engine.encoding.framing import Unreadable


class SegmentRecovery:
    """Verbs on the segments of one log, while the caller keeps all other processes and threads out."""

    def __init__(self, segments: Segments, fs: AtomicFiles) -> None:
        self._segments = segments
        self._fs = fs

    # -- after a restart of the host -------------------------------------------------------------------

    def follow(self, position: int, bases: list[int]) -> tuple[int, int]:
        """The end of the records that lie in a row from `position` on, and how many they are.

        Records that were appended together count all or not at all.
        """
        end, count, seen = position, 0, 0
        while at := bisect.bisect_right(bases, position):
            base = bases[at - 1]
            fd = self._segments.file(base)
            try:
                length = len(self._segments.load(fd, position - base, position))
            except Unreadable:
                break
            more = head_at(os.pread(fd, HEAD_BYTES, position - base))[2]
            position += size_of(length)
            seen += 1
            if not more:
                end, count = position, seen
        return end, count

    def drop_behind(self, end: int, bases: list[int]) -> int:
        """Remove all records and statuses behind `end`; returns where the last segment begins now."""
        kept = [base for base in bases if base <= end]
        folder = self._segments.folder
        for name in self._fs.listing(folder):
            base = number_in(name.removesuffix(".marks"))
            if base is not None and base > end:
                os.unlink(f"{folder}/{name}")
        self._segments.close()
        base = kept[-1] if kept else end
        if kept:
            self._segments.cut(end, base)
        self._segments.cut_statuses(end, base)
        return base

    def fill(self, payload: bytes, position: int, base: int) -> None:
        """Write one record of zeros, which take no room on the disk."""
        fd = self._segments.file(base, create=True)
        os.pwrite(fd, encode(payload, position)[:HEAD_BYTES], position - base)
        os.ftruncate(fd, position - base + size_of(len(payload)))

    # -- damage ----------------------------------------------------------------------------------------

    def examine(self, position: int, end: int, tail: int, passed: int) -> tuple[int, Unreadable | None]:
        """The end of the record at `position`, and the damage to it or to its status, if there is any.

        A damaged record ends where the next sound one begins; a cleared record ends with its segment. A record before
        `passed` must have a status.
        """
        found = self._segments.find(position, tail)
        if found is None:
            later = [base for base in self._segments.bases() if base > position]
            return (min(later) if later else end), None
        fd, statuses, offset = found
        stop = self._segments.next_base(position, tail, end)
        try:
            size = size_of(len(self._segments.load(fd, offset, position)))
            word, owner = statuses.get(offset >> 1)
            if not word and position < passed:
                raise Unreadable("it had a status once, and has none any more")
            status_of(word, owner, position)
            return position + size, None
        except Unreadable as error:
            following = position + ALIGN_BYTES
            while following < stop and not self._is_sound(
                fd, offset + following - position, following, stop - following
            ):
                following += ALIGN_BYTES
            return min(following, stop), error

    def retire(self, position: int, end: int, tail: int) -> bytes:
        """Replace the damaged bytes from `position` to `end` by one sound record that is DEAD; returns those bytes."""
        found = self._segments.find(position, tail)
        assert found is not None
        fd, _, offset = found
        size = end - position
        data = read_all(fd, size, offset)
        self._segments.write_status(position, tail, Mark(State.DEAD))
        if len(data) < size:
            os.pwrite(fd, b"\0", offset + size - 1)
        payload = data.ljust(size, b"\0")[HEAD_BYTES:]
        os.pwrite(fd, encode(payload, position)[:HEAD_BYTES], offset)
        self._segments.discard_read_ahead()
        return data

    def _is_sound(self, fd: int, offset: int, position: int, room: int) -> bool:
        """Whether a record that fits its checksum begins at `position`, and ends within `room` bytes."""
        head = os.pread(fd, HEAD_BYTES, offset)
        try:
            if len(head) < HEAD_BYTES or size_of(length_at(head, 0, position)) > room:
                return False
            self._segments.load(fd, offset, position)
        except Unreadable:
            return False
        return True
