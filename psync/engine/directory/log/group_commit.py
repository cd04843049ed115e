"""Durable appends of many processes reach the disk together: one of them asks for all that were written by then.

Who appends durably writes its record behind what others have prepared, and says in ``tail`` how far that goes now. Then
it queues for ``sync``. Once it has that, it looks: is my record on the disk by now? If not, it asks for all that is
prepared, and says in ``tail`` that the log ends behind it. The fact that decides is that: before, nobody sees the
record. A killed one's record comes to exist with the next group, or never.

If the disk fails, nothing of the group was written, all of it raise, and the segment is not asked for again: what comes
next goes to another file, as the kernel gives up what it could not write, and says nothing when it is asked again.

flock, the asking for all, flock, pwrite, unlock, pwrite, unlock; or flock, unlock, if somebody else was faster.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from fcntl import LOCK_EX, LOCK_NB

from psync.engine.directory.log.header import LockedHeader, Sync, Tail
from psync.engine.directory.log.segment_files import SegmentFiles
from psync.engine.system import clock

PATIENCE = 0.5
"""Of the time that asking the disk takes, at most this part is spent in waiting for others to join."""
LONGEST = 0.002
"""Seconds."""


class Commit:
    """The ``sync`` of one log. Threads may share it."""

    def __init__(self, block: LockedHeader[Sync], tail: LockedHeader[Tail], segments: SegmentFiles) -> None:
        self._block = block
        self._tail = tail
        self._segments = segments
        self._took = 0.0

    def fails(self) -> int:
        """To be asked while ``tail`` is locked, before a record is prepared, and handed to `wait`."""
        return self._block.peek().failures

    def wait(self, end: int, fails: int) -> None:
        """Return when the record that was prepared, and ends at `end`, is on the disk and exists. Raises OSError."""
        waited = False
        while not self._is_done(self._block.peek(), end, fails):
            try:
                sync = self._block.enter(LOCK_EX | LOCK_NB)
            except BlockingIOError:
                self._block.await_leaving()
                continue
            crowd = 0
            try:
                if not self._is_done(sync, end, fails):
                    crowd = 0 if waited or self._tail.depth else sync.group_size
                    if crowd < 2:
                        self._ask(sync)
                        return
            finally:
                self._block.leave()
            if crowd > 1:  # not while it is locked, or those who are done would not learn of it
                waited = True
                self._let_others_join(crowd, end)

    def _is_done(self, sync: Sync, end: int, fails: int) -> bool:
        if sync.failures != fails:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return sync.synced >= end

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """For the length of the block nobody else commits, and, if ``tail`` can be locked in it, nothing is pending."""
        self._block.enter()
        try:
            yield
        finally:
            self._block.leave()

    def all(self) -> None:
        """While `alone` and ``tail`` is locked: what is prepared exists."""
        if self._tail.values.prepared_end:
            self._ask(self._block.values)

    def _let_others_join(self, crowd: int, end: int) -> None:
        until = clock.monotonic() + min(PATIENCE * self._took, LONGEST)
        while self._tail.peek().prepared_count < crowd and clock.monotonic() < until:
            if self._block.peek().synced >= end:
                return
            os.sched_yield()

    def _ask(self, sync: Sync) -> None:
        tail = self._tail.peek()
        end, pending = tail.prepared_end or tail.end, tail.prepared_count
        begun = clock.monotonic()
        for file in self._segments.written_since(sync.synced, tail.base):
            try:
                os.fdatasync(file)
            except OSError:
                self._give_up(sync)
                raise
        self._took = clock.monotonic() - begun
        tail = self._tail.enter()
        try:
            if end > tail.end:
                tail.end = end
                tail.appended += pending
                tail.prepared_count -= pending
                if tail.prepared_end == end:
                    tail.prepared_end = 0
                self._tail.save()
            sync.group_size = max(pending + tail.prepared_count, sync.group_size * 3 // 4)
        except BaseException:
            self._tail.spoil()
            raise
        finally:
            self._tail.leave()
        sync.synced = end
        try:
            self._block.save()
        except OSError:
            self._block.spoil()  # it is on the disk, and exists; somebody will ask once more

    def _give_up(self, sync: Sync) -> None:
        tail = self._tail.enter()
        try:
            end = tail.end
            tail.prepared_end = tail.prepared_count = 0
            if end > tail.base:
                with contextlib.suppress(OSError):
                    self._segments.cut(end, tail.base)
                tail.base = end
            else:
                self._segments.begin_anew(end)
            self._tail.save()
            sync.failures += 1
            self._block.save()
        finally:
            self._tail.leave()

    def spoil(self) -> None:
        self._block.spoil()

    def close_if_idle(self) -> bool:
        if not self._block.close_if_idle():
            return False
        self._segments.close()
        return True

    def after_fork(self) -> None:
        self._block.after_fork()
        self._segments.close()
