"""Open the files of a log for reading: none is made, locked or repaired. So a read may meet the middle of a change."""

from __future__ import annotations

import contextlib
import os

from psync.engine.directory.fs.atomic import AtomicFiles
from psync.engine.directory.fs.syscalls import READ
from psync.engine.directory.layout import Layout
from psync.engine.directory.log.double_buffer import DoubleBuffer
from psync.engine.directory.log.fields import FieldsT
from psync.engine.directory.log.header import LockedHeader
from psync.engine.directory.log.position_file import PositionFile
from psync.engine.directory.log.segments import Segments
from psync.engine.directory.log.state import FileKinds
from psync.engine.directory.log.status_file import StatusFile
from psync.engine.encoding.framing import Unreadable

READS = 100
"""Reads of a header that may meet a half-made change before it is taken for damaged."""


class _SeenHeader(LockedHeader[FieldsT]):
    """A header that is read without its lock; its fields are all 0 where there is no file yet."""

    def peek(self) -> FieldsT:
        try:
            fd = self._fs.open(self.path, READ)
        except FileNotFoundError:
            return self._loaded([0] * self._fields.COUNT)
        try:
            buffer = DoubleBuffer(fd, self._fields.COUNT, blank=self._blank)
        finally:
            os.close(fd)
        try:
            for _ in range(READS):
                with contextlib.suppress(Unreadable):  # a writer was in the middle of a change
                    return self._loaded((buffer.since(None) or (0, []))[1])
            return self._loaded((buffer.since(None) or (0, []))[1])
        finally:
            buffer.close()

    def enter(self, how: int = 0) -> FieldsT:
        return self.peek()

    def leave(self) -> None:
        """There is no lock to release."""


class _SeenSegments(Segments):
    """Segments that are opened for reading."""

    def __init__(self, layout: Layout, log: str, fs: AtomicFiles) -> None:
        super().__init__(layout, log, fs)
        self._unwritten: set[int] = set()
        """Segments that had no file of statuses yet."""

    def find(self, position: int, tail: int) -> tuple[int, StatusFile, int] | None:
        while self._unwritten:
            self._evict(self._unwritten.pop())  # they may have one by now
        return super().find(position, tail)

    def _open_segment(self, path: str, create: bool) -> int:
        return self._fs.open(path, READ)

    def _open_statuses(self, path: str, base: int) -> StatusFile:
        try:
            fd = self._fs.open(path, READ)
        except FileNotFoundError:
            fd = os.open(os.devnull, READ)  # nothing is in there: no status was written
            self._unwritten.add(base)
        return StatusFile(fd)


class _SeenPositions(PositionFile):
    """A position file that is opened for reading."""

    _absent = False

    def _file(self) -> int:
        if self._absent:
            self.close()  # it may be there by now
        if self._fd < 0:
            try:
                self._fd = os.open(self._path, READ | self._flags & os.O_DIRECT)
                self._absent = False
            except FileNotFoundError:
                self._fd = os.open(os.devnull, READ)
                self._absent = True
        return self._fd


READING = FileKinds(_SeenHeader, _SeenSegments, _SeenSegments, _SeenPositions, writable=False)
